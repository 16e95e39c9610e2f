"""Invocations on a real worker: what a called step gets, what it does not do, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from bilt_mcp.state import (
    CalledStep,
    Caller,
    DeployState,
    FailureCode,
    InvocationStatus,
    LineRange,
    RefusalCode,
)

from .support.builds import ME, Build, Gate, another_session, build_in
from .support.readers import client_of, text, told
from .support.waiting import wait_until

pytestmark = pytest.mark.anyio
SECRET = "s3cret-Value-42"
S = InvocationStatus


@pytest.fixture(scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Build]:
    """One store and worker for all of these tests."""
    async with build_in(tmp_path_factory.mktemp("house"), {"DEPLOY_TOKEN": SECRET}) as made:
        yield made


@pytest.fixture
async def build(house: Build) -> Build:
    """A project of one's own there."""
    return await another_session(house)


def step(name: str, run: str, *more: str) -> str:
    return "\n".join(["[[step]]", f'name = "{name}"', f"run = '''{run}'''", *more, ""])


def there(build: Build, name: str) -> Path:
    return Path(build.project.root) / name


async def log_of(build: Build, workflow_id: str, position: int) -> str:
    history = await build.store.history(ME, workflow_id)
    text = await build.engine.read_log(history, history.runs_of(position)[-1], LineRange())
    assert text is not None
    return text.text


# -- what a step gets ------------------------------------------------------------------------------


async def test_arguments_arrive_as_data_and_are_never_read_by_a_shell(build: Build) -> None:
    canary = there(build, "canary")
    evil = f"'; touch {canary}; echo $(touch {canary}) `touch {canary}` \" | & > {canary}\n ü\\"
    build.declare(step("build", 'printf %s "$BILT_ARGS" > got; printf %s "$BILT_MESSAGE" > said'))
    found = await build.called(CalledStep("build", [evil, {"n": [1, None]}]))
    assert found.status is S.SUCCEEDED
    assert json.loads(there(build, "got").read_text("utf-8")) == [evil, {"n": [1, None]}]
    assert there(build, "said").read_text() == "build"
    assert not canary.exists()


async def test_as_many_arguments_as_are_accepted_do_arrive(build: Build) -> None:
    build.declare(step("build", "printenv BILT_ARGS | wc -c"))
    room = 131_072 - len("BILT_ARGS=") - 1
    found = await build.called(CalledStep("build", ["x" * (room - len('[""]'))]))
    assert found.status is S.SUCCEEDED
    assert (await log_of(build, found.workflow.id, 1)).strip() == str(room + 1)


async def test_a_step_called_without_arguments_has_no_such_variable(build: Build) -> None:
    build.declare(step("build", "env | grep -c ^BILT_ARGS= ; env | grep -c ^BILT_REF; true"))
    found = await build.called(CalledStep("build", [1]), CalledStep("build"))
    assert (await log_of(build, found.workflow.id, 1)).split() == ["1", "0"]
    assert (await log_of(build, found.workflow.id, 2)).split() == ["0", "0"]


async def test_the_message_is_what_was_called(build: Build) -> None:
    build.declare(step("build", "true") + step("test", 'printf %s "$BILT_MESSAGE" > said'))
    await build.called(CalledStep("build"), CalledStep("build"), CalledStep("test"))
    assert there(build, "said").read_text() == "build, build, test"


async def test_a_step_gets_what_the_step_that_it_refers_to_printed_without_secrets(
    build: Build,
) -> None:
    first = 'echo "version 1.2"; echo "it is $DEPLOY_TOKEN, yes" >&2'
    second = (
        'cp "$BILT_REF_OUTPUT" got; echo "of $BILT_REF ($BILT_REF_CALL): $BILT_REF_EXIT_CODE"; '
        'stat -c %a "$BILT_REF_OUTPUT"'
    )
    build.declare(step("make", first, 'secrets = ["DEPLOY_TOKEN"]') + step("use", second))
    found = await build.called(
        CalledStep("make", bind="made"), CalledStep("use"), CalledStep("use", ref="made")
    )
    assert found.status is S.FAILED  # a step that refers to nothing has nothing to read
    found = await build.called(CalledStep("make", bind="made"), CalledStep("use", ref="made"))
    assert found.status is S.SUCCEEDED
    # A log would be made safe once more when it is read.
    assert there(build, "got").read_text() == "version 1.2\nit is [redacted], yes\n"
    assert await log_of(build, found.workflow.id, 2) == "of made (make): 0\n600\n"


async def test_the_output_of_the_attempt_that_succeeded_is_what_others_get(build: Build) -> None:
    flaky = "test -e once && echo second || { touch once; echo first; exit 1; }"
    build.declare(step("make", flaky, "retries = 1") + step("use", 'cat "$BILT_REF_OUTPUT"'))
    found = await build.called(CalledStep("make", bind="made"), CalledStep("use", ref="made"))
    assert await log_of(build, found.workflow.id, 2) == "second\n"


async def test_what_a_step_printed_is_there_after_a_pause_and_gone_at_the_end(
    build: Build,
) -> None:
    build.declare(
        step("make", "echo made") + step("use", 'cat "$BILT_REF_OUTPUT"', 'confirm = "Use it?"')
    )
    started = await build.call(CalledStep("make", bind="x"), CalledStep("use", ref="x"))
    folder = build.location.run(started.workflow_id)

    async def asked() -> bool:
        return (await build.store.invocation(ME, started.workflow_id)).pending_action is not None

    with anyio.fail_after(20):
        while not await asked():
            await build.store.wait_change(build.store.changes(), 0.1)
    await wait_until(lambda: (folder / "01.1.log").exists(), "the worker has let go")
    assert (folder / "01.output").exists()
    gate = (await build.store.invocation(ME, started.workflow_id)).pending_action
    assert gate is not None
    await build.store.confirm(ME, started.session_id, gate.action_id, Caller("a person"))
    await build.engine.wake()
    found = await build.over(started)
    assert found.status is S.SUCCEEDED
    assert await log_of(build, found.workflow.id, 2) == "made\n"
    await wait_until(lambda: not (folder / "01.output").exists(), "it is deleted")


async def test_a_step_that_was_not_run_gives_others_nothing(build: Build) -> None:
    build.declare(
        step("make", "echo made")
        + step("use", 'cat "$BILT_REF_OUTPUT"; echo "code=${BILT_REF_EXIT_CODE-unset}"')
    )
    calls = CalledStep("make", bind="x", dry_run=True), CalledStep("use", ref="x")
    found = await build.called(*calls)
    assert found.status is S.SUCCEEDED
    assert await log_of(build, found.workflow.id, 2) == "code=\n"


async def test_a_step_that_is_called_three_times_has_three_logs(build: Build) -> None:
    build.declare(step("build", 'echo "$BILT_ARGS $BILT_STEP"'))
    found = await build.called(*[CalledStep("build", [n]) for n in (1, 2, 3)])
    assert [(run.position, run.name, run.outcome) for run in found.runs] == [
        (n, "build", "succeeded") for n in (1, 2, 3)
    ]
    for n in (1, 2, 3):
        assert await log_of(build, found.workflow.id, n) == f"[{n}] build\n"


async def test_each_of_these_logs_has_an_address_whatever_else_is_called(build: Build) -> None:
    build.declare(step("build", 'echo "$BILT_ARGS"') + step("3", 'echo "$BILT_ARGS"'))
    calls = [CalledStep("build", ["a"]), CalledStep("3", ["b"]), CalledStep("build", ["c"])]
    found = await build.called(*calls)
    async with client_of(build) as client:
        shown = await told(client, f"bilt://workflows/{found.workflow.id}")
        logs = [one["log"] for one in shown["steps"]]
        assert [await text(client, log) for log in logs] == ['["a"]\n', '["b"]\n', '["c"]\n']
        listed = (await client.list_resources()).resources
        assert set(logs) <= {resource.uri for resource in listed}
        assert len({resource.name for resource in listed}) == len(listed)


# -- limits and dry runs ---------------------------------------------------------------------------


async def test_the_caller_s_limit_stops_a_step_in_time(build: Build) -> None:
    build.declare(step("build", "echo $$ > pid; exec sleep 600", 'timeout = "10m"'))
    found = await build.called(CalledStep("build", timeout_ms=300))
    assert found.status is S.TIMED_OUT
    assert found.workflow.failure is not None
    assert found.workflow.failure.code is FailureCode.TIMED_OUT
    (run,) = found.runs
    assert run.outcome == "timed_out"
    assert run.finished_at is not None
    assert 300 <= run.finished_at - run.started_at < 5_000
    assert not os.path.exists(f"/proc/{there(build, 'pid').read_text().strip()}")  # noqa: ASYNC240


async def test_a_dry_run_executes_nothing_asks_nobody_and_deploys_nothing(build: Build) -> None:
    build.declare(
        step("deploy", "touch deployed", "deploy = true", 'confirm = "Deploy it?"')
        + step("build", "touch built")
    )
    found = await build.called(CalledStep("deploy", dry_run=True), CalledStep("build"))
    assert found.status is S.SUCCEEDED
    assert not there(build, "deployed").exists()
    assert there(build, "built").exists()
    assert [run.position for run in found.runs] == [2]
    assert found.workflow.deploy is DeployState.NOT_STARTED
    audit = await build.store.audit(ME, found.workflow.session_id)
    assert [entry.action for entry in audit] == ["start"]
    await build.says("Step deploy was not executed: a dry run.", found.workflow.id)


async def test_a_cancel_ends_an_invocation_and_its_later_steps_never_start(build: Build) -> None:
    build.declare(step("build", "echo here; exec sleep 600") + step("deploy", "touch deployed"))
    calls = CalledStep("build", [1]), CalledStep("deploy", dry_run=True), CalledStep("deploy")
    started = await build.call(*calls)
    await build.says("here")
    await build.store.cancel(ME, started.session_id, None, Caller("curl", "rest"))
    await build.engine.wake()
    found = await build.over(started)
    assert found.status is S.CANCELLED
    assert [run.position for run in found.runs] == [1]
    assert not there(build, "deployed").exists()


# -- what cannot be run ----------------------------------------------------------------------------


async def test_a_misspelled_call_runs_nothing_and_names_the_closest(build: Build) -> None:
    build.declare(step("build", "touch built") + step("deploy", "touch deployed", "deploy = true"))
    found = await build.called(CalledStep("build"), CalledStep("dploy"))
    assert found.status is S.FAILED
    assert found.workflow.failure is not None
    assert found.workflow.failure.code is FailureCode.INVALID_WORKFLOW
    assert 'Step 2: The project declares no step "dploy".' in found.workflow.failure.message
    assert found.workflow.failure.step == "dploy"
    (refusal,) = found.plan.refused
    assert refusal.code is RefusalCode.UNKNOWN_CALL
    assert refusal.diagnostic["closest"] == ["deploy"]
    assert found.runs == []
    assert found.workflow.deploy is DeployState.NOT_STARTED
    assert not there(build, "built").exists()
    for kept in (build.location.runs, build.location.open):
        assert not [name for name in os.listdir(kept) if found.workflow.id in name]


async def test_a_refused_invocation_is_over_although_its_project_has_no_room(build: Build) -> None:
    build.declare("[workflow]\nmax_parallel = 1\n" + step("build", "echo here; read x < gate"))
    gate = Gate(build)
    running = await build.call(CalledStep("build"))
    await build.says("here")
    found = await build.called(CalledStep("biuld"))
    assert found.status is S.FAILED
    assert found.workflow.session_id != running.session_id
    await gate.open()
    assert (await build.over(running)).status is S.SUCCEEDED


async def test_a_project_whose_file_is_gone_fails_durably(build: Build) -> None:
    found = await build.called(CalledStep("build"))
    assert found.status is S.FAILED
    assert [refusal.code for refusal in found.plan.refused] == [RefusalCode.RUNTIME_NOT_FOUND]


# -- beside the workflow ---------------------------------------------------------------------------


async def test_a_heart_beats_while_something_runs_and_stands_still_with_its_worker(
    build: Build, tmp_path: Path
) -> None:
    async with build_in(tmp_path) as other:
        assert other.engine.heartbeat() is None
        build.declare(step("build", "echo here; read x < gate"))
        other.declare(step("build", "echo here; sleep 600"))
        gate = Gate(build)
        before = int(time.time() * 1000)
        started = await build.call(CalledStep("build"))
        await other.start()
        for each in (build, other):
            await each.says("here")
        assert before - 1000 <= beat(build) <= time.time() * 1000 + 1000
        await beats(build)
        worker = build.worker_pid()
        os.kill(worker, signal.SIGSTOP)
        try:
            stat = Path(f"/proc/{worker}/stat")
            await wait_until(lambda: ") T " in stat.read_text("ascii"), "it stands still")
            still = beat(build)
            for _ in range(3):
                await beats(other)
            assert beat(build) == still
        finally:
            os.kill(worker, signal.SIGCONT)
    await beats(build)
    await gate.open()
    await build.over(started)


def beat(of: Build) -> int:
    """When its worker's heart has beaten last."""
    found = of.engine.heartbeat()
    assert found is not None
    return found


async def beats(of: Build) -> None:
    """Return when it has beaten once more."""
    last = beat(of)
    await wait_until(lambda: beat(of) > last, "it has beaten again")


async def test_artifacts_are_counted_as_they_are_listed(build: Build) -> None:
    build.declare(
        step(
            "build",
            'cd "$BILT_ARTIFACTS"; touch a b; mkdir -p c/d; touch c/d/e; ln -s a link; echo here; '
            'cd - ; read x < gate; touch "$BILT_ARTIFACTS/f"',
        )
    )
    gate = Gate(build)
    started = await build.call(CalledStep("build"))
    await build.says("here")
    assert build.engine.artifact_count(started.workflow_id) == 3
    await gate.open()
    await build.over(started)
    count = build.engine.artifact_count
    assert count(started.workflow_id, final=True) == 4
    history = await build.store.history(ME, started.workflow_id)
    assert len(await build.engine.artifacts(history, 100)) == 4
    assert count(started.session_id) == 0
    (build.location.run(started.workflow_id) / "artifacts" / "a").unlink()
    assert count(started.workflow_id, final=True) == 4  # counted once
    other = await another_session(build)
    assert other.engine.artifact_count(started.workflow_id) == 4
