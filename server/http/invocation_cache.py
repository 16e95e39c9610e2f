"""What was read of invocations, for as long as nobody has written to the store: who polls costs next to nothing."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

from bilt_mcp.state import Invocation as Found
from bilt_mcp.state import limited_to
from bilt_mcp.tools import Desk, needs_worker

from .invocation_models import Invocation
from .invocation_view import invocation_view

MOST_KEPT = 512

_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


@dataclass
class _Kept:
    found: Found
    body: bytes | None = None
    """The answer, where that can never be another one."""


class InvocationCache:
    """The invocations that were asked for lately, of one store."""

    def __init__(self) -> None:
        self._version: int | None = None
        self._kept: dict[tuple[str, str | None, str], _Kept] = {}

    async def body(self, desk: Desk, workflow_id: str) -> bytes:
        """The answer that tells of an invocation as it is now. Raises `WorkflowNotFound`."""
        kept = await self._look(desk, workflow_id)
        if kept.body is not None:
            return kept.body
        if needs_worker(kept.found.workflow):
            await desk.engine.wake(news=False)  # or who polls would be told for ever that it runs
        body = _JSON.encode(view(desk, kept.found)).encode()
        if kept.found.workflow.final:
            kept.body = body
        return body

    async def _look(self, desk: Desk, workflow_id: str) -> _Kept:
        # Before it is read: what is written meanwhile makes it another one.
        version = desk.store.version()
        if version != self._version:
            self._kept.clear()
            self._version = version
        which = (str(desk.account), limited_to(desk.account), workflow_id)
        kept = self._kept.get(which)
        if kept is not None and not _is_overdue(kept.found):
            return kept
        kept = _Kept(await desk.store.invocation(desk.account, workflow_id))
        if version is not None and version == self._version and len(self._kept) < MOST_KEPT:
            self._kept[which] = kept
        return kept


def view(desk: Desk, found: Found) -> Invocation:
    """The whole answer, with what is not in the store."""
    workflow = found.workflow
    return invocation_view(
        found,
        desk.account,
        artifacts=desk.engine.artifact_count(workflow.id, final=workflow.final),
        heartbeat=None if workflow.final else desk.engine.heartbeat(),
    )


def _is_overdue(found: Found) -> bool:
    """Whether a gate has waited too long: then the next look changes something."""
    gate = found.pending_action
    return (
        gate is not None and gate.expires_at is not None and gate.expires_at <= time.time() * 1000
    )
