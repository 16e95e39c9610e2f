"""What a tool is given: the store, the engine behind a small protocol, and who asks for which project."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from mcp.server.mcpserver import Context

from bilt_mcp.state import (
    CalledStep,
    Caller,
    Halted,
    History,
    KeptFile,
    KeptText,
    LineRange,
    NewProject,
    Offer,
    Prepared,
    Project,
    ProjectNotFound,
    SessionStore,
    StepRun,
)

MAX_NAME = 60


class Engine(Protocol):
    """Whoever runs workflows. The store decides; the engine carries out."""

    async def prepare(self, project: Project, message: str) -> Prepared:
        """Read the project's workflow file and choose the steps for `message`.

        Raises `NoWorkflowConfigured` and `InvalidWorkflowFile`.
        """
        ...

    async def prepare_calls(
        self, project: Project, steps: Sequence[CalledStep], request: Mapping[str, Any]
    ) -> Prepared:
        """Read the project's workflow file and plan these calls of its steps, 1 to `MOST_CALLS` of them, in this order.

        What cannot be run makes a plan that is `refused`, with a reason for each call of which that is known.
        `request` is what the caller sent, and is kept as it is.
        """
        ...

    async def offers(self, projects: Sequence[Project]) -> Sequence[Offer]:
        """What each of these projects offers to be called now. Never raises for what its workflow file says."""
        ...

    def discard(self, prepared: Prepared) -> None:
        """Forget what was prepared: it will not be started."""
        ...

    def new_project(self, name: str, description: str) -> NewProject:
        """Where a new project goes, and what makes its folder there, with a workflow file that runs."""
        ...

    def forget(self, workflow_id: str) -> None:
        """Forget what was kept for a workflow that is final without having been running."""
        ...

    async def halt(
        self,
        account: str,
        session_id: str | None,
        reason: str | None,
        by: Caller,
        workflow_id: str | None = None,
    ) -> Halted | None:
        """Kill what runs for a cancel that the store could not take, and record it as soon as the store can.

        Where a workflow is named, that or none; its session need not be known then. None when nothing of it runs, or
        nobody can be asked. Never raises.
        """
        ...

    async def read_log(self, history: History, run: StepRun, wanted: LineRange) -> KeptText | None:
        """Lines of what an attempt of a step printed, safe to show, also while it runs; None when none is kept.

        Raises `Withheld`.
        """
        ...

    def log_mark(self, workflow_id: str, run: StepRun) -> object:
        """Something that is different when the log of an attempt has changed. Reads no file."""
        ...

    async def artifacts(self, history: History, most: int) -> Sequence[KeptFile]:
        """The first `most` files that the workflow's steps left to be kept, by name."""
        ...

    async def read_artifact(
        self, history: History, path: bytes, wanted: LineRange
    ) -> KeptText | bytes | None:
        """One of them: lines of a text, safe to show, or all of another file; None when there is no such file.

        `path` is below the artifacts folder, as `KeptFile` has it. Raises `Withheld`.
        """
        ...

    def artifact_count(self, workflow_id: str, *, final: bool = False) -> int:
        """How many files the workflow's steps have left to be kept. Of a `final` one it is counted once."""
        ...

    def heartbeat(self) -> int | None:
        """When the store's worker last showed that it lives, milliseconds since 1970; None when none ever had to.

        It does so about every second while it runs something. Reads no file.
        """
        ...

    async def wake(self, *, news: bool = True) -> None:
        """See to it that a worker looks at the store: start one when none is alive.

        Without `news` for it, that it was alive a moment ago is enough.
        Never raises: a workflow is durable, and whoever asks next tries again.
        """
        ...


@dataclass(frozen=True)
class Desk:
    """What every tool works with."""

    store: SessionStore
    engine: Engine
    account: str
    project: Project | None
    """The project of calls that name none; None where the account has no project yet."""
    terminal: str = "bilt-mcp"
    """The program as a person has to call it to reach this store."""
    listeners: Callable[[str], int] = lambda _: 0
    """How many listen to the live updates of a session, in this process."""
    read_only: bool = False
    """Whether the caller may only look: then nothing is made for him, either."""
    stopping: Callable[[], bool] = lambda: False
    """Whether this process was told to stop: then nobody's answer is held any longer."""

    @property
    def own_project(self) -> Project:
        """`project`. Raises `ProjectNotFound` where there is none."""
        if self.project is None:
            raise ProjectNotFound("There is no project yet. Make one with bilt_create_project.")
        return self.project


class Office(Protocol):
    """What a server keeps for as long as it serves."""

    async def desk(self) -> Desk:
        """The desk; the store is opened by the first who asks. Raises `StoreUnavailable`."""
        ...

    @property
    def key_of(self) -> Callable[[str | int], str | None]:
        """From a request's id to what tells it from all others, also when it is repeated after a crash."""
        ...

    def caller(self, client: str, /) -> Caller:
        """Who asks, whose program calls itself `client`; empty where it does not say."""
        ...


ToolContext = Context[Office, Any]


async def desk_of(context: ToolContext) -> Desk:
    """The desk of the server that handles this call. Raises `StoreUnavailable`."""
    return await context.request_context.lifespan_context.desk()


def key_of(context: ToolContext) -> str | None:
    """What tells this call from all others; the same when it comes again because the server died before it answered.

    None where calls never come again by themselves.
    """
    request = context.request_context
    if request.request_id is None:
        return None
    return request.lifespan_context.key_of(request.request_id)


def caller_of(context: ToolContext) -> Caller:
    """Who asks, for the history: the client's name and version as it gave them, cut and cleaned."""
    request = context.request_context
    params = request.session.client_params
    said = "" if params is None else f"{params.client_info.name} {params.client_info.version}"
    return request.lifespan_context.caller(shown_name(said))


def shown_name(said: str) -> str:
    """A name that somebody gives himself, as it is kept and shown: in one line, printable, and cut."""
    return "".join(ch for ch in said if ch.isprintable())[:MAX_NAME].strip()


def user_of(context: ToolContext, surface: str) -> Caller:
    """The person before the program that asks, who has answered a question on `surface`."""
    program = caller_of(context)
    return replace(program, client=f"the user of {program}", surface=surface)
