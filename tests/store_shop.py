"""A project whose steps are called, on a bare store: invocations without any process."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import uuid4

import pytest

from bilt_mcp.state import (
    Caller,
    Failure,
    FailureCode,
    Invocation,
    InvocationStatus,
    Plan,
    SessionStore,
    Started,
    message_of,
)

from .store_contract import BUILD, ME, NOBODY_KNOWS, Scene

BY = Caller("curl", "rest", "ci")
REQUEST = {"runtimeId": NOBODY_KNOWS, "steps": [{"call": "build", "args": ["größer", {"n": 1}]}]}
ONE = Plan((BUILD,), request=REQUEST)
LATE = Failure(FailureCode.TIMED_OUT, "Step build took too long", "build")
S = InvocationStatus


@dataclass
class Shop:
    """A project whose steps are called, and the worker that they wait for."""

    scene: Scene
    project_id: str

    @property
    def store(self) -> SessionStore:
        return self.scene.store

    async def invoke(self, plan: Plan = ONE, key: str | None = None, digest: str = "d") -> Started:
        given = message_of(plan)
        return await self.store.invoke(
            ME,
            self.project_id,
            given,
            plan,
            workflow_id=str(uuid4()),
            key=key,
            digest=digest,
            by=BY,
        )

    async def done(self, plan: Plan = ONE, failure: Failure | None = None) -> Started:
        """An invocation that is over."""
        started = await self.invoke(plan)
        claim = await self.scene.claim()
        assert claim.workflow_id == started.workflow_id
        if failure is None:
            assert await self.store.complete(claim, [])
        else:
            assert await self.store.fail(claim, failure, [])
        return started

    async def look(self, started: Started) -> Invocation:
        return await self.store.invocation(ME, started.workflow_id)

    async def ids(self, session_id: str, *statuses: InvocationStatus) -> list[str]:
        page = await self.store.invocations(ME, session_id, statuses=statuses)
        return [found.workflow.id for found in page.invocations]


@pytest.fixture
async def shop(scene: Scene) -> Shop:
    project = await scene.store.open_project(ME, "/srv/shop", "shop")
    return Shop(scene, project.id)
