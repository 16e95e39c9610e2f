"""Notifications of the tasks extension: `subscriptions/listen` that names `taskIds`.

The SDK's own listening knows nothing of tasks. It goes on doing everything else: this stands around it, adds the tasks
to what it acknowledges, and sends their notifications on the same stream. So one stream carries both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import anyio
from mcp.server.context import CallNext, HandlerResult
from mcp.server.mcpserver import require_client_extension
from mcp.server.session import ServerSession
from mcp.server.subscriptions import SUBSCRIPTION_ID_META_KEY
from mcp_types import SubscriptionFilter, SubscriptionsAcknowledgedNotification
from pydantic import BaseModel, Field

from .tasks import TASKS, Context, Json, NoSuchTask, Task, TaskSource

MAX_WATCHED = 100
"""Of one stream; what is named beyond is not acknowledged, and can be asked for by `tasks/get`."""


class _Wanted(BaseModel):
    task_ids: Annotated[list[str], Field(alias="taskIds")] = []


class _Listen(BaseModel):
    notifications: _Wanted = _Wanted()


class _TaskNotification(BaseModel):
    method: Literal["notifications/tasks"] = "notifications/tasks"
    params: Json


async def listen(source: TaskSource, ctx: Context, call_next: CallNext) -> HandlerResult:
    """Serve one stream: its tasks are told first as they are, then as they change."""
    asked = _Listen.model_validate(ctx.params or {}).notifications.task_ids
    if not asked:
        return await call_next(ctx)
    require_client_extension(ctx, TASKS)
    wanted = list(dict.fromkeys(asked))[:MAX_WATCHED]
    found = [task_id for task_id in wanted if await _is_known(source, task_id, ctx)]
    stream = _Stream(ctx.session, found)
    answer: HandlerResult = None
    failed: Exception | None = None
    async with anyio.create_task_group() as group:

        async def tell() -> None:
            nonlocal failed
            try:
                await _tell(source, ctx, stream, found)
            except Exception as error:
                # Who goes on listening would wait for ever; who is refused listens anew.
                failed = error
                group.cancel_scope.cancel()

        group.start_soon(tell)
        try:
            answer = await call_next(replace(ctx, session=stream))
        except Exception as error:
            failed = error
        group.cancel_scope.cancel()
    if failed is not None:
        raise failed
    return answer


async def _is_known(source: TaskSource, task_id: str, ctx: Context) -> bool:
    try:
        await source.get(task_id, ctx)
    except NoSuchTask:
        return False
    return True


async def _tell(source: TaskSource, ctx: Context, stream: _Stream, task_ids: Sequence[str]) -> None:
    async def send(task: Task) -> None:
        meta = {SUBSCRIPTION_ID_META_KEY: ctx.request_id}
        told: Any = _TaskNotification(params={**task.whole(), "_meta": meta})
        await ctx.session.send_notification(told, related_request_id=ctx.request_id)

    await stream.acknowledged.wait()
    await source.watch(task_ids, ctx, send)


class _Stream(ServerSession):
    """The request's session, except that the stream's acknowledgement names the tasks too."""

    def __init__(self, session: ServerSession, task_ids: Sequence[str]) -> None:
        # The same session, whatever it is made of.
        vars(self).update(vars(session))
        self._task_ids = list(task_ids)
        self.acknowledged = anyio.Event()

    async def send_notification(
        self, notification: Any, related_request_id: str | int | None = None
    ) -> None:
        """See `ServerSession.send_notification`."""
        if isinstance(notification, SubscriptionsAcknowledgedNotification):
            params = notification.params
            kept = params.notifications.model_dump(by_alias=True, exclude_none=True)
            both = SubscriptionFilter.model_validate({**kept, "taskIds": self._task_ids})
            params = params.model_copy(update={"notifications": both})
            notification = notification.model_copy(update={"params": params})
            await super().send_notification(notification, related_request_id)
            self.acknowledged.set()
            return
        await super().send_notification(notification, related_request_id)
