"""Which clients there are, and what each is installed from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
DRIVERS = HERE / "drivers"

NPM_DAY = "2026-11-22"
"""npm resolves what its pinned packages need as it was on this day; Python's pins name every package."""


@dataclass(frozen=True)
class Known:
    """A client, before it is installed."""

    name: str
    """What it is called in the table; `--only` takes it."""
    environment: str
    """Its environment in build/clients; for Python also the name of its pins in pins/."""
    package: str
    """The package whose version is shown: for npm with the version that is installed."""
    driver: str
    """The program in drivers/ that does with this client what all of them do."""
    option: str = ""
    """Which form of the driver."""
    wants: tuple[str, ...] = ()
    """What `--resolve` makes the pins from; for npm what is installed beside the package."""
    mebibytes: int = 0
    """What it installs, where that is so much that it must be asked for."""
    http: bool = False
    """Whether it reaches the server over HTTP, with a key; else it starts one."""

    @property
    def npm(self) -> bool:
        """Whether it is JavaScript."""
        return self.driver.endswith(".mjs")

    @property
    def pins(self) -> Path:
        """The pinned packages of a Python environment, one `name==version` a line."""
        return HERE / "pins" / f"{self.environment}.txt"

    def called(self) -> str:
        """The name of its package."""
        return self.package.rpartition("@")[0] if self.npm else self.package

    def version(self) -> str:
        """The pinned version of its package."""
        return self.package.rpartition("@")[2] if self.npm else pinned(self.pins, self.package)

    def sdk(self) -> str:
        """The version of the Python SDK that it stands on; nothing for JavaScript."""
        return "" if self.npm else pinned(self.pins, "mcp")


def pinned(pins: Path, package: str) -> str:
    """The version of a package in a file of pins."""
    for line in pins.read_text("utf-8").splitlines():
        name, _, version = line.partition("==")
        if name == package:
            return version
    raise ValueError(f"{package} is not in {pins.name}")


def _python(
    name: str, environment: str, driver: str, *wants: str, option: str = "", mebibytes: int = 0
) -> Known:
    first = wants[0].partition("==")[0].partition("[")[0]
    return Known(name, environment, first, f"{driver}.py", option, wants, mebibytes)


_STDIO = (
    _python("mcp 1.x", "mcp1", "mcp1_client", "mcp==1.30.0"),
    _python("mcp 2.x, handshake", "mcp2", "mcp_client", "mcp==2.3.0", option="legacy"),
    _python("mcp 2.x", "mcp2", "mcp_client", "mcp==2.3.0", option="auto"),
    _python("fastmcp", "fastmcp", "fastmcp_client", "fastmcp==4.1.2"),
    Known("typescript 1.x", "ts1", "@modelcontextprotocol/sdk@1.32.2", "ts1_client.mjs"),
    Known(
        "typescript 2.x, handshake",
        *("ts2", "@modelcontextprotocol/client@2.4.0", "ts2_client.mjs", "legacy"),
    ),
    Known("typescript 2.x", "ts2", "@modelcontextprotocol/client@2.4.0", "ts2_client.mjs", "auto"),
    Known(
        "inspector, handshake",
        *("inspector", "@modelcontextprotocol/inspector@2.12.0", "inspector_client.mjs", "legacy"),
    ),
    Known(
        "inspector",
        *("inspector", "@modelcontextprotocol/inspector@2.12.0", "inspector_client.mjs", "modern"),
    ),
    _python(
        "langchain",
        *("langchain", "langchain_client", "langchain-mcp-adapters==0.3.2", "langchain"),
    ),
    _python("openai-agents", "openai-agents", "openai_agents_client", "openai-agents==0.24.0"),
    _python("pydantic-ai", "pydantic-ai", "pydantic_ai_client", "pydantic-ai-slim[mcp]==2.68.0"),
    _python("llama-index", "llama-index", "llama_index_client", "llama-index-tools-mcp==0.6.0"),
    _python("google-adk", "google-adk", "google_adk_client", "google-adk[mcp]==2.13.0"),
    # Its mcpadapt asks for no version of mcp, and fails to import with 2.x.
    _python("smolagents", "smolagents", "smolagents_client", "smolagents[mcp]==1.26.0", "mcp<2"),
    _python("crewai", "crewai", "crewai_client", "crewai-tools[mcp]==1.15.30", mebibytes=940),
)


def _http(name: str, as_: str, option: str = "") -> Known:
    """A client of those above, over HTTP."""
    known = next(known for known in _STDIO if known.name == as_)
    return replace(known, name=name, option=option or known.option, http=True)


KNOWN = (
    *_STDIO,
    _http("mcp 1.x over HTTP", "mcp 1.x"),
    _http("mcp 2.x over HTTP, handshake", "mcp 2.x, handshake"),
    _http("mcp 2.x over HTTP", "mcp 2.x"),
    _http("fastmcp over HTTP", "fastmcp"),
    _http("typescript 1.x over HTTP", "typescript 1.x"),
    _http("typescript 2.x over HTTP", "typescript 2.x"),
    _http("inspector over HTTP", "inspector"),
    Known(
        *("mcp-remote", "mcp-remote", "mcp-remote@0.15.1", "mcp_remote_client.mjs"),
        wants=("@modelcontextprotocol/sdk@1.32.2",),
        http=True,
    ),
)
"""Every client, in the order of the table."""
