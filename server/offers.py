"""What the server offers beside its tools: resources, prompts, completion, live updates, and how long lists stay true.

What they need is loaded by the first who asks for one.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from mcp.server.caching import CacheableMethod, CacheHint
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INTERNAL_ERROR,
    CompleteRequestParams,
    CompleteResult,
    EmptyResult,
    GetPromptRequestParams,
    GetPromptResult,
    ListPromptsResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    ReadResourceResult,
    SubscribeRequestParams,
    SubscriptionsListenRequestParams,
    SubscriptionsListenResult,
    UnsubscribeRequestParams,
)

from bilt_mcp.state import BiltError
from bilt_mcp.tools import Desk

if TYPE_CHECKING:
    from .app import BiltOffice

Request: TypeAlias = "ServerRequestContext[BiltOffice, Any]"
Page: TypeAlias = PaginatedRequestParams | None

LISTS_STAY_MS = 300_000
_LISTS = CacheHint(ttl_ms=LISTS_STAY_MS, scope="public")
_NEVER = CacheHint(ttl_ms=0, scope="private")
CACHE_HINTS: dict[CacheableMethod, CacheHint] = {
    "tools/list": _LISTS,
    "prompts/list": _LISTS,
    "resources/templates/list": _LISTS,
    "resources/list": _NEVER,
    "resources/read": _NEVER,
}
"""The lists are the same for everybody, and change only with the program; what is read may have changed at once."""


def offer(server: Server[Any]) -> None:
    """Let a server answer all of these."""
    server.add_request_handler("resources/list", PaginatedRequestParams, _resources)
    server.add_request_handler("resources/templates/list", PaginatedRequestParams, _templates)
    server.add_request_handler("resources/read", ReadResourceRequestParams, _read)
    server.add_request_handler("prompts/list", PaginatedRequestParams, _prompts)
    server.add_request_handler("prompts/get", GetPromptRequestParams, _prompt)
    server.add_request_handler("completion/complete", CompleteRequestParams, _complete)
    server.add_request_handler("subscriptions/listen", SubscriptionsListenRequestParams, _listen)
    server.add_request_handler("resources/subscribe", SubscribeRequestParams, _subscribe)
    server.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, _unsubscribe)


@contextmanager
def _as_protocol_errors() -> Generator[None]:
    try:
        yield
    except BiltError as error:
        raise MCPError(INTERNAL_ERROR, f"{error.error}: {error.message}") from error


async def _desk(ctx: Request) -> Desk:
    with _as_protocol_errors():
        return await ctx.lifespan_context.desk()


async def _resources(ctx: Request, _: Page) -> ListResourcesResult:
    from bilt_mcp.tools import resources

    desk = await _desk(ctx)
    with _as_protocol_errors():
        return ListResourcesResult(resources=await resources.listed(desk))


async def _templates(_: Request, __: Page) -> ListResourceTemplatesResult:
    from bilt_mcp.tools import resources

    return ListResourceTemplatesResult(resource_templates=resources.templates())


async def _read(ctx: Request, params: ReadResourceRequestParams) -> ReadResourceResult:
    from bilt_mcp.tools import resources

    return await resources.read(await _desk(ctx), str(params.uri))


async def _prompts(_: Request, __: Page) -> ListPromptsResult:
    from bilt_mcp.tools import prompts

    return ListPromptsResult(prompts=prompts.prompts())


async def _prompt(_: Request, params: GetPromptRequestParams) -> GetPromptResult:
    from bilt_mcp.tools import prompts

    return prompts.get_prompt(params.name, params.arguments)


async def _complete(ctx: Request, params: CompleteRequestParams) -> CompleteResult:
    from bilt_mcp.tools import completion

    desk = await _desk(ctx)
    with _as_protocol_errors():
        return CompleteResult(completion=await completion.complete(desk, params))


async def _listen(
    ctx: Request, params: SubscriptionsListenRequestParams
) -> SubscriptionsListenResult:
    return await ctx.lifespan_context.live.listen(ctx, params)


async def _subscribe(ctx: Request, params: SubscribeRequestParams) -> EmptyResult:
    return await ctx.lifespan_context.live.subscribe(ctx, params)


async def _unsubscribe(ctx: Request, params: UnsubscribeRequestParams) -> EmptyResult:
    return await ctx.lifespan_context.live.unsubscribe(ctx, params)
