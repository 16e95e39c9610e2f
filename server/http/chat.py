"""The chat's routes (CONTRACT section 4): a person has something done, and answers what it asks.

A thread is a session, so what was started here any agent of the account sees and can stop, and the other way round. A
message without a `thread_id` begins a new thread: who begins to talk expects neither another conversation's history
nor its busy workflow. An answer waits, and owns nothing: when its caller goes, the workflow goes on.
"""

from __future__ import annotations

from functools import partial

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from bilt_mcp.state import PendingAction, Session, SessionNotFound, Started
from bilt_mcp.tools import Desk, is_answered, settled, start_workflow, wait_until

from .chat_answers import Report, actions, report_of, response, results
from .chat_models import (
    CancelledAnswer,
    ChatAnswer,
    ConfirmedAnswer,
    MessageRequest,
    QueuedAnswer,
    ThreadRequest,
)
from .chat_requests import nothing_pending, person_of, read, thread_id_of, told_as
from .holding import first_of, until_gone
from .identity import identity_of
from .site import Site, caller

HOLD_SECONDS = 300.0
"""How long an answer waits for the workflow (CONTRACT section 2, bilt_send_message)."""


def routes(site: Site) -> list[BaseRoute]:
    """The chat's routes but for its stream."""
    chat = _Chat(site)
    return [
        Route("/chat", chat.message, methods=["POST"]),
        Route("/chat/message", chat.queue, methods=["POST"]),
        Route("/chat/confirm", chat.confirm, methods=["POST"]),
        Route("/chat/cancel", chat.cancel, methods=["POST"]),
    ]


class _Chat:
    def __init__(self, site: Site) -> None:
        self._site = site

    async def message(self, request: Request) -> Response:
        """Serve POST /chat."""
        with told_as("chat_error", "Failed to process message"):
            desk, started = await self._start(request)
            held = await self._hold(request, desk, started.session_id, started.workflow_id)
            gate = held.gate
            answer = ChatAnswer(
                response=response(held, stopping=self._site.stopping.is_set()),
                thread_id=started.session_id,
                actions=actions(held.steps),
                requires_confirmation=gate is not None,
                confirmation_message=None if gate is None else gate.message,
                action_id=None if gate is None else gate.action_id,
            )
            return JSONResponse(answer.model_dump(exclude_none=True))

    async def queue(self, request: Request) -> Response:
        """Serve POST /chat/message."""
        with told_as("chat_error", "Failed to process message"):
            _, started = await self._start(request)
            return JSONResponse(QueuedAnswer(thread_id=started.session_id).model_dump())

    async def confirm(self, request: Request) -> Response:
        """Serve POST /chat/confirm: the answer tells what has become of it by then."""
        with told_as("confirmation_error", "Failed to confirm action"):
            desk, session, gate = await self._gate(request)
            by = caller(person_of(request), "chat", "")
            yes = desk.store.confirm(desk.account, session.id, gate.action_id, by)
            workflow = await settled(desk, yes)
            held = await self._hold(request, desk, session.id, workflow.id)
            asks = held.gate
            answer = ConfirmedAnswer(
                thread_id=session.id,
                response=response(held, stopping=self._site.stopping.is_set()),
                results=results(held.steps),
                requires_confirmation=asks is not None,
                confirmation_message=None if asks is None else asks.message,
                action_id=None if asks is None else asks.action_id,
            )
            told = answer.model_dump(exclude_none=True)
            if asks is None:
                del told["requires_confirmation"]
            return JSONResponse(told)

    async def cancel(self, request: Request) -> Response:
        """Serve POST /chat/cancel: answered when it is decided; nothing of a paused workflow is alive."""
        with told_as("cancellation_error", "Failed to cancel action"):
            desk, session, gate = await self._gate(request)
            by = caller(person_of(request), "chat", "")
            await settled(desk, desk.store.decline(desk.account, session.id, gate.action_id, by))
            return JSONResponse(CancelledAnswer(thread_id=session.id).model_dump())

    async def _start(self, request: Request) -> tuple[Desk, Started]:
        asked = await read(request, MessageRequest)
        identity = identity_of(request.scope)
        desk = await self._site.desk(identity)
        if asked.thread_id is None:
            session_id = (await desk.store.new_session(desk.account, desk.own_project.id)).id
        else:
            session_id = thread_id_of(asked.thread_id)
        by = caller(identity, "chat", "")
        return desk, await start_workflow(desk, session_id, asked.user_message, None, by)

    async def _gate(self, request: Request) -> tuple[Desk, Session, PendingAction]:
        """The open gate that is to be answered. Raises `Refused` where there is none."""
        asked = await read(request, ThreadRequest)
        desk = await self._site.desk(person_of(request))
        try:
            session = await desk.store.session(desk.account, thread_id_of(asked.thread_id))
        except SessionNotFound:
            raise nothing_pending() from None
        gate = session.pending_action
        if gate is None or asked.action_id not in (None, gate.action_id):
            raise nothing_pending()
        return desk, session, gate

    async def _hold(
        self, request: Request, desk: Desk, session_id: str, workflow_id: str
    ) -> Report:
        """Wait until the workflow is final or waits itself, the server stops, the caller goes, or the time is up."""

        async def until_answered() -> None:
            await wait_until(
                desk, session_id, lambda now: is_answered(now, workflow_id), HOLD_SECONDS
            )

        gone = partial(until_gone, request.receive)
        await first_of(until_answered, gone, self._site.stopping.wait)
        return report_of(await desk.store.invocation(desk.account, workflow_id))
