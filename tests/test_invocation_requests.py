"""Requests for invocations over REST: what is wrong with them is told, and what comes again is done once."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest

from .support.agents import UNKNOWN
from .support.rest import Rest, Served
from .support.rest_project import rest as rest  # a fixture, like the next one
from .support.rest_project import served as served
from .support.seed import Json, fits


@pytest.mark.parametrize("timeout", [-1, 300_001, 1.5, "1", None, True])
def test_a_time_to_wait_that_is_none_is_refused(rest: Rest, timeout: Any) -> None:
    path = f"/v1/invocations/{rest.run('print')['id']}/wait"
    status, told = rest.error("POST", path, {"timeoutMs": timeout})
    assert (status, told["code"]) == (400, "invalid_request")
    assert [problem["field"] for problem in told["details"]["fields"]] == ["timeoutMs"]


def test_the_same_request_with_a_key_is_answered_with_the_first_invocation(rest: Rest) -> None:
    key = f"key {uuid4()}"
    call: Json = {"call": "print", "args": [{"one": 1, "two": 2}]}
    first = rest.run(call, idempotencyKey=key)
    call["args"] = [{"two": 2, "one": 1}]
    asked = rest.body(call, idempotencyKey=key)
    otherwise = json.dumps(dict(reversed(asked.items())), indent=2)
    as_json = {"Content-Type": "application/json"}
    again = rest.http.post(rest.creating, headers=as_json, content=otherwise)
    assert again.status_code == 202
    assert fits(again.json()) == first  # as it came first
    header = {"Idempotency-Key": key}
    assert rest.ok("POST", rest.creating, rest.body(call), 202, headers=header) == first
    status, told = rest.error("POST", rest.creating, rest.body("build", idempotencyKey=key))
    assert (status, told["code"]) == (409, "idempotency_key_reused")
    assert told["details"] == {"invocationId": first["id"]}
    header = {"Idempotency-Key": "another"}
    status, told = rest.error("POST", rest.creating, asked, headers=header)
    assert (status, told["details"]["fields"][0]["field"]) == (400, "Idempotency-Key")


def test_requests_with_one_key_at_once_start_one(served: Served) -> None:
    key = f"key {uuid4()}"
    with served.others(4) as callers, ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(caller.create, "print", idempotencyKey=key) for caller in callers]
        made = [each.result() for each in asked]
    assert len({each["id"] for each in made}) == 1


DOTTED = {"call": "print"}
BAD: dict[str, tuple[Any, str, str]] = {
    "no JSON": (b"{", "body", ""),
    "no object": ([], "body", ""),
    "nothing": ({}, "runtimeId", "is required"),
    "an unknown member": ({"step": []}, "step", 'did you mean "steps"?'),
    "an unknown member of a step": (
        {"steps": [{"call": "print", "bnid": "x"}]},
        "steps.0.bnid",
        'did you mean "bind"?',
    ),
    "an unknown option": (
        {"steps": [DOTTED, {"call": "print", "options": {"timeout": 1}}]},
        "steps.1.options.timeout",
        'did you mean "timeoutMs"?',
    ),
    "a command": ({"steps": [{"call": "print", "run": "rm -rf /"}]}, "steps.0.run", "no such"),
    "another runtime": ({"runtimeId": UNKNOWN}, "runtimeId", "in the path"),
    "no steps": ({"steps": []}, "steps", ""),
    "too many steps": ({"steps": [DOTTED] * 101}, "steps", ""),
    "no call": ({"steps": [{}]}, "steps.0.call", "is required"),
    "a null": ({"steps": [{"call": "print", "bind": None}]}, "steps.0.bind", ""),
    "another mode": ({"mode": "best-effort"}, "mode", "fail-fast"),
    "an empty key": ({"idempotencyKey": ""}, "idempotencyKey", ""),
    "a long key": ({"idempotencyKey": "k" * 129}, "idempotencyKey", "128"),
    "a NUL": ({"steps": [{"call": "a\0b"}]}, "steps.0.call", "NUL"),
    "no time at all": (
        {"steps": [{"call": "print", "options": {"timeoutMs": 0}}]},
        "steps.0.options.timeoutMs",
        "",
    ),
    "not a number": (
        b'{"steps": [{"call": "print", "args": [NaN]}], "runtimeId": "%s"}',
        "steps.0.args.0",
        "finite",
    ),
    "a number of 5,000 digits": (
        b'{"steps": [{"call": "print", "args": [%d]}], "runtimeId": "%%s"}' % 10**4000,
        "steps.0.args.0",
        "size",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_a_request_that_is_wrong_names_its_fields_and_starts_nothing(
    rest: Rest, served: Served, what: str
) -> None:
    asked, field, told_of_it = BAD[what]
    if isinstance(asked, bytes):
        content = asked.replace(b"%s", rest.runtime.encode())
    else:
        whole = {**rest.body("print"), **asked} if asked else asked
        content = json.dumps(whole).encode()
    before = served.place.count("workflow")
    answer = rest.http.post(
        rest.creating, content=content, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 400, answer.text
    told = answer.json()
    assert told["code"] == "invalid_request"
    assert told["reasonClass"] == "request"
    (problem,) = [p for p in told["details"]["fields"] if p["field"] == field]
    assert told_of_it in problem["message"]
    assert served.place.count("workflow") == before


def _paths(rest: Rest, own: Json, unknown: str) -> dict[str, tuple[str, str, str, Any]]:
    """For each route: how to ask for what is the caller's, and for what has `unknown` for an id."""
    body = rest.body("print")
    runtimes = f"/v1/spaces/{rest.space}/runtimes"
    one = f"/v1/invocations/{own['id']}"
    return {
        "runtimes": ("GET", runtimes, f"/v1/spaces/{unknown}/runtimes", None),
        "create, space": (
            "POST",
            rest.creating,
            rest.creating.replace(rest.space, unknown),
            body,
        ),
        "create, runtime": (
            "POST",
            rest.creating,
            rest.creating.replace(rest.runtime, unknown),
            {**body, "runtimeId": unknown},
        ),
        "get": ("GET", one, one.replace(own["id"], unknown), None),
        "wait": ("POST", f"{one}/wait", f"{one.replace(own['id'], unknown)}/wait", {}),
        "cancel": ("POST", f"{one}/cancel", f"{one.replace(own['id'], unknown)}/cancel", {}),
        "list": (
            "GET",
            f"/v1/runs/{own['runId']}/invocations",
            f"/v1/runs/{unknown}/invocations",
            None,
        ),
    }


ROUTES = ("runtimes", "create, space", "create, runtime", "get", "wait", "cancel", "list")


@pytest.mark.parametrize("route", ROUTES)
def test_what_is_malformed_unknown_or_anothers_is_told_in_the_same_words(
    rest: Rest, served: Served, route: str
) -> None:
    running = rest.create("hang")
    method, own, unknown, body = _paths(rest, running, UNKNOWN)[route]
    _, _, malformed, _ = _paths(rest, running, "no-id")[route]
    first = rest.error(method, unknown, body)
    assert first[0] == 404
    assert (
        first[1]["code"]
        == {
            **dict.fromkeys(("get", "wait", "cancel"), "invocation_not_found"),
            **dict.fromkeys(("runtimes", "create, space"), "space_not_found"),
            "create, runtime": "runtime_not_found",
            "list": "run_not_found",
        }[route]
    )
    assert rest.error(method, malformed, body) == first
    stranger = served.stranger
    if route == "create, runtime":
        own = own.replace(rest.space, stranger.space)
    assert stranger.error(method, own, body) == first
    assert rest.get(running)["cancelRequestedAt"] is None
    rest.cancel(running)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("status=done", "status"),
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=1_0", "limit"),
        ("limit=1&limit=2", "limit"),
        ("cursor=", "cursor"),
        ("cursor=AAAA", "cursor"),
        ("cursor=AAAAAAAAAAAAAAAAAAAAAA", "cursor"),
        ("stauts=failed", "stauts"),
    ],
)
def test_a_query_that_is_wrong_names_its_parameter(rest: Rest, query: str, field: str) -> None:
    run_id = rest.run("print")["runId"]
    status, told = rest.error("GET", f"/v1/runs/{run_id}/invocations?{query}")
    assert (status, told["code"]) == (400, "invalid_request")
    assert [problem["field"] for problem in told["details"]["fields"]] == [field]
