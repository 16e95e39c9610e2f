"""A caller of invocations over REST, who holds every answer to the page that documents them."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import httpx2

from bilt_mcp.server.http.listening import Listening
from bilt_mcp.server.http.settings import HttpSettings

from .hostile import command
from .http import bearer, key_in, new_key, serve_process, serving
from .places import Place, open_place
from .seed import Json, fits

FINAL = ("succeeded", "failed", "cancelled", "timed_out")
PATIENCE = 60.0


@dataclass
class Rest:
    """One caller with one key."""

    url: str
    key: str = ""
    space: str = ""
    runtime: str = ""
    http: httpx2.Client = field(init=False)

    def __post_init__(self) -> None:
        headers = bearer(self.key) if self.key else {}
        self.http = httpx2.Client(base_url=self.url, headers=headers, timeout=PATIENCE)

    def settle(self) -> None:
        """Find the space, and the newest runtime in it."""
        self.space = self.ok("GET", "/v1/spaces")["data"][0]["id"]
        found = self.ok("GET", f"/v1/spaces/{self.space}/runtimes")["data"]
        self.runtime = found[0]["id"] if found else ""

    def ask(self, method: str, path: str, body: Any = None, **more: Any) -> httpx2.Response:
        """Any answer."""
        content = None if body is None else json.dumps(body).encode()
        headers = {} if body is None else {"Content-Type": "application/json"}
        headers |= more.pop("headers", {})
        return self.http.request(method, path, content=content, headers=headers, **more)

    def ok(self, method: str, path: str, body: Any = None, status: int = 200, **more: Any) -> Any:
        """The body of an answer that is no error."""
        answer = self.ask(method, path, body, **more)
        assert answer.status_code == status, answer.text
        return answer.json()

    def error(self, method: str, path: str, body: Any = None, **more: Any) -> tuple[int, Json]:
        """The status and the body of an error, without the id that each has of its own."""
        answer = self.ask(method, path, body, **more)
        assert answer.status_code >= 400, answer.text
        told: Json = answer.json()
        assert told.pop("requestId") == answer.headers["x-request-id"]
        assert set(told) <= {"error", "code", "details", "hint", "reasonClass"}
        return answer.status_code, told

    @property
    def creating(self) -> str:
        return f"/v1/spaces/{self.space}/runtimes/{self.runtime}/invocations"

    def body(self, *steps: str | Json, **more: Any) -> Json:
        """A request for these steps; a name is a call with nothing else."""
        asked = [{"call": step} if isinstance(step, str) else step for step in steps]
        return {"runtimeId": self.runtime, "steps": asked, **more}

    def create(self, *steps: str | Json, **more: Any) -> Json:
        return fits(self.ok("POST", self.creating, self.body(*steps, **more), 202))

    def get(self, invocation: Json) -> Json:
        return fits(self.ok("GET", f"/v1/invocations/{invocation['id']}"))

    def wait(self, invocation: Json, timeout_ms: int | None = None) -> Json:
        body = {} if timeout_ms is None else {"timeoutMs": timeout_ms}
        return fits(self.ok("POST", f"/v1/invocations/{invocation['id']}/wait", body))

    def run(self, *steps: str | Json, **more: Any) -> Json:
        """An invocation that is over."""
        over = self.wait(self.create(*steps, **more))
        assert over["status"] in FINAL
        return over

    def cancel(self, invocation: Json) -> Json:
        return fits(self.ok("POST", f"/v1/invocations/{invocation['id']}/cancel", {}))

    def until(self, invocation: Json, reached: Callable[[Json], bool]) -> Json:
        """The invocation as soon as it is as wanted."""
        deadline = time.monotonic() + PATIENCE
        while not reached(found := self.get(invocation)):
            assert time.monotonic() < deadline, found
            time.sleep(0.01)
        return found

    def runs(self, run_id: str, **query: Any) -> Json:
        """A page of a run's invocations."""
        page: Json = self.ok("GET", f"/v1/runs/{run_id}/invocations", params=query)
        assert set(page) == {"data", "nextCursor"}
        for each in page["data"]:
            fits(each)
        return page


@dataclass(frozen=True)
class Served:
    """A server in a process of its own, and what it serves."""

    place: Place
    url: str
    caller: Rest
    stranger: Rest
    """Of another account."""

    @contextlib.contextmanager
    def others(self, count: int) -> Generator[list[Rest]]:
        """More connections of the same caller: one of them does one thing at a time."""
        mine = self.caller
        made = [Rest(self.url, mine.key, mine.space, mine.runtime) for _ in range(count)]
        try:
            yield made
        finally:
            for caller in made:
                caller.http.close()

    def file(self, name: str) -> Path:
        """A file of the project's folder."""
        return self.place.project / name


@contextlib.contextmanager
def rest_server(folder: Path, workflow: str) -> Generator[Served]:
    """A server for a project with this bilt.toml, and two callers who do not know of each other."""
    with open_place(folder) as place:
        place.workflow(workflow)
        keys = [
            anyio.run(key_in, place.config(), name, account)
            for name, account in (("ci", "local"), ("other", "others"))
        ]
        with serve_process([*place.arguments, "--rate", "0"], place.environ) as server:
            callers = [Rest(server.url, key) for key in keys]
            for caller in callers:
                caller.settle()
            try:
                yield Served(place, server.url, *callers)
            finally:
                for caller in callers:
                    caller.http.close()


def step(name: str, run: str | tuple[str, ...], **more: Any) -> str:
    """A step of a bilt.toml that runs only when it is called by name, or a message has the name."""
    keys = {"name": name, "run": run, "when": f"^{name}$", **more}
    told = "\n".join(f"{key} = {json.dumps(value)}" for key, value in keys.items())
    return f"[[step]]\n{told}\n"


def tree(marker: str) -> tuple[str, ...]:
    """A command that starts processes that do not want to die, each with the marker, and goes on for ever."""
    return command("a child that ignores TERM", marker)


@dataclass(frozen=True)
class Inside:
    """Somebody at a server in this process."""

    http: httpx2.AsyncClient
    server: Listening
    space: str
    runtime: str

    async def create(self, *calls: str) -> Json:
        body = {"runtimeId": self.runtime, "steps": [{"call": call} for call in calls]}
        path = f"/v1/spaces/{self.space}/runtimes/{self.runtime}/invocations"
        answer = await self.http.post(path, json=body)
        assert answer.status_code == 202, answer.text
        return fits(answer.json())

    async def get(self, invocation: Json) -> Json:
        answer = await self.http.get(f"/v1/invocations/{invocation['id']}")
        assert answer.status_code == 200, answer.text
        return fits(answer.json())

    async def cancel(self, invocation: Json, key: str = "") -> httpx2.Response:
        path = f"/v1/invocations/{invocation['id']}/cancel"
        return await self.http.post(path, json={}, headers=bearer(key) if key else {})

    async def until(self, invocation: Json, reached: Callable[[Json], bool]) -> Json:
        with anyio.fail_after(PATIENCE):
            while not reached(found := await self.get(invocation)):  # noqa: ASYNC110 - it is elsewhere
                await anyio.sleep(0.01)
        return found


@contextlib.asynccontextmanager
async def inside(place: Place) -> AsyncGenerator[Inside]:
    """A server in this process, for tests that have a hand in it."""
    async with serving(place.config(), HttpSettings(key_rate=0)) as server:
        headers = bearer(await new_key(server.site.access))
        async with httpx2.AsyncClient(
            base_url=server.url, headers=headers, timeout=PATIENCE
        ) as http:
            space = (await http.get("/v1/spaces")).json()["data"][0]["id"]
            runtimes = (await http.get(f"/v1/spaces/{space}/runtimes")).json()["data"]
            yield Inside(http, server, space, runtimes[0]["id"])
