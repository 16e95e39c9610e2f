"""What every client is asked to do: a driver says how its client lists and calls, this does the rest.

Standard library only, because it runs in each client's own environment. It prints one line of JSON, what the client
saw, and judges nothing: the runner does.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

FINAL = {"completed", "failed", "cancelled"}
PATIENCE_SECONDS = 60.0
NOBODYS = "00000000-0000-4000-8000-000000000000"
"""An id as it should be: some clients refuse another one themselves."""


@dataclass(frozen=True)
class Answer:
    """What a call came to, as the client hands it to its caller."""

    body: Any
    """The JSON; where the client gives only text, that text."""
    how: str
    """How it arrived, in a few words; the caller of a failed call must know where to look."""


Lists = Callable[[], Awaitable[Iterable[str]]]
Calls = Callable[[str, dict[str, Any]], Awaitable[Answer]]


def server() -> tuple[str, list[str]]:
    """The command that starts the server, and its arguments: what follows `--` on the driver's command line."""
    command, *arguments = sys.argv[sys.argv.index("--") + 1 :]
    return command, arguments


def remote() -> tuple[str, dict[str, str]] | None:
    """Where the server is and the headers with the key, where it is reached over HTTP: these follow `--` then."""
    url, *rest = sys.argv[sys.argv.index("--") + 1 :]
    if not url.startswith("http"):
        return None
    return url, {"Authorization": f"Bearer {rest[0]}"}


def option() -> str | None:
    """What stands before `--`, where a driver has several forms."""
    before = sys.argv[1 : sys.argv.index("--")]
    return before[0] if before else None


def parsed(text: object) -> Any:
    """The JSON in a text, or the text as it is."""
    try:
        return json.loads(str(text))
    except ValueError:
        return str(text)


def text_of(content: Iterable[Any]) -> str:
    """The text of a result's content blocks, whether the client has objects or dicts."""
    return "".join(
        str(block["text"] if isinstance(block, dict) else block.text) for block in content
    )


def of_result(result: Any) -> Answer:
    """The answer in a `CallToolResult` of the Python SDK, of either generation or as a dict of the wire."""
    if isinstance(result, dict):
        failed, structured = result.get("isError"), result.get("structuredContent")
        text = text_of(result["content"])
    else:
        failed = getattr(result, "is_error", None) or getattr(result, "isError", False)
        structured = getattr(result, "structured_content", None)
        structured = structured or getattr(result, "structuredContent", None)
        text = text_of(result.content)
    if structured is None:
        return Answer(parsed(text), "isError, text" if failed else "text")
    if parsed(text) != structured:
        return Answer(parsed(text), "the text is not the structured content")
    return Answer(structured, "isError, structured and text" if failed else "structured and text")


def saw(lists: Lists, calls: Calls, **facts: Any) -> Awaitable[None]:
    """Do all of it with this client, and print what it saw, and the facts: `asked` is what its user was asked."""
    return _saw(lists, calls, facts)


async def _saw(lists: Lists, calls: Calls, facts: dict[str, Any]) -> None:
    began = time.monotonic()
    seen: dict[str, Any] = {**facts, "tools": sorted(await lists())}

    async def call(tool: str, **arguments: Any) -> Any:
        answer = await calls(tool, arguments)
        seen.setdefault("how", answer.how)
        return answer.body

    async def refusable(tool: str, **arguments: Any) -> dict[str, Any]:
        return asdict(await calls(tool, arguments))

    session = await call("bilt_get_session")
    session_id = session["session_id"]

    async def until(wanted: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """Every session as it was told, up to the first one that is wanted."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        told: list[dict[str, Any]] = [await call("bilt_get_session", session_id=session_id)]
        while not wanted(told[-1]):
            if time.monotonic() > deadline:
                raise TimeoutError(f"still {told[-1]}")
            waited = {"wait_seconds": 4, "after_revision": told[-1]["revision"]}
            told.append(await call("bilt_get_session", session_id=session_id, **waited))
        return told

    seen["started"] = await call("bilt_send_message", session_id=session_id, message="build")
    seen["waited"] = await until(lambda told: told["status"] in FINAL)
    seen["read"] = await call("bilt_get_messages", session_id=session_id, limit=20)

    await call("bilt_send_message", session_id=session_id, message="serve")
    await until(lambda told: "serving" in (told["progress"] or {"message": ""})["message"])
    reason = {"reason": "the user changed their mind"}
    seen["cancelled"] = await call("bilt_cancel_workflow", session_id=session_id, **reason)
    seen["after cancel"] = await call("bilt_get_session", session_id=session_id)

    seen["refused"] = await refusable("bilt_cancel_workflow", session_id=session_id)
    seen["unknown"] = await refusable("bilt_get_session", session_id=NOBODYS)

    await call("bilt_send_message", session_id=session_id, message="publish")
    gate = (await until(lambda told: told["pending_action"] is not None))[-1]["pending_action"]
    of = {"session_id": session_id, "action_id": gate["action_id"]}
    seen["gate"] = await refusable("bilt_confirm_action", **of)
    if "error" in seen["gate"]["body"]:
        await call("bilt_cancel_action", **of)
    seen["after gate"] = (await until(lambda told: told["status"] in FINAL))[-1]
    seen["seconds"] = round(time.monotonic() - began, 3)
    print(json.dumps(seen), flush=True)


def drive(main: Callable[[], Awaitable[None]]) -> None:
    """Run a driver."""

    async def run() -> None:
        await main()

    asyncio.run(run())
