"""What a client must have seen of the server, and who must be dead; what a driver printed is judged here."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Any

from bilt_mcp.bench.kernel import bearers

ABILITIES = ("list", "start", "wait", "read", "cancel", "gate", "error")
"""What is asked of every client, in the order of the table."""

LINE = "a line of the build"
QUESTION = "Publish it?"
WORKFLOW = f"""\
[[step]]
name = "build"
when = "build"
run = "sleep 0.3; echo '{LINE}'"

[[step]]
name = "serve"
when = "serve"
run = "setsid sleep 1000 & echo '::progress 50::serving'; wait"

[[step]]
name = "publish"
when = "publish"
run = "true"
confirm = "{QUESTION}"
"""
"""The project: a step that ends; one that does not, of processes of which one leaves its session; one that asks."""

MOST_WAITS = 15
"""A wait that came back at once, every time, would be polling."""


def problems(seen: Mapping[str, Any], tools: Iterable[str]) -> dict[str, str]:
    """What is wrong with what a client saw, by ability; nothing where all is well."""
    found: dict[str, str] = {}

    @contextmanager
    def ability(name: str) -> Generator[None]:
        try:
            yield
        except AssertionError as wrong:
            found[name] = str(wrong)
        except (KeyError, TypeError, IndexError, ValueError) as wrong:
            found[name] = f"not as documented: {wrong!r}"

    with ability("list"):
        assert seen["tools"] == sorted(tools), f"other tools: {seen['tools']}"
    with ability("start"):
        started = seen["started"]
        assert started["workflow_started"] is True, started
    with ability("wait"):
        waited = seen["waited"]
        assert waited[-1]["status"] == "completed", waited[-1]
        assert waited[-1]["workflow_id"] == seen["started"]["workflow_id"], waited[-1]
        assert len(waited) <= MOST_WAITS, f"{len(waited)} calls to wait for one build"
    with ability("read"):
        said = [message["content"] for message in seen["read"]["messages"]]
        assert LINE in said, said
    with ability("cancel"):
        _check_cancel(seen)
    with ability("gate"):
        _check_gate(seen)
    with ability("error"):
        _check_errors(seen)
    return found


def _check_cancel(seen: Mapping[str, Any]) -> None:
    cancelled, stopped = seen["cancelled"], seen["cancelled"]["stopped"]
    assert cancelled["status"] == "cancelled", cancelled
    assert stopped["verified"] is True, stopped
    assert stopped["survivors"] == 0, stopped
    assert stopped["processes_killed"] >= 2, stopped
    assert seen["after cancel"]["status"] == "cancelled", seen["after cancel"]
    alive = bearers(f"BILT_WORKFLOW_ID={cancelled['workflow_id']}")
    assert not alive, f"{len(alive)} processes are alive"


def asks(seen: Mapping[str, Any]) -> bool:
    """Whether the client can put a question to its user: then a gate is answered through it, else refused."""
    return "asked" in seen


def _check_gate(seen: Mapping[str, Any]) -> None:
    body = seen["gate"]["body"]
    if asks(seen):
        (question,) = seen["asked"]
        assert QUESTION in question, question
        assert body["answer"] == "confirmed", body
        assert seen["after gate"]["status"] == "completed", seen["after gate"]
    else:
        assert body["error"] == "Confirmation required", body
        assert " confirm " in body["details"]["command"], body
        assert seen["after gate"]["status"] == "cancelled", seen["after gate"]


def _check_errors(seen: Mapping[str, Any]) -> None:
    refused, unknown = seen["refused"]["body"], seen["unknown"]["body"]
    assert refused["error"] == "Cannot cancel workflow", refused
    assert refused["details"]["current_status"] == "cancelled", refused
    assert refused["details"]["message"], refused
    assert unknown["error"] == "Session not found", unknown
    assert unknown["details"]["message"], unknown
