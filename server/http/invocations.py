"""The routes of invocations (CONTRACT section 3)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial

import anyio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from bilt_mcp.state import (
    MAX_KEY_CHARS,
    Caller,
    CannotCancel,
    IdempotencyKeyReused,
    InvalidArguments,
    InvocationStatus,
    Problem,
    SessionNotFound,
    StoreUnavailable,
    WorkflowNotFound,
    iso_now,
    limited_to,
)
from bilt_mcp.state import Invocation as Found
from bilt_mcp.tools import (
    Desk,
    Unrecorded,
    cancel_and_verify,
    is_over,
    needs_worker,
    start_calls,
    unknown,
    wait_until,
)

from .errors import Refused
from .holding import first_of, until_gone
from .identity import Identity, identity_of
from .invocation_cache import InvocationCache, view
from .invocation_models import Invocation, Progress
from .invocation_request import (
    DEFAULT_WAIT_MS,
    CancelRequest,
    InvocationRequest,
    WaitRequest,
    called,
)
from .parsing import Body, bad_cursor, cursor_for, cursor_of, id_of, limit_of, query_of
from .site import Site, caller
from .spaces import runtime_of

LOOK_SECONDS = 2.0
"""How long a cancel waits for the store to say what it is about."""

_CREATE = Body(InvocationRequest)
_WAIT = Body(WaitRequest, may_be_empty=True)
_CANCEL = Body(CancelRequest, may_be_empty=True)


def routes(site: Site) -> list[BaseRoute]:
    """All of them."""
    these = Invocations(site)
    one = "/v1/invocations/{id}"
    return [
        Route("/v1/spaces/{id}/runtimes/{runtimeId}/invocations", these.create, methods=["POST"]),
        Route(one, these.get, methods=["GET"]),
        Route(f"{one}/wait", these.wait, methods=["POST"]),
        Route(f"{one}/cancel", these.cancel, methods=["POST"]),
        Route("/v1/runs/{runId}/invocations", these.list, methods=["GET"]),
    ]


class Invocations:
    """The handlers."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._cache = InvocationCache()

    async def create(self, request: Request) -> Response:
        """Accept an invocation; 202 says that it is durable, not that anything has run."""
        query_of(request)
        identity = identity_of(request.scope)
        desk = await self._site.desk(identity)
        project = await runtime_of(desk, request)
        body = await _CREATE.of(request)
        if body["runtimeId"].lower() != project.id:
            raise InvalidArguments([Problem("runtimeId", "must be the runtime in the path")])
        key = _key(request, body)
        try:
            started = await start_calls(
                desk,
                project,
                [called(step) for step in body["steps"]],
                body,
                _caller(request, identity),
                key=key,
                digest=_digest(body),
            )
        except IdempotencyKeyReused as error:
            raise _reused(error) from None
        found = await desk.store.invocation(desk.account, started.workflow_id)
        where = {"Location": f"/v1/invocations/{started.workflow_id}"}
        return JSONResponse(view(desk, found), 202, where)

    async def get(self, request: Request) -> Response:
        """One invocation as it is now."""
        query_of(request)
        desk = await self._site.desk(identity_of(request.scope))
        workflow_id = id_of(request, "id", _gone())
        try:
            body = await self._cache.body(desk, workflow_id)
        except WorkflowNotFound:
            raise _gone() from None
        return Response(body, media_type="application/json")

    async def wait(self, request: Request) -> Response:
        """One invocation when it is over, or as it is when the time is up. Who waits owns nothing of it."""
        query_of(request)
        desk = await self._site.desk(identity_of(request.scope))
        found = await _found(desk, request)
        body = await _WAIT.of(request)
        if not found.status.final:
            wanted, session_id = found.workflow.id, found.workflow.session_id
            seconds = body.get("timeoutMs", DEFAULT_WAIT_MS) / 1000

            async def over() -> None:
                await wait_until(desk, session_id, lambda now: is_over(now, wanted), seconds)

            await first_of(over, partial(until_gone, request.receive), self._site.stopping.wait)
            found = await desk.store.invocation(desk.account, wanted)
        return JSONResponse(view(desk, found))

    async def cancel(self, request: Request) -> Response:
        """Stop it for good; answered when all that it had started is verified dead. One that is over stays so."""
        query_of(request)
        identity = identity_of(request.scope)
        desk = await self._site.desk(identity)
        by = _caller(request, identity)
        await _CANCEL.of(request)
        found = await _found_or_killed(desk, request, by)
        if found.status.final:
            return JSONResponse(view(desk, found))
        workflow_id, session_id = found.workflow.id, found.workflow.session_id
        try:
            outcome = await cancel_and_verify(desk, session_id, None, by, workflow_id=workflow_id)
        except CannotCancel:
            outcome = None  # it ended by itself first, and says so
        if isinstance(outcome, Unrecorded):
            return JSONResponse(_cancelling(view(desk, found)))
        return JSONResponse(view(desk, await desk.store.invocation(desk.account, workflow_id)))

    async def list(self, request: Request) -> Response:
        """A run's invocations, newest first."""
        query = query_of(request, "cursor", "limit", repeatable="status")
        limit, after = limit_of(query), cursor_of(query)
        statuses = _statuses(request.query_params.getlist("status"))
        desk = await self._site.desk(identity_of(request.scope))
        gone = Refused(
            404, "run_not_found", "No run with this id.", hint="An invocation's runId is one."
        )
        run_id = id_of(request, "runId", gone)
        try:
            page = await desk.store.invocations(
                desk.account,
                run_id,
                statuses=statuses,
                after=after,
                limit=limit,
            )
        except SessionNotFound:
            raise gone from None
        except WorkflowNotFound:
            raise bad_cursor() from None
        if any(needs_worker(found.workflow) for found in page.invocations):
            await desk.engine.wake(news=False)
        data = [view(desk, found) for found in page.invocations]
        last = cursor_for(data[-1]["id"]) if page.has_more else None
        return JSONResponse({"data": data, "nextCursor": last})


async def _found(desk: Desk, request: Request) -> Found:
    """The invocation in the path. Raises `Refused`, with the same words for whatever is not the caller's."""
    workflow_id = id_of(request, "id", _gone())
    try:
        return await desk.store.invocation(desk.account, workflow_id)
    except WorkflowNotFound:
        raise _gone() from None


def _gone() -> Refused:
    return Refused(
        404,
        "invocation_not_found",
        "No invocation with this id.",
        hint="GET /v1/runs/{runId}/invocations lists those of a run.",
    )


async def _found_or_killed(desk: Desk, request: Request, by: Caller) -> Found:
    """The invocation that is to be cancelled; where the store cannot say anything of it, it is killed at once.

    Raises `Refused` then, because there is nothing to show.
    """
    trouble = StoreUnavailable(f"The store did not answer within {LOOK_SECONDS:g} s. Try again.")
    try:
        with anyio.move_on_after(LOOK_SECONDS):
            return await _found(desk, request)
    except StoreUnavailable as error:
        trouble = error
    if limited_to(desk.account) is None:  # the worker knows of accounts only
        workflow_id = id_of(request, "id", _gone())
        halted = await desk.engine.halt(desk.account, None, None, by, workflow_id)
        if halted is not None:
            stopped = asdict(halted.stopped)
            raise Refused(
                503,
                "store_unavailable",
                f"Killed, but that is not recorded yet: {trouble.message}",
                hint="It is recorded as soon as the store works; look again then.",
                details={"stopped": stopped},
            ) from trouble
    raise trouble


def _cancelling(seen: Invocation) -> Invocation:
    """What is answered when everything was killed first and the store could not say so yet."""
    message = "Killed, but that is not recorded yet: it is as soon as the store works."
    progress: Progress = {**(seen.get("progress") or {}), "message": message}
    return {**seen, "status": "cancelling", "cancelRequestedAt": iso_now(), "progress": progress}


def _key(request: Request, body: InvocationRequest) -> str | None:
    """The idempotency key, which may also be in the header that others use for it."""
    sent, header = body.get("idempotencyKey"), request.headers.get("idempotency-key")
    if header is None:
        return sent
    if not 1 <= len(header) <= MAX_KEY_CHARS:
        told = f"must have 1 to {MAX_KEY_CHARS} characters"
        raise InvalidArguments([Problem("Idempotency-Key", told)])
    if sent is not None and sent != header:
        raise InvalidArguments([Problem("Idempotency-Key", "is another one than idempotencyKey")])
    return header


def _reused(error: IdempotencyKeyReused) -> Refused:
    return Refused(
        409,
        "idempotency_key_reused",
        error.message,
        hint="GET /v1/invocations/{id} shows what was started with it.",
        details={"invocationId": error.details["workflow_id"]},
    )


def _digest(body: InvocationRequest) -> str:
    """The same for requests that ask for the same, however they are written."""
    asked = {**body, "runtimeId": body["runtimeId"].lower()}
    asked.pop("idempotencyKey", None)
    text = json.dumps(asked, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _statuses(named: Sequence[str]) -> frozenset[InvocationStatus]:
    words = [status.value for status in InvocationStatus]
    if wrong := [word for word in named if word not in words]:
        raise InvalidArguments([Problem("status", unknown("status", wrong[0], words))])
    return frozenset(map(InvocationStatus, named))


def _caller(request: Request, identity: Identity) -> Caller:
    return caller(identity, "rest", request.headers.get("user-agent", ""))
