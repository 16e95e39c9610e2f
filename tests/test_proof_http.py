"""Requests drawn from our own OpenAPI document: each is answered as the document says, and none with a 500.

Schemathesis draws them; every second one names ids that there are, so that they get past the door.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import Any

import anyio
import anyio.to_thread
import pytest
import requests
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as hypothesis_seed
from hypothesis.errors import Unsatisfiable
from schemathesis.generation.modes import GenerationMode
from schemathesis.openapi import from_dict
from schemathesis.specs.openapi import checks

from bilt_mcp.server.http.settings import HttpSettings

from .support.http import bearer, key_in, serving
from .support.places import Place
from .support.places import place as place  # a fixture
from .support.proof import Proof

pytestmark = pytest.mark.anyio

WORKFLOW = """
[[step]]
name = "build"
run = ["true"]

[[step]]
name = "deploy"
run = ["true"]
when = "deploy"
confirm = "Deploy?"
"""
SECONDS = 60
ALWAYS_GOOD = {f"/v1/invocations/{{id}}{verb}" for verb in ("", "/wait", "/cancel")}
"""Where whatever is drawn is good with an id that there is. How many of all are good differs from seed to seed."""
Drawn = Any
"""Schemathesis's `Case`; what it is a case of, no checker knows."""


class Caller:
    """Sends what was drawn, with ids that there are in every second request that shall be good."""

    def __init__(self, url: str, key: str) -> None:
        self._url = url
        self._browser = requests.Session()
        self._key = bearer(key)
        self._secret = key
        self._cookie = self._log_in()
        self.statuses: Counter[int] = Counter()
        self.got_in: set[str] = set()
        """The paths of requests that were answered as good."""
        self._known = self._some()

    def _log_in(self) -> dict[str, str]:
        asked = {"key": self._secret}
        answer = requests.post(f"{self._url}/auth/login", json=asked, timeout=SECONDS)
        assert answer.status_code == 200, answer.text
        return {"Cookie": f"session_id={answer.cookies['session_id']}"}

    def _get(self, path: str) -> Any:
        return self._browser.get(self._url + path, headers=self._key, timeout=SECONDS).json()

    def _post(self, path: str, body: Any) -> Any:
        url, headers = self._url + path, self._key
        return self._browser.post(url, json=body, headers=headers, timeout=SECONDS).json()

    def _some(self) -> dict[str, str]:
        space = self._get("/v1/spaces")["data"][0]["id"]
        runtime = self._get(f"/v1/spaces/{space}/runtimes")["data"][0]["id"]
        asked = {"runtimeId": runtime, "steps": [{"call": "build"}]}
        made = self._post(f"/v1/spaces/{space}/runtimes/{runtime}/invocations", asked)
        self._post(f"/v1/invocations/{made['id']}/wait", {})
        return {"space": space, "runtime": runtime, "invocation": made["id"], "run": made["runId"]}

    def document(self) -> dict[str, Any]:
        """The server's own, but for credentials."""
        document: dict[str, Any] = self._get("/openapi.json")
        # Credentials are not drawn: test_tenants goes through all that are no good.
        del document["components"]["securitySchemes"]
        for path in document["paths"].values():
            for operation in path.values():
                del operation["security"]
        return document

    def send(self, case: Drawn, *, known: bool) -> None:
        """Send one, `known` with ids that there are, and check what comes."""
        if known:
            self._name_what_there_is(case)
        case.headers.pop("Authorization", None)
        by_key = case.operation.path.startswith(("/v1", "/metrics"))
        headers = self._key if by_key else self._cookie
        answer = case.call(base_url=self._url, timeout=SECONDS, headers=headers)
        self.statuses[answer.status_code] += 1
        if answer.status_code == 200:
            self.got_in.add(case.operation.path)
        assert answer.status_code != 500, answer.text
        # Some rules no schema can tell: a cursor is one that we gave, no two steps bind the same name.
        unsayable: Any = [checks.positive_data_acceptance]  # pyright: ignore[reportUnknownMemberType]
        case.validate_response(answer, excluded_checks=unsayable, headers=headers)
        if case.operation.path == "/auth/logout":
            self._cookie = self._log_in()

    def _name_what_there_is(self, case: Drawn) -> None:
        parts, known = case.path_parameters, self._known
        ids = {"runtimes": "space", "invocations/": "invocation"}
        for piece, name in ids.items():
            if "id" in parts and piece in case.operation.path:
                parts["id"] = known[name]
        if "runtimeId" in parts:
            parts |= {"id": known["space"], "runtimeId": known["runtime"]}
        if "runId" in parts:
            parts["runId"] = known["run"]
        if "thread_id" in case.query:
            case.query["thread_id"] = known["run"]
        body = case.body
        if isinstance(body, dict):
            if "runtimeId" in body:
                body["runtimeId"] = known["runtime"]
            if "thread_id" in body:
                body["thread_id"] = known["run"]


async def test_whatever_is_asked_is_answered_as_the_openapi_document_says(
    place: Place, proof: Proof
) -> None:
    place.workflow(WORKFLOW)
    key = await key_in(place.config())
    unlimited = HttpSettings(key_rate=0, login_rate=0, failure_rate=0)
    async with serving(place.config(), unlimited) as served:
        await anyio.to_thread.run_sync(_draw, served.url, key, proof)


def _draw(url: str, key: str, proof: Proof) -> None:
    caller = Caller(url, key)
    schema: Any = from_dict(caller.document())
    operations: list[Any] = [found.ok() for found in schema.get_all_operations()]
    asked = 0
    with proof.progress(len(operations)) as bar:
        for operation in operations:
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                asked += _try(caller, proof, operation, mode)
            bar.advance()
    answers = ", ".join(f"{n} x {status}" for status, n in sorted(caller.statuses.items()))
    proof.figure(
        f"{len(operations)} operations, {asked} requests, 0 answers that are not documented: {answers}"
    )
    assert caller.got_in >= ALWAYS_GOOD


def _try(caller: Caller, proof: Proof, operation: Any, mode: GenerationMode) -> int:
    number = 0

    @hypothesis_seed(proof.seed)
    @settings(
        max_examples=proof.size(8, 1_000),
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def send(case: Drawn) -> None:
        nonlocal number
        number += 1
        caller.send(case, known=mode is GenerationMode.POSITIVE and number % 2 == 1)

    # What takes nothing cannot be asked wrongly.
    with contextlib.suppress(Unsatisfiable):
        send()
    return number
