"""The contract of a store. `tests/test_store_contract.py` holds every implementation to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from .decisions import DecisionStore
from .history import History, IdKind
from .invocations import InvocationStore
from .models import (
    UNNAMED,
    AuditEntry,
    Caller,
    Claim,
    Failure,
    LostWorkflow,
    MessagePage,
    MessageQuery,
    Note,
    Plan,
    ProcessRecord,
    Project,
    Session,
    Started,
    StepTicket,
    Stopped,
    Visibility,
    Workflow,
)
from .settings import StoreSettings
from .timeline import TimelineStore
from .transitions import Status


class SessionStore(DecisionStore, InvocationStore, TimelineStore, Protocol):
    """Where sessions, workflows and messages live, and where every race is decided.

    Rules that hold for every verb:

    * When a verb returns, its effect is durable and visible to every other process. When it raises, it has had
      no effect, except that a verb whose caller was cancelled may have happened.
    * A verb that changes a status is one guarded statement. It happens only in the statuses that `TRANSITIONS`
      allows, and of verbs that compete exactly one happens. A worker's verb that lost returns False or None; a
      caller's verb that lost raises the documented error with the true state.
    * A worker's verbs carry the epoch under which it claimed. Under any other epoch they do nothing.
    * Every id that a caller gives is looked up together with `account`. Unknown and foreign ids raise the same
      error with the same words. Where `account` is an `Account` that is limited to a project, what is not in that is
      as foreign as what is somebody else's; to open or create others raises `PermissionDenied`.
    * A session's `revision` rises whenever `session()` would answer something else, `elapsed_seconds` and
      `quiet_seconds` aside.
    * Each start, confirm, decline, cancel, pause and resume leaves a message of variant `info` and a row of the audit.
    * Message ids rise and become visible in their order: who reads on from the last id that he saw misses nothing.

    Any verb may raise `StoreUnavailable`.
    """

    # -- what callers ask ------------------------------------------------------------------------

    async def open_project(self, account: str, root: str, name: str) -> Project:
        """The account's project in folder `root`; created with `name` when there is none."""
        ...

    async def project(self, account: str, project_id: str) -> Project:
        """One project. Raises `ProjectNotFound`."""
        ...

    async def projects(self, account: str, after: str | None = None) -> Sequence[Project]:
        """The account's projects, newest first, 200 at most; older than `after`, or `ProjectNotFound` is raised."""
        ...

    async def create_project(
        self,
        account: str,
        root: str,
        name: str,
        by: Caller,
        make: Callable[[], None],
        *,
        description: str = "",
        visibility: Visibility = "public",
        key: str | None = None,
    ) -> Project:
        """A new project in folder `root`. It and what `make` does to the disk happen together, or neither.

        `make` may be called again for the same project. A `key` that came before with the same name answers with the
        project that it made then, and changes nothing. Raises `ProjectAlreadyExists` when the account has one of
        this name or in this folder, `RateLimitExceeded` after ten within an hour, and whatever `make` raises.
        """
        ...

    async def latest_session(self, account: str, project_id: str) -> Session:
        """The project's newest session; an idle one is created when it has none. Raises `ProjectNotFound`."""
        ...

    async def session(self, account: str, session_id: str) -> Session:
        """One session with its newest workflow. Raises `SessionNotFound`.

        A gate that nobody has answered in its time is declined by this look, as by that of `latest_session`.
        """
        ...

    async def workflow(self, account: str, workflow_id: str) -> Workflow:
        """One workflow, also one that is no longer its session's newest. Raises `WorkflowNotFound`."""
        ...

    async def messages(self, account: str, session_id: str, query: MessageQuery) -> MessagePage:
        """A page of a session's messages. `total` counts what the filters let through, whatever the page.

        It costs the same however long the history is. For that, one call compares a limited number of messages with
        `query.text`: `read_to` and `counted` of the page say when that ended the look.

        Raises `SessionNotFound`, and `WorkflowNotFound` when `query.workflow_id` is not one of this session.
        """
        ...

    async def first_answer(
        self, account: str, session_id: str, message: str, key: str
    ) -> Started | None:
        """The answer that `key` got before in this session, or None when it is new.

        Raises `SessionNotFound`, and `IdempotencyKeyReused` when it came with another message.
        """
        ...

    async def start(
        self,
        account: str,
        session_id: str,
        message: str,
        plan: Plan,
        *,
        workflow_id: str | None = None,
        key: str | None = None,
        by: Caller = UNNAMED,
    ) -> Started:
        """Accept a message: it and a `pending` workflow become durable together.

        `workflow_id` is a new UUID, drawn here unless the caller has prepared something under it. A `key` that this
        session knows returns the first answer and starts nothing. Raises `SessionNotFound`, `WorkflowAlreadyActive`
        (details `current_status`, `workflow_id`), `IdempotencyKeyReused`, and `StoreFull` when the store holds as
        much as its settings allow, or the disk is nearly full.
        """
        ...

    async def steps_done(self, account: str, session_id: str) -> Sequence[str]:
        """The names of the steps of the session's newest workflow that ended well, in their order.

        Raises `SessionNotFound`.
        """
        ...

    async def audit(self, account: str, session_id: str) -> Sequence[AuditEntry]:
        """What was decided about the session's workflows, in its order. Raises `SessionNotFound`."""
        ...

    # -- looking back ----------------------------------------------------------------------------

    async def history(self, account: str, workflow_id: str) -> History:
        """One workflow with its plan, and every attempt of its steps. Raises `WorkflowNotFound`."""
        ...

    async def newest_ids(
        self,
        account: str,
        kind: IdKind,
        *,
        prefix: str = "",
        limit: int = 100,
        session_id: str | None = None,
        project_id: str | None = None,
    ) -> Sequence[str]:
        """The account's ids that begin with `prefix`, in lower case, newest first; none where nothing fits.

        Only those of one session or one project, where it is named.
        """
        ...

    # -- what a worker does ----------------------------------------------------------------------

    async def take_over(self, worker: ProcessRecord, version: str) -> int:
        """Become the store's worker; returns a new epoch, higher than any before."""
        ...

    async def leave(self, epoch: int) -> bool:
        """Stop being the worker, unless something waits for one. False: stay, there is work."""
        ...

    async def worker_leaving(self) -> bool:
        """Whether the last worker has left on purpose, or is about to."""
        ...

    async def lost(self, epoch: int) -> Sequence[LostWorkflow]:
        """The workflows that workers of earlier epochs held and did not finish."""
        ...

    async def report_lost(
        self, epoch: int, workflow_id: str, failure: Failure, stopped: Stopped
    ) -> bool:
        """Close a workflow of an earlier epoch, after what was left of it is dead.

        `running` becomes `failed`, `cancelling` becomes `cancelled`; its open steps become `lost`.
        """
        ...

    async def claim(self, epoch: int) -> Claim | None:
        """Take the oldest workflow that waits for a worker and whose project has room; None when none does."""
        ...

    async def cancelling(self, epoch: int) -> Sequence[str]:
        """The ids of the workflows of this epoch that are to be killed."""
        ...

    async def waiting_for_worker(self) -> bool:
        """Whether anything is active that needs a worker: all but `paused`."""
        ...

    async def workflow_status(self, workflow_id: str) -> Status | None:
        """The status of any workflow of this store, or None when there is no such workflow."""
        ...

    async def begin_step(
        self, claim: Claim, attempt: int, keeper: ProcessRecord
    ) -> StepTicket | None:
        """Record that an attempt of the step at `claim.position` is about to start, before it does.

        None when the workflow is no longer running under this epoch: then nothing may be started.
        """
        ...

    async def step_started(self, ticket: StepTicket, leader: ProcessRecord) -> None:
        """Record the step's leading process."""
        ...

    async def step_ended(
        self, ticket: StepTicket, outcome: str, exit_code: int | None, notes: Sequence[Note] = ()
    ) -> None:
        """Record how an attempt ended and what it said last, also when its workflow has been cancelled meanwhile.

        `outcome` is `succeeded`, `failed`, `timed_out`, `lost`, or `not_started` when its command never ran.
        """
        ...

    async def advance(self, claim: Claim, position: int) -> bool:
        """Go on to the step at `position`."""
        ...

    async def note(
        self,
        claim: Claim,
        notes: Sequence[Note],
        *,
        percent: int | None = None,
        progress: str | None = None,
        wrote_output: bool = False,
    ) -> None:
        """Append messages, and progress of the current step, while the workflow is not final."""
        ...

    async def pause(self, claim: Claim, question: str | None) -> bool:
        """Let go of the workflow before the step at `claim.position`: at a gate, or because a pause was asked for."""
        ...

    async def complete(self, claim: Claim, notes: Sequence[Note]) -> bool:
        """Every step ended well."""
        ...

    async def fail(self, claim: Claim, failure: Failure, notes: Sequence[Note]) -> bool:
        """It failed; what it had started is dead."""
        ...

    async def stopped(
        self, epoch: int, workflow_id: str, receipt: Stopped, notes: Sequence[Note]
    ) -> bool:
        """The cancelled workflow's processes are verified dead: `cancelling` becomes `cancelled`."""
        ...

    async def stop_unverified(self, epoch: int, workflow_id: str, receipt: Stopped) -> bool:
        """The kill goes on past its limit: record the receipt so far; the status stays `cancelling`."""
        ...

    # -- keeping the store small -------------------------------------------------------------------

    def settings(self) -> StoreSettings:
        """What holds for this store whoever uses it, as it is now. Raises `StoreUnavailable` where it is wrong."""
        ...

    async def keep_files(self, workflow_id: str, size: int) -> None:
        """Record how many bytes are kept beside the store for a workflow: they count for the store's limit."""
        ...

    async def hide_old(self, epoch: int, before: int) -> int:
        """Decide that some old sessions are to be deleted: from now on nobody finds them. Returns how many.

        Old is what has had a workflow, has none that is not final, and has not changed since `before`, in
        milliseconds since 1970.
        """
        ...

    async def delete_hidden(self, epoch: int) -> bool:
        """Delete a bounded piece of what `hide_old` has hidden. False when nothing is left."""
        ...

    async def pruned(self) -> Sequence[str]:
        """The ids of some deleted workflows whose files are still to be deleted; none when nothing is left."""
        ...

    async def files_gone(self, workflow_ids: Sequence[str]) -> None:
        """The files of these deleted workflows are deleted: forget them."""
        ...

    # -- waiting -----------------------------------------------------------------------------------

    def changes(self) -> int:
        """A number that changes with every commit of this store object, and of others while somebody waits."""
        ...

    async def wait_change(self, seen: int, timeout: float, *, urgent: bool = False) -> int:
        """Return `changes()` as soon as it differs from `seen`, or after `timeout` seconds.

        "Look again", no more: it carries no data and may come without cause. `urgent` looks every 2 ms, not 20.
        """
        ...

    def watch(
        self, account: str, session_id: str, *, messages: bool = False
    ) -> AbstractContextManager[Watch]:
        """Notice from now on what happens to one session. One look serves all who watch, also at many sessions.

        With `messages` also each message counts: what passes is then the `pulse` of a `Timeline`.
        """
        ...

    def nudge(self) -> None:
        """Wake everybody who waits in `wait_change` of this store object."""
        ...


class Watch(Protocol):
    """What `SessionStore.watch` gives: read the session only after it was entered, then ask."""

    async def passed(self, revision: int, timeout: float, *, urgent: bool = False) -> bool:
        """Return True as soon as the session's revision has passed this one, False after `timeout` seconds.

        "Look again", no more: it may come without cause, and comes when the session is gone or cannot be read. Other
        sessions' changes wake nobody but who is `urgent`, who also looks as in `wait_change`. For one caller at a time.
        """
        ...
