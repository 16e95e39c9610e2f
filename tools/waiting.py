"""Holding an answer until the store says something new. A waiter owns nothing: when it goes, nothing changes."""

from __future__ import annotations

import time
from collections.abc import Callable

from bilt_mcp.state import Session, Watch, Workflow

from .desk import Desk, ToolContext
from .results import session_result

LOOK_AGAIN_SECONDS = 2.0
"""How often a waiter sees to it that a worker is alive, when nothing changes."""
BEAT_SECONDS = 5.0
"""How often the client is told that its call is alive."""


class Beat:
    """Tells the client every few seconds that its call is alive, if it asked for that, so that it need not time out."""

    def __init__(self, ctx: ToolContext) -> None:
        self._ctx = ctx
        self._since: float | None = None
        self._last = 0.0
        self.due = time.monotonic() + BEAT_SECONDS
        """When it is to be told next."""

    async def tell(self, session: Session) -> None:
        """Tell how far the session is."""
        self.due = time.monotonic() + BEAT_SECONDS
        if self._since is None:
            # Not since the call began: another process goes on with it if this one dies, and must not count less.
            begun = session.created_at if session.workflow is None else session.workflow.created_at
            self._since = begun / 1000
        self._last = max(round(time.time() - self._since, 3), self._last + 0.001)
        progress = session_result(session).progress
        told = session.status if progress is None else f"{progress.percent} %, {progress.message}"
        await self._ctx.report_progress(self._last, None, told)


async def wait_until(
    desk: Desk,
    session_id: str,
    reached: Callable[[Session], bool],
    seconds: float,
    *,
    urgent: bool = False,
    beat: Beat | None = None,
) -> Session:
    """The session as soon as `reached` says so, or as it is after `seconds`.

    While a workflow needs a worker, sees to it that one is alive. An `urgent` wait also tells it that there is news.
    """
    deadline = time.monotonic() + seconds
    news = urgent
    with desk.store.watch(desk.account, session_id) as watch:
        while True:
            session = await desk.store.session(desk.account, session_id)
            if reached(session) or time.monotonic() >= deadline or _is_idle(desk, beat):
                return session
            await _until_news(desk, watch, session, deadline, urgent, news, beat)
            news = False


async def _until_news(
    desk: Desk,
    watch: Watch,
    session: Session,
    deadline: float,
    urgent: bool,
    news: bool,
    beat: Beat | None,
) -> None:
    """Return when the session is to be read again."""
    while True:
        if needs_worker(session):
            await desk.engine.wake(news=news)
        now = time.monotonic()
        if beat is not None and now >= beat.due:
            await beat.tell(session)
        look_at = min(deadline, now + expires_in(session))
        pauses = [look_at]
        if needs_worker(session):
            pauses.append(now + LOOK_AGAIN_SECONDS)
        if beat is not None:
            pauses.append(beat.due)
        pause = max(0.0, min(pauses) - time.monotonic())
        if await watch.passed(session.revision, pause, urgent=urgent):
            return
        if time.monotonic() >= look_at or _is_idle(desk, beat):
            return


def _is_idle(desk: Desk, beat: Beat | None) -> bool:
    """Whether only a client waits, and this process was told to stop: seen at the next beat."""
    return beat is not None and desk.stopping()


def is_over(session: Session, workflow_id: str) -> bool:
    """Whether this very workflow is final; the session may have another one by then."""
    newest = session.workflow
    return newest is None or newest.id != workflow_id or newest.final


def is_answered(session: Session, workflow_id: str) -> bool:
    """Whether it is final, or paused: then nothing happens by itself, and whoever waits for it is told."""
    return is_over(session, workflow_id) or session.status == "paused"


def needs_worker(found: Session | Workflow) -> bool:
    """Whether the workflow, or the session's, cannot get on without a worker."""
    return found.status in ("pending", "running", "cancelling")


def expires_in(session: Session) -> float:
    """In how many seconds a look at the session tells something new although nobody changes it."""
    gate = session.pending_action
    if gate is None or gate.expires_at is None:
        return float("inf")
    left = gate.expires_at / 1000 - time.time()
    if left > 0:
        return left
    # The store's clock may be a little behind; or it cannot record anything now.
    return 0.01 if left > -0.1 else LOOK_AGAIN_SECONDS
