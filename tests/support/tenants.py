"""Tenants of one server: their keys, and what each has."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import uuid4

import httpx2

from bilt_mcp.server.http.settings import HttpSettings
from bilt_mcp.server.http.site import Site

from .http import bearer, new_key, serving
from .places import Place

WORKFLOW = """
[[step]]
name = "build"
run = "echo built; echo left > $BILT_ARTIFACTS/left.txt"
"""
UNLIMITED = HttpSettings(key_rate=0, login_rate=0, failure_rate=0)


@dataclass(frozen=True)
class Things:
    """What a tenant has: ids by the name of the argument that takes them."""

    session_id: str
    project_id: str
    workflow_id: str
    action_id: str
    space_id: str


@dataclass
class World:
    """A server, the keys of its tenants, and what each has."""

    url: str
    site: Site
    keys: dict[str, str]
    things: dict[str, Things]

    def id_of(self, case: str, kind: str) -> str:
        """An id of this kind for a case."""
        return str(uuid4()) if case == "nobody's" else str(getattr(self.things[case], kind))

    def http(self, key: str | None = "owner") -> httpx2.AsyncClient:
        """A client with this tenant's key."""
        headers = {} if key is None else bearer(self.keys[key])
        return httpx2.AsyncClient(base_url=self.url, headers=headers, timeout=60)

    @asynccontextmanager
    async def logged_in(self, key: str) -> AsyncGenerator[httpx2.AsyncClient]:
        """A client with this tenant's cookie."""
        async with self.http(None) as http:
            answer = await http.post("/auth/login", json={"key": self.keys[key]})
            assert answer.status_code == 200, answer.text
            yield http


@asynccontextmanager
async def world_at(place: Place) -> AsyncGenerator[World]:
    place.workflow(WORKFLOW)
    elsewhere = place.project.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "bilt.toml").write_text(WORKFLOW, "utf-8")
    async with serving(place.config(), UNLIMITED) as served:
        site = served.site
        store = await site.stores.get(place.location)
        project = await store.open_project("local", str(place.project), "project")
        other = await store.open_project("local", str(elsewhere), "elsewhere")
        foreign = await store.open_project("others", str(elsewhere), "elsewhere")
        access = site.access
        keys = {
            "owner": await new_key(access, "owner"),
            "limited": await new_key(access, "limited", project=project.id),
            "reader": await new_key(access, "reader", read_only=True),
            "revoked": await new_key(access, "revoked"),
            "stranger": await new_key(access, "stranger", "others"),
        }
        await access.revoke_key("revoked")
        world = World(served.url, site, keys, {})
        for case, tenant, at in (
            ("own", "owner", project.id),
            ("other project", "owner", other.id),
            ("foreign", "stranger", foreign.id),
        ):
            world.things[case] = await _build(world, tenant, at)
        yield world


async def _build(world: World, tenant: str, project_id: str) -> Things:
    """Have something built, to its end."""
    async with world.http(tenant) as http:
        space = (await http.get("/v1/spaces")).json()["data"][0]["id"]
        path = f"/v1/spaces/{space}/runtimes/{project_id}/invocations"
        asked = {"runtimeId": project_id, "steps": [{"call": "build"}]}
        made = (await http.post(path, json=asked)).json()
        over = (await http.post(f"/v1/invocations/{made['id']}/wait", json={})).json()
    assert over["status"] == "succeeded"
    return Things(made["runId"], project_id, made["id"], str(uuid4()), space)
