"""Whose what is: every verb that a caller has, with what is his and what is not.

Not his is another account's, another project's of his own account when he is limited to one, and what never was: he
cannot tell them apart.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import pytest

from bilt_mcp.state import (
    Account,
    BiltError,
    Caller,
    MessageQuery,
    PermissionDenied,
    SessionStore,
    limited_to,
)

from .store_contract import ME, NOBODY_KNOWS, PLAN, SOMEBODY_ELSE, Kind, OpenStore, Scene, Subject

pytestmark = pytest.mark.anyio

BY = Caller("me")
NEVER = 1 << 40
"""A revision that no session reaches."""


@dataclass(frozen=True)
class Target:
    """What a verb is tried on, by all the names that it has."""

    project_id: str
    root: str
    session_id: str
    workflow_id: str
    action_id: str


NOTHING = Target(NOBODY_KNOWS, "/srv/nowhere", NOBODY_KNOWS, NOBODY_KNOWS, NOBODY_KNOWS)

Act = Callable[[SessionStore, Account, Target, Target], Awaitable[Any]]
"""What a caller does to a target; the last one is his own, for what takes two ids."""


@dataclass(frozen=True)
class Case:
    """A verb, and a situation in which its owner succeeds with it."""

    act: Act
    kind: Kind = Kind.COMPLETED
    allowed: bool = True
    """Whether who is limited to a project may do it there."""


async def watched(store: SessionStore, account: str, session_id: str) -> bool:
    """Whether a watcher was told to look for himself: nothing is known of the session."""
    with store.watch(account, session_id) as watch:
        store.nudge()
        return await watch.passed(NEVER, 0.3)


def unmade() -> NoReturn:
    raise AssertionError("nothing may be made")


CASES: dict[str, Case] = {
    "open_project": Case(lambda s, who, on, _: s.open_project(who, on.root, "shop")),
    "project": Case(lambda s, who, on, _: s.project(who, on.project_id)),
    "projects": Case(lambda s, who, on, _: listed(s, who, on.project_id)),
    "create_project": Case(
        lambda s, who, on, _: s.create_project(who, on.root, "new", BY, unmade), allowed=False
    ),
    "latest_session": Case(lambda s, who, on, _: s.latest_session(who, on.project_id)),
    "session": Case(lambda s, who, on, _: s.session(who, on.session_id)),
    "session of a late gate": Case(lambda s, who, on, _: s.session(who, on.session_id), Kind.GATED),
    "workflow": Case(lambda s, who, on, _: s.workflow(who, on.workflow_id)),
    "messages": Case(lambda s, who, on, _: s.messages(who, on.session_id, MessageQuery())),
    "messages of a workflow": Case(
        lambda s, who, on, own: s.messages(
            who, own.session_id, MessageQuery(workflow_id=on.workflow_id)
        )
    ),
    "first_answer": Case(lambda s, who, on, _: s.first_answer(who, on.session_id, "go", "k")),
    "start": Case(lambda s, who, on, _: s.start(who, on.session_id, "go", PLAN)),
    "cancel": Case(lambda s, who, on, _: s.cancel(who, on.session_id, None, BY), Kind.RUNNING),
    "cancel again": Case(
        lambda s, who, on, _: s.cancel(who, on.session_id, None, BY), Kind.CANCELLING
    ),
    "cancel a workflow": Case(
        lambda s, who, on, own: s.cancel(who, own.session_id, None, BY, workflow_id=on.workflow_id),
        Kind.PENDING,
    ),
    "steps_done": Case(lambda s, who, on, _: s.steps_done(who, on.session_id)),
    "request_pause": Case(
        lambda s, who, on, _: s.request_pause(who, on.session_id, BY), Kind.RUNNING
    ),
    "resume": Case(lambda s, who, on, _: s.resume(who, on.session_id, BY), Kind.PAUSED),
    "confirm": Case(
        lambda s, who, on, _: s.confirm(who, on.session_id, on.action_id, BY), Kind.GATED
    ),
    "decline": Case(
        lambda s, who, on, _: s.decline(who, on.session_id, on.action_id, BY), Kind.GATED
    ),
    "audit": Case(lambda s, who, on, _: s.audit(who, on.session_id)),
    "history": Case(lambda s, who, on, _: s.history(who, on.workflow_id)),
    "newest_ids of a project": Case(
        lambda s, who, on, _: found(s.newest_ids(who, "session", project_id=on.project_id))
    ),
    "newest_ids of a session": Case(
        lambda s, who, on, _: found(s.newest_ids(who, "workflow", session_id=on.session_id))
    ),
    "newest_ids that begin so": Case(
        lambda s, who, on, _: found(s.newest_ids(who, "workflow", prefix=on.workflow_id))
    ),
    "first_invocation": Case(lambda s, who, on, _: s.first_invocation(who, on.project_id, "k", "")),
    "invoke": Case(
        lambda s, who, on, _: s.invoke(
            who, on.project_id, "go", PLAN, workflow_id=on.workflow_id[::-1], by=BY
        )
    ),
    "invocation": Case(lambda s, who, on, _: s.invocation(who, on.workflow_id)),
    "invocations": Case(lambda s, who, on, _: s.invocations(who, on.session_id)),
    "invocations after one": Case(
        lambda s, who, on, own: s.invocations(who, own.session_id, after=on.workflow_id)
    ),
    "new_session": Case(lambda s, who, on, _: s.new_session(who, on.project_id)),
    "timeline": Case(lambda s, who, on, _: s.timeline(who, on.session_id)),
    "watch": Case(lambda s, who, on, _: noticed(s, who, on.session_id)),
}


class NothingThere(BiltError):
    """What is not an error of the store, but an answer without anything in it."""

    error = "nothing"


async def found(ids: Awaitable[Any]) -> Any:
    if not (answer := await ids):
        raise NothingThere("no ids")
    return answer


async def listed(store: SessionStore, account: str, project_id: str) -> None:
    if project_id not in [project.id for project in await store.projects(account)]:
        raise NothingThere("not listed")


async def noticed(store: SessionStore, account: str, session_id: str) -> None:
    if await watched(store, account, session_id):
        raise NothingThere("nothing is known of it")


async def refusal(answer: Awaitable[Any]) -> tuple[type[BiltError], str, Any] | None:
    """How a caller was refused, None when he was not."""
    try:
        await answer
    except BiltError as error:
        return type(error), error.error, dict(error.details)
    return None


async def target(store: SessionStore, account: str, scene: Scene, kind: Kind) -> Target:
    subject: Subject = await scene.subject(kind)
    session = await store.session(account, subject.session_id)
    project = await store.project(account, session.project_id)
    return Target(
        project_id=project.id,
        root=project.root,
        session_id=subject.session_id,
        workflow_id=subject.workflow_id,
        action_id=subject.maybe_action_id or NOBODY_KNOWS,
    )


def test_every_verb_that_takes_an_account_has_a_case() -> None:
    verbs = {
        name
        for name, verb in inspect.getmembers(SessionStore, inspect.isfunction)
        if "account" in inspect.signature(verb).parameters
    }
    assert len(verbs) > 20
    assert {case.split()[0] for case in CASES} == verbs


@pytest.mark.parametrize("name", CASES)
async def test_what_is_not_the_callers_is_as_unknown_as_what_never_was(
    name: str, open_store: OpenStore
) -> None:
    case = CASES[name]
    async with open_store() as store:
        mine = Scene(store)
        theirs = Scene(store, SOMEBODY_ELSE, await mine.epoch())
        own = await target(store, ME, mine, case.kind)
        for _ in range(3):
            await theirs.session()  # so that their folders are not called as mine
        others = {
            "of another account": await target(store, SOMEBODY_ELSE, theirs, case.kind),
            "that never was": NOTHING,
        }
        callers = {"all projects": Account(ME), "one project": Account(ME, own.project_id)}
        for allowed, who in callers.items():
            if who.project_id is not None:
                others["of another project"] = await target(store, ME, mine, case.kind)
            elif name in ("open_project", "create_project"):
                continue  # what he names is made, and it is his own
            refusals = {
                what: await refusal(case.act(store, who, on, own)) for what, on in others.items()
            }
            assert len(set(map(repr, refusals.values()))) == 1, (allowed, refusals)
            assert None not in refusals.values(), (allowed, refusals)
        answer = await refusal(case.act(store, callers["one project"], own, own))
        assert (answer is None) == case.allowed, answer


async def test_who_is_limited_to_a_project_may_make_no_other(open_store: OpenStore) -> None:
    async with open_store() as store:
        project = await store.open_project(ME, "/srv/shop", "shop")
        limited = Account(ME, project.id)
        with pytest.raises(PermissionDenied) as made:
            await store.create_project(limited, "/srv/new", "new", BY, unmade)
        with pytest.raises(PermissionDenied):
            await store.open_project(limited, "/srv/new", "new")
        assert made.value.error == "Permission denied"
        assert await store.open_project(limited, "/srv/shop", "shop") == project
        assert [found.id for found in await store.projects(ME)] == [project.id]


async def test_a_limit_to_a_project_of_somebody_else_opens_nothing(open_store: OpenStore) -> None:
    async with open_store() as store:
        scene = Scene(store, SOMEBODY_ELSE)
        theirs = await target(store, SOMEBODY_ELSE, scene, Kind.COMPLETED)
        who = Account(ME, theirs.project_id)
        for name, case in CASES.items():
            if not name.startswith("invoke"):
                assert await refusal(case.act(store, who, theirs, theirs)) is not None, name


async def test_what_somebody_is_refused_changes_nothing(open_store: OpenStore) -> None:
    async with open_store() as store:
        scene = Scene(store)
        own = await target(store, ME, scene, Kind.COMPLETED)
        other = await target(store, ME, scene, Kind.RUNNING)
        before = await store.session(ME, other.session_id)
        for case in CASES.values():
            await refusal(case.act(store, Account(ME, own.project_id), other, own))
        after = await store.session(ME, other.session_id)
        assert after.revision == before.revision
        assert len(await store.audit(ME, other.session_id)) == 1


def test_an_account_is_a_name_and_may_have_a_limit() -> None:
    assert Account("team") == "team"
    assert limited_to(Account("team")) is None
    assert limited_to("team") is None
    assert limited_to(Account("team", "p")) == "p"
