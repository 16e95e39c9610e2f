"""Debian's nginx with the configuration that we recommend, on a free port, with a certificate made for the test."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import trustme

from .debian import ROOT, program

EXAMPLE = ROOT / "examples" / "nginx.conf"
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
"""Folders that nginx wants, each named by a directive of its own."""
START_SECONDS = 20


@dataclass(frozen=True)
class Front:
    """A port on which nginx is, or will be."""

    folder: Path
    port: int
    trusted: ssl.SSLContext
    """Trusts its certificate, and no other."""

    @property
    def url(self) -> str:
        """How clients reach it."""
        return f"https://localhost:{self.port}"


def front(folder: Path) -> Front:
    """A free port, and a certificate for it."""
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(folder / "both.pem")
    trusted = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
    with socket.create_server(("127.0.0.1", 0)) as found:
        return Front(folder, found.getsockname()[1], trusted)


def configuration(at: Front, upstream: str) -> str:
    """The example, with the names of this machine: everything else is as it stands there."""
    text = EXAMPLE.read_text("utf-8")
    pem = str(at.folder / "both.pem")
    for example, here in (
        ("server 127.0.0.1:8765;", f"server {upstream};"),
        ("listen 443 ssl http2;", f"listen 127.0.0.1:{at.port} ssl http2;"),
        ("listen [::]:443 ssl http2;", ""),
        ("server_name bilt.example.com;", "server_name localhost;"),
        ("/etc/nginx/bilt-mcp.crt", pem),
        ("/etc/nginx/bilt-mcp.key", pem),
    ):
        if text.count(example) != 1:
            raise AssertionError(f"{EXAMPLE.name} has not once: {example}")
        text = text.replace(example, here)
    return text


@contextlib.contextmanager
def nginx(at: Front, upstream: str) -> Generator[None]:
    """nginx before the server at `upstream`, a host and a port. Raises `debian.Unavailable`."""
    binary = program("nginx", "nginx")
    (at.folder / "bilt-mcp.conf").write_text(configuration(at, upstream), "utf-8")
    folders = "".join(f"{name}_temp_path {at.folder}/{name};\n" for name in TEMPORARY)
    # One process, which we started and can stop.
    main = (
        f"daemon off; master_process off; pid {at.folder}/pid; error_log {at.folder}/log;\n"
        f"events {{}}\nhttp {{ access_log off;\n{folders}include {at.folder}/bilt-mcp.conf; }}\n"
    )
    (at.folder / "main.conf").write_text(main, "utf-8")
    command = [str(binary), "-p", str(at.folder), "-c", "main.conf", "-e", str(at.folder / "log")]
    checked = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
    if checked.returncode:
        raise AssertionError(f"nginx refuses the configuration: {checked.stderr}")
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        _wait(process, at)
        yield
    finally:
        process.terminate()
        process.wait(START_SECONDS)


def _wait(process: subprocess.Popen[bytes], at: Front) -> None:
    """Return when it takes connections: it has the port as soon as it runs."""
    while process.poll() is None:
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", at.port), START_SECONDS).close()
            return
    raise AssertionError((at.folder / "log").read_text("utf-8"))
