"""Every status of an invocation, and how it is told, one step of a worker at a time."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace

import anyio
import pytest

from bilt_mcp.state import (
    Caller,
    Claim,
    Failure,
    FailureCode,
    Invocation,
    InvocationStatus,
    Note,
    SqliteStore,
)
from bilt_mcp.tools import cancelling

from .support.agents import STAMP, Hand
from .support.agents import hand as hand  # a fixture, like the next two
from .support.agents import still as still
from .support.http import bearer, new_key
from .support.places import Place
from .support.places import place as place
from .support.rest import Inside, inside, step
from .support.seed import Json, fits

pytestmark = pytest.mark.anyio

WORKFLOW = step("build", "true") + step("ship", "true", deploy=True, confirm="Ship it?")


@pytest.fixture
async def rest(place: Place) -> AsyncGenerator[Inside]:
    place.workflow(WORKFLOW)
    async with inside(place) as found:
        yield found


def progress(event: str, message: str, at: int = 1, call: str | None = "build") -> Json:
    told: Json = {"lastEventType": event, "message": message, "step": at, "totalSteps": 2}
    return told if call is None else {**told, "currentCall": call}


async def test_all_eight_statuses_are_reached_and_each_is_as_the_page_has_it(
    rest: Inside, hand: Hand
) -> None:
    seen: list[str] = []

    async def look(invocation: Json) -> Json:
        found = await rest.get(invocation)
        seen.append(found["status"])
        over = found["status"] in ("succeeded", "failed", "cancelled", "timed_out")
        assert (found["result"] is not None) is over
        assert (found["progress"] is None) is over
        assert (found["finishedAt"] is not None) is over
        assert (found["error"] is not None) is (found["status"] in ("failed", "timed_out"))
        return found

    one = await rest.create("build", "ship")
    found = await look(one)
    assert found["progress"] == progress(
        "queued", "Accepted and durable; it starts when a worker is free."
    )
    assert (found["startedAt"], found["lastHeartbeatAt"]) == (None, None)
    claim = await hand.claim()
    found = await look(one)
    assert found["progress"] == progress("claimed", "A worker has it and is about to begin.")
    assert STAMP.fullmatch(found["startedAt"])
    await hand.begin(claim)
    found = await look(one)
    assert found["progress"] == progress("step_started", "Step 1 of 2: build")
    async with anyio.create_task_group() as group:
        group.start_soon(rest.cancel, one)
        await rest.until(one, lambda now: now["status"] == "cancelling")
        found = await look(one)
        assert found["progress"] == progress(
            "cancel_requested", "Being cancelled; its processes are being killed."
        )
        assert STAMP.fullmatch(found["cancelRequestedAt"])
        await hand.stopped(claim)
    await look(one)

    two = await rest.create("build", "ship")
    await hand.complete(await through(hand, 2))
    await look(two)

    three = await rest.create("build")
    claim = await hand.claim()
    await hand.begin(claim)
    await hand.fail(claim)
    await look(three)

    four = await rest.create("build")
    claim = await hand.claim()
    await hand.begin(claim)
    late = Failure(FailureCode.TIMED_OUT, "Step build took too long.", "build")
    assert await hand.store.fail(claim, late, [])
    found = await look(four)
    assert found["error"] == {
        "code": "timed_out",
        "message": "Step build took too long.",
        "details": {"step": "build"},
    }
    assert seen == [
        *("queued", "dispatching", "running", "cancelling", "cancelled"),
        *("succeeded", "failed", "timed_out"),
    ]
    assert set(seen) == {status.value for status in InvocationStatus}


async def through(hand: Hand, steps: int) -> Claim:
    """A claim whose first steps have ended well."""
    claim = await hand.claim()
    for position in range(1, steps + 1):
        await hand.do_step(claim)
        assert await hand.store.advance(claim, position + 1)
        claim = replace(claim, position=position + 1)
    return claim


async def test_what_runs_tells_its_attempt_and_its_percentage_but_no_words_of_the_build(
    rest: Inside, hand: Hand
) -> None:
    one = await rest.create("build", "ship")
    claim = await hand.claim()
    await hand.do_step(claim)
    notes = [Note("words of the build")]
    await hand.store.note(claim, notes, percent=40, progress="words of the build")
    found = await rest.get(one)
    assert found["progress"] == progress("step_progress", "Step 1 of 2: build, 40 %")
    assert "words" not in str(found)
    claim = replace(claim, position=2)
    assert await hand.store.advance(claim, 2)
    found = await rest.get(one)
    assert found["progress"] == progress("step_ended", "Step 2 of 2 comes next.", 2, "ship")


async def test_what_is_paused_says_for_whom_it_waits(rest: Inside, hand: Hand) -> None:
    one = await rest.create("ship", "build")
    await hand.pause(await hand.claim(), "Ship it?")
    found = await rest.get(one)
    assert found["status"] == "running"
    told = "Waiting for a person to confirm step ship: Ship it?"
    assert found["progress"] == progress("confirmation_required", told, 1, "ship")
    await rest.cancel(one)
    two = await rest.create("build", "build")
    claim = await hand.claim()
    await hand.store.request_pause("local", two["runId"], Caller("a person"))
    assert await hand.store.pause(claim, None)
    told = "Paused by request; nothing of it runs until it is resumed."
    assert (await rest.get(two))["progress"] == progress("paused", told)


@pytest.mark.parametrize("code", [FailureCode.WORKER_LOST, FailureCode.INTERRUPTED])
async def test_a_step_whose_worker_is_gone_was_not_connected(
    rest: Inside, hand: Hand, code: FailureCode
) -> None:
    one = await rest.create("build", "ship")
    claim = await hand.claim()
    await hand.begin(claim)
    assert await hand.store.fail(claim, Failure(code, "It is gone.", "build"), [])
    found = await rest.get(one)
    assert (found["status"], found["error"]["code"]) == ("failed", code.value)
    (lost,) = found["result"]["steps"]
    assert lost["error"]["code"] == lost["error"]["diagnostic"]["code"] == "DRIVER_NOT_CONNECTED"
    assert lost["error"]["diagnostic"]["id"] == code.value.replace("_", "-")


async def test_a_cancel_that_cannot_be_verified_in_its_time_is_answered_as_cancelling(
    rest: Inside, hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancelling, "VERIFY_SECONDS", 0.05)
    one = await rest.create("build")
    claim = await hand.claim()
    await hand.begin(claim)
    answer = await rest.cancel(one)
    assert answer.status_code == 200
    first = fits(answer.json())
    assert first["status"] == "cancelling"
    assert STAMP.fullmatch(first["cancelRequestedAt"])
    second = fits((await rest.cancel(one)).json())
    assert second["cancelRequestedAt"] == first["cancelRequestedAt"]
    await hand.stopped(claim)
    assert (await rest.get(one))["status"] == "cancelled"


async def test_a_step_that_was_left_out_is_told_neither_as_done_nor_as_failed(
    place: Place, rest: Inside, hand: Hand
) -> None:
    place.workflow(WORKFLOW.replace("deploy =", 'on_decline = "skip"\ndeploy ='))
    one = await rest.create("ship", "build")
    await hand.pause(await hand.claim(), "Ship it?")
    gate = (await hand.store.invocation("local", one["id"])).pending_action
    assert gate is not None
    await hand.store.decline("local", one["runId"], gate.action_id, Caller("a person"))
    claim = await hand.claim()
    await hand.do_step(claim)
    assert await hand.store.advance(claim, 3)
    await hand.complete(replace(claim, position=3))
    found = await rest.get(one)
    assert found["status"] == "succeeded"
    assert [(done["call"], done["index"]) for done in found["result"]["steps"]] == [("build", 1)]


async def test_runtimes_are_listed_page_by_page_however_many_there_are(
    rest: Inside, hand: Hand
) -> None:
    made = [rest.runtime]
    for number in range(230):
        made.append((await hand.store.open_project("local", f"/none/{number}", f"p{number}")).id)
    read: list[Json] = []
    query: dict[str, str] = {"limit": "100"}
    while True:
        page = (await rest.http.get(f"/v1/spaces/{rest.space}/runtimes", params=query)).json()
        read += page["data"]
        await hand.store.open_project("local", f"/none/new {len(read)}", "new")
        if page["nextCursor"] is None:
            break
        query["cursor"] = page["nextCursor"]
    assert [each["id"] for each in read] == made[::-1]
    assert (read[-1]["status"], read[0]["status"]) == ("ready", "missing")
    for wrong in ("AAAAAAAAAAAAAAAAAAAAAA", "x"):
        query["cursor"] = wrong
        answer = await rest.http.get(f"/v1/spaces/{rest.space}/runtimes", params=query)
        assert answer.status_code == 400
        assert answer.json()["details"]["fields"][0]["field"] == "cursor"


async def test_who_may_only_read_gets_and_waits_but_starts_and_stops_nothing(
    rest: Inside, hand: Hand
) -> None:
    one = await rest.create("build")
    key = await new_key(rest.server.site.access, "reader", read_only=True)
    path = f"/v1/invocations/{one['id']}"
    headers = bearer(key)
    assert (await rest.http.get(path, headers=headers)).status_code == 200
    waited = await rest.http.post(f"{path}/wait", json={"timeoutMs": 1}, headers=headers)
    assert waited.status_code == 200
    refused = [
        await rest.http.post(f"{path}/cancel", json={}, headers=headers),
        await rest.http.post(
            f"/v1/spaces/{rest.space}/runtimes/{rest.runtime}/invocations",
            json={"runtimeId": rest.runtime, "steps": [{"call": "build"}]},
            headers=headers,
        ),
    ]
    told = [(answer.status_code, answer.json()["code"]) for answer in refused]
    assert told == [(403, "read_only_key")] * 2
    assert (await rest.get(one))["status"] == "queued"


async def test_who_lists_reads_each_as_it_is_alone(rest: Inside, hand: Hand) -> None:
    one = await rest.create("build")
    claim = await through(hand, 1)
    await hand.complete(claim)
    two = await rest.create("build")
    assert two["runId"] == one["runId"]
    page = (await rest.http.get(f"/v1/runs/{one['runId']}/invocations")).json()
    assert page == {"data": [await rest.get(two), await rest.get(one)], "nextCursor": None}
    words = {"status": ["queued", "running"]}
    page = (await rest.http.get(f"/v1/runs/{one['runId']}/invocations", params=words)).json()
    assert [each["id"] for each in page["data"]] == [two["id"]]


async def test_who_polls_sees_every_change_of_any_process_at_once(
    place: Place, rest: Inside, hand: Hand
) -> None:
    """The hand's store is another one than the server's: it stands for another process."""
    one = await rest.create("build")
    for _ in range(3):
        assert (await rest.get(one))["status"] == "queued"
    claim = await hand.claim()
    assert (await rest.get(one))["status"] == "dispatching"
    await hand.begin(claim)
    assert (await rest.get(one))["status"] == "running"
    assert (await rest.get(one))["status"] == "running"
    await hand.fail(claim)
    over = await rest.get(one)
    assert over["status"] == "failed"
    assert await rest.get(one) == over


async def test_a_gate_that_nobody_answers_in_time_is_declined_by_who_polls(
    place: Place, rest: Inside, hand: Hand
) -> None:
    place.workflow(WORKFLOW.replace("deploy =", 'confirm_timeout = "300ms"\ndeploy ='))
    one = await rest.create("ship")
    await hand.pause(await hand.claim(), "Ship it?")
    assert (await rest.get(one))["status"] == "running"
    await rest.until(one, lambda now: now["status"] == "cancelled")


async def test_what_one_account_has_read_another_does_not_see(rest: Inside, hand: Hand) -> None:
    one = await rest.create("build")
    assert (await rest.get(one))["id"] == one["id"]
    key = await new_key(rest.server.site.access, "foreign", "others")
    path = f"/v1/invocations/{one['id']}"
    assert (await rest.http.get(path, headers=bearer(key))).status_code == 404
    elsewhere = await hand.store.open_project("local", "/elsewhere", "elsewhere")
    key = await new_key(rest.server.site.access, "limited", project=elsewhere.id)
    assert (await rest.http.get(path)).status_code == 200
    assert (await rest.http.get(path, headers=bearer(key))).status_code == 404


async def test_a_cancel_that_comes_too_late_does_not_stop_the_next_of_the_run(
    rest: Inside, hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await rest.create("build")
    claim = await through(hand, 1)
    look, next_ones = SqliteStore.invocation, list[Json]()

    async def look_too_early(store: SqliteStore, account: str, workflow_id: str) -> Invocation:
        found = await look(store, account, workflow_id)
        if found.status is InvocationStatus.RUNNING:
            await hand.complete(claim)
            next_ones.append(await rest.create("build"))
        return found

    monkeypatch.setattr(SqliteStore, "invocation", look_too_early)
    assert fits((await rest.cancel(one)).json())["status"] == "succeeded"
    (two,) = next_ones
    assert two["runId"] == one["runId"]
    assert (await rest.get(two))["status"] == "queued"
