"""An OAuth issuer on loopback, made with PyJWT: metadata, keys that can be rotated, and tokens of every kind."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

AUDIENCE = "https://bilt.example/mcp"


class Issuer:
    """Signs tokens, and publishes its keys."""

    def __init__(self) -> None:
        self.url = ""
        self.keys: dict[str, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey] = {}
        self.is_up = True
        self.fetches = 0
        """How often its keys were asked for."""
        self.extra: list[Mapping[str, Any]] = []
        """Further entries of its key set."""
        self.metadata: dict[str, Any] = {}
        """What its metadata says instead."""
        self.rotate("first")

    def rotate(self, name: str, *, curve: bool = False) -> None:
        """From now on this is its only key."""
        key = (
            ec.generate_private_key(ec.SECP256R1())
            if curve
            else rsa.generate_private_key(65537, 2048)
        )
        self.keys = {name: key}

    def public_pem(self) -> bytes:
        """The newest public key, as an attacker has it, too."""
        _, key = self._newest()
        kind = serialization.PublicFormat.SubjectPublicKeyInfo
        return key.public_key().public_bytes(serialization.Encoding.PEM, kind)

    def claims(self, **more: Any) -> dict[str, Any]:
        """Those of a good token that may write; None leaves one out."""
        claims = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "alice",
            "exp": int(time.time()) + 300,
            "scope": "bilt:write",
            **more,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, *, kid: str | None = "", **claims: Any) -> str:
        """A token that is signed with the newest key. `kid` None: it does not say with which."""
        name, key = self._newest()
        algorithm = "RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256"
        named = name if kid == "" else kid
        headers = {} if named is None else {"kid": named}
        return jwt.encode(self.claims(**claims), key, algorithm, headers=headers)

    def answer(self, path: str) -> dict[str, Any] | None:
        """What is at a path; None: nothing."""
        if path == "/.well-known/oauth-authorization-server":
            return {"issuer": self.url, "jwks_uri": f"{self.url}/keys", **self.metadata}
        if path == "/keys":
            self.fetches += 1
            return {"keys": [*self.extra, *map(self._published, self.keys)]}
        return None

    def _published(self, name: str) -> dict[str, Any]:
        public = self.keys[name].public_key()
        if isinstance(public, rsa.RSAPublicKey):
            told = RSAAlgorithm.to_jwk(public, as_dict=True)
        else:
            told = ECAlgorithm.to_jwk(public, as_dict=True)
        return {**told, "kid": name, "use": "sig"}

    def _newest(self) -> tuple[str, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey]:
        return list(self.keys.items())[-1]


@contextmanager
def issuing() -> Generator[Issuer]:
    """An issuer that can be reached."""
    issuer = Issuer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = issuer.answer(self.path) if issuer.is_up else None
            body = json.dumps(found).encode()
            self.send_response(200 if found is not None else 503 if not issuer.is_up else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    issuer.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield issuer
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
