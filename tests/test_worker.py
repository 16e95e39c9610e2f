"""Real workflows on a real worker: what a step gets, what it says, and how it ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from bilt_mcp.state import Caller, FailureCode, InvalidWorkflowFile, Status

from .support.builds import ME, Build, Gate, another_session, build_in, second_session
from .support.waiting import wait_until

pytestmark = pytest.mark.anyio
SECRET = "s3cret-Value-42"


@pytest.fixture
async def build(tmp_path: Path) -> AsyncIterator[Build]:
    async with build_in(tmp_path, {"DEPLOY_TOKEN": SECRET}) as made:
        yield made


def step(run: str, name: str = "only", **more: object) -> str:
    lines = [
        f"{key} = {value if not isinstance(value, str) else repr(value)}"
        for key, value in more.items()
    ]
    return "\n".join(["[[step]]", f'name = "{name}"', f"run = '''{run}'''", *lines, ""])


async def test_steps_run_in_their_order_and_their_output_becomes_messages(build: Build) -> None:
    build.declare(step("echo one", "first") + step("echo two >&2", "second"))
    await build.start()
    session = await build.ended()
    assert session.status == "completed"
    said = [(m.variant, m.step, m.content) for m in await build.messages()]
    assert ("log", "first", "one") in said
    assert ("log", "second", "two") in said
    assert said.index(("log", "first", "one")) < said.index(("log", "second", "two"))
    assert said[-1] == ("success", None, "Workflow completed.")


async def test_commands_on_the_output_become_progress_and_messages(build: Build) -> None:
    build.declare(
        step(
            "echo '::progress 40::Bundling'; echo '::notice::Deployed to https://example.org'; "
            "echo '::warning::old'; echo '::error::broken'; read x < gate"
        )
    )
    gate = Gate(build)
    await build.start()
    await build.says("broken")
    with anyio.fail_after(10):
        while (workflow := await build.workflow()).step_percent is None:
            await build.store.wait_change(build.store.changes(), 0.1)
    assert (workflow.step_percent, workflow.step_message) == (40, "Bundling")
    await gate.open()
    await build.ended()
    said = [(m.variant, m.content) for m in await build.messages() if m.step == "only"]
    assert ("info", "Deployed to https://example.org") in said
    assert ("info", "Warning: old") in said
    assert ("error", "broken") in said


async def test_the_message_reaches_the_step_by_variable_and_file_and_never_as_shell_text(
    build: Build,
) -> None:
    message = "'; touch pwned; echo $(touch pwned) `touch pwned` \" ü\nsecond line"
    build.declare(
        step(
            'test "$(cat "$BILT_MESSAGE_FILE")" = "$BILT_MESSAGE" && printf %s "$BILT_MESSAGE" > got'
        )
    )
    await build.start(message)
    assert (await build.ended()).status == "completed"
    root = Path(build.project.root)
    assert (root / "got").read_text("utf-8") == message
    assert not (root / "pwned").exists()


async def test_a_step_gets_its_folder_its_variables_and_the_documented_ones(build: Build) -> None:
    (Path(build.project.root) / "sub").mkdir()
    build.declare(
        step("pwd; env", "show", cwd="sub")
        + "env = { COLOUR = 'blue' }\n"
        + step("echo made > $BILT_ARTIFACTS/thing.txt", "make")
    )
    workflow_id = await build.start()
    assert (await build.ended()).status == "completed"
    log = (await build.log()).splitlines()
    assert f"{build.project.root}/sub" in log
    assert "COLOUR=blue" in log
    assert f"BILT_SESSION_ID={build.session_id}" in log
    assert f"BILT_WORKFLOW_ID={workflow_id}" in log
    assert "BILT_STEP=show" in log
    assert "DEPLOY_TOKEN" not in await build.log()
    listed = [m.content for m in await build.messages() if m.content.startswith("Artifacts in")]
    assert len(listed) == 1
    assert "thing.txt (5 bytes)" in listed[0]


async def test_a_secret_is_passed_on_and_shows_up_nowhere(build: Build) -> None:
    build.declare(
        step(
            'test -n "$DEPLOY_TOKEN" && echo "token $DEPLOY_TOKEN" && env', secrets=["DEPLOY_TOKEN"]
        )
    )
    await build.start()
    assert (await build.ended()).status == "completed"
    assert "token [redacted]" in await build.log()
    await wait_until(
        lambda: not list(build.location.open.iterdir()),
        "the environment is forgotten after the end",
    )
    kept = [path for path in build.location.folder.rglob("*") if path.is_file()]
    assert kept
    assert not [path for path in kept if SECRET.encode() in path.read_bytes()]


async def test_a_missing_secret_refuses_the_message_before_anything_starts(build: Build) -> None:
    build.declare(step("true", secrets=["NOBODY_HAS_THIS"]))
    with pytest.raises(InvalidWorkflowFile, match="NOBODY_HAS_THIS is not set"):
        await build.start()
    assert (await build.session()).status == "idle"
    assert not list(build.location.runs.iterdir())


async def test_a_failing_step_ends_the_workflow_and_later_steps_do_not_run(build: Build) -> None:
    build.declare(step("echo no >&2; exit 7", "bad") + step("touch later", "later"))
    await build.start()
    workflow = (await build.ended()).workflow
    assert workflow is not None
    assert workflow.failure is not None
    assert workflow.failure.code is FailureCode.STEP_FAILED
    assert (workflow.failure.step, workflow.failure.exit_code) == ("bad", 7)
    assert not (Path(build.project.root) / "later").exists()


async def test_a_step_that_cannot_start_says_why(build: Build) -> None:
    build.declare('[[step]]\nname = "gone"\nrun = ["./no-such-program"]\n')
    await build.start()
    workflow = (await build.ended()).workflow
    assert workflow is not None
    assert workflow.failure is not None
    assert workflow.failure.code is FailureCode.STEP_FAILED
    assert "could not be started" in workflow.failure.message
    assert "no-such-program" in workflow.failure.message


async def test_a_step_is_tried_again_as_often_as_it_says(build: Build) -> None:
    build.declare(step("echo x >> tries; test $(wc -l < tries) -ge 3", retries=2))
    await build.start()
    assert (await build.ended()).status == "completed"
    assert (Path(build.project.root) / "tries").read_text() == "x\nx\nx\n"
    assert [m for m in await build.messages() if "attempt 3 of 3" in m.content]


@pytest.mark.parametrize("where", ["step", "workflow"])
async def test_what_takes_too_long_is_stopped_and_timed_out(build: Build, where: str) -> None:
    text = step("sleep 1000", "slow", **({"timeout": "300ms"} if where == "step" else {}))
    build.declare(text if where == "step" else '[workflow]\ntimeout = "300ms"\n' + text)
    await build.start()
    workflow = (await build.ended()).workflow
    assert workflow is not None
    assert workflow.failure is not None
    assert workflow.failure.code is FailureCode.TIMED_OUT
    assert workflow.failure.step == "slow"


async def test_steps_with_when_run_only_if_the_message_says_so(build: Build) -> None:
    build.declare(step("echo always", "build") + step("echo live", "deploy", when="deploy|go live"))
    await build.start("build it")
    await build.ended()
    assert "live" not in await build.log()
    await build.start("build it and GO LIVE")
    await build.ended()
    assert "live" in (await build.log()).splitlines()


async def test_a_flood_of_output_becomes_few_messages_and_its_end_is_readable(build: Build) -> None:
    build.declare(
        "[workflow]\nmax_messages = 20\n"
        + step(
            "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); echo line $i of a flood; done; echo the very end"
        )
    )
    await build.start()
    assert (await build.ended()).status == "completed"
    logs = [m for m in await build.messages() if m.variant == "log"]
    assert len(logs) <= 20 + 3
    assert all(len(m.content.encode()) <= 4096 for m in logs)
    assert "left out" in await build.log()
    assert (await build.log()).endswith("the very end")
    kept = [path for path in build.location.runs.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in kept) < 3_000_000


async def test_a_gate_waits_for_a_person_and_holds_no_worker(build: Build) -> None:
    build.declare(
        step("echo built", "build")
        + step("echo live", "deploy", confirm="Really?", deploy="x").replace("'x'", "true")
    )
    await build.start()
    session = await build.until(Status.PAUSED)
    assert session.pending_action is not None
    assert session.pending_action.message == "Really?"
    await build.store.confirm(
        ME, build.session_id, session.pending_action.action_id, Caller("a test")
    )
    await build.engine.wake()
    session = await build.ended()
    assert session.status == "completed"
    assert (await build.log()).splitlines() == ["built", "live"]


async def test_a_pause_stops_before_the_next_step_and_a_resume_goes_on_there(build: Build) -> None:
    gate = Gate(build)
    build.declare(step("echo up; read x < gate", "first") + step("echo second", "second"))
    await build.start()
    await build.says("up")
    await build.store.request_pause(ME, build.session_id, Caller("a test"))
    await gate.open()
    session = await build.until(Status.PAUSED)
    assert session.workflow is not None
    assert session.workflow.step == "second"
    await build.store.resume(ME, build.session_id, Caller("a test"))
    await build.engine.wake()
    assert (await build.ended()).status == "completed"
    assert (await build.log()).splitlines() == ["up", "second"]


async def test_max_parallel_of_a_project_is_kept_while_other_projects_run(build: Build) -> None:
    other = await another_session(build)
    second = second_session(build)
    for each in (build, other):
        each.declare("[workflow]\nmax_parallel = 1\n" + step("echo up; sleep 1000"))
    await build.start()
    await build.says("up")
    await second.start()
    await other.start()
    await other.says("up")
    assert (await second.session()).status == "pending"
    await build.store.cancel(ME, build.session_id, None, Caller("a test"))
    await second.says("up")


async def test_ten_builds_run_at_once_however_few_cores_there_are(build: Build) -> None:
    builds = [build, *[await another_session(build) for _ in range(9)]]
    for each in builds:
        each.declare(step("echo up; sleep 1000"))
        await each.start()
    for each in builds:
        await each.says("up")


async def test_no_more_run_at_once_than_the_stores_settings_say_and_they_count_at_once(
    build: Build,
) -> None:
    build.location.settings.write_text("max_running = 1\n")
    other = await another_session(build)
    gate = Gate(build)
    build.declare(step("echo up; read x < gate; echo still alone; sleep 1000"))
    other.declare(step("echo up; sleep 1000"))
    await build.start()
    await build.says("up")
    await other.start()
    await gate.open()
    await build.says("still alone")
    assert (await other.session()).status == "pending"
    build.location.settings.write_text("max_running = 2\n")
    await other.says("up")
    build.location.settings.write_text("max_running = wrong\n")
    await build.store.cancel(ME, build.session_id, None, Caller("a test"))
    assert (await build.ended()).status == "cancelled"  # what was accepted goes on as before


async def test_what_a_finished_step_left_running_is_killed_before_the_next_one(
    build: Build,
) -> None:
    build.declare(
        step("(setsid sleep 87654321 &) ; sleep 0.1", "leaves")
        + step("command -v pgrep && ! pgrep -f '^sleep 87654321'", "looks")
    )
    await build.start()
    assert (await build.ended()).status == "completed"
