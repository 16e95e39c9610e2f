"""Resources: sessions, workflows, logs by ranges, artifacts; and that nobody reads what is not his or not safe."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from mcp.shared.exceptions import MCPError
from mcp_types import TextResourceContents

from bilt_mcp.engine.run_folder import RunFolder
from bilt_mcp.state import SqliteStore, StoreLocation
from bilt_mcp.tools import uris
from bilt_mcp.tools.uris import ArtifactUri, LogUri, NoResource

from .support.agents import DEPLOYING, UNKNOWN, Agent, Hand, agent_at
from .support.agents import agent as agent  # a fixture, like the next two
from .support.agents import hand as hand
from .support.agents import still as still
from .support.builds import Gate, build_in
from .support.places import Place
from .support.places import place as place
from .support.readers import client_of, contents, refusal, settled, text, told
from .support.waiting import wait_until

pytestmark = pytest.mark.anyio

SECRET = "correct-horse-battery"


# -- addresses -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "uri",
    [
        LogUri(UNKNOWN, "ship it"),
        LogUri(UNKNOWN, "a/b?c#d%2e", -20, 5, 2),
        LogUri(UNKNOWN, "tiefe größe", 7),
        ArtifactUri(UNKNOWN, b"deep/er/file name?#.txt"),
        ArtifactUri(UNKNOWN, b"\xff%2e", 3, 4),
        uris.SessionUri(UNKNOWN),
        uris.WorkflowUri(UNKNOWN),
        uris.ArtifactsUri(UNKNOWN),
    ],
)
async def test_what_is_written_as_an_address_is_read_as_the_same(uri: uris.Uri) -> None:
    assert uris.parse(str(uri)) == uri
    assert uris.parse(str(uri).replace(UNKNOWN, UNKNOWN.upper())) == uri


@pytest.mark.parametrize(
    "path",
    [
        "",
        "sessions",
        "sessions/",
        "sessions/s-1",
        f"sessions/{UNKNOWN}/",
        f"sessions/{UNKNOWN}?x=1",
        f"sessions/{UNKNOWN}#x",
        f"sessions/{UNKNOWN}\n",
        f"workflows/{UNKNOWN}/steps",
        f"workflows/{UNKNOWN}/steps/build",
        f"workflows/{UNKNOWN}/steps/build/log/more",
        f"workflows/{UNKNOWN}/steps/build/log?from=0",
        f"workflows/{UNKNOWN}/steps/build/log?from=1.5",
        f"workflows/{UNKNOWN}/steps/build/log?from=٣",
        f"workflows/{UNKNOWN}/steps/build/log?lines=-1",
        f"workflows/{UNKNOWN}/steps/build/log?attempt=99999999999",
        f"workflows/{UNKNOWN}/steps/build/log?form=1",
        f"workflows/{UNKNOWN}/artifacts?from=1",
        f"projects/{UNKNOWN}",
        "x" * 10_000,
    ],
)
async def test_an_address_of_nothing_is_not_found(path: str, agent: Agent) -> None:
    with pytest.raises(NoResource):
        uris.parse(f"bilt://{path}")
    with pytest.raises(MCPError) as refused:
        await agent.client.read_resource(f"bilt://{path}")
    assert refused.value.error.code == -32602
    assert f"bilt://{path}".startswith(refused.value.error.data["uri"])


async def test_templates_are_complete_and_their_addresses_are_read(agent: Agent) -> None:
    listed = await agent.client.list_resource_templates()
    assert [found.uri_template for found in listed.resource_templates] == list(uris.TEMPLATES)
    assert all(found.mime_type and found.description for found in listed.resource_templates)
    assert len(listed.model_dump_json()) < 3000


# -- sessions and workflows ------------------------------------------------------------------------


async def test_a_session_reads_as_bilt_get_session_answers_it(agent: Agent, hand: Hand) -> None:
    session_id, _ = await agent.start()
    uri = f"bilt://sessions/{session_id}"
    assert await text(agent.client, uri) == await agent.text("bilt_get_session")
    await hand.complete(await hand.claim())
    assert await text(agent.client, uri) == await agent.text("bilt_get_session")
    upper = f"bilt://sessions/{session_id.upper()}"
    assert await told(agent.client, upper) == await agent.call("bilt_get_session")


async def test_a_workflow_tells_what_each_step_did_and_how_it_ended(
    agent: Agent, hand: Hand, place: Place
) -> None:
    place.workflow(DEPLOYING)
    session_id, workflow_id = await agent.start()
    uri = f"bilt://workflows/{workflow_id}"
    found = await told(agent.client, uri)
    assert (found["status"], found["session_id"]) == ("pending", session_id)
    assert [step["outcome"] for step in found["steps"]] == ["not_started", "not_started"]
    claim = await hand.claim()
    await hand.do_step(claim)
    await hand.store.advance(claim, 2)
    await hand.pause(replace(claim, position=2), "Ship?")
    found = await told(agent.client, uri)
    build, ship = found["steps"]
    assert (build["name"], build["outcome"], build["exit_code"]) == ("build", "succeeded", 0)
    assert build["started_at"] <= build["finished_at"]
    assert build["log"] == f"{uri}/steps/build/log"
    assert (ship["deploy"], ship["log"]) == (True, None)
    assert [entry["action"] for entry in found["decisions"]] == ["start"]
    await agent.call("bilt_cancel_workflow", session_id=session_id, reason="enough")
    found = await told(agent.client, uri)
    assert (found["status"], found["deploy"]) == ("cancelled", "not_started")
    assert found["cancel"]["reason"] == "enough"
    assert found["cancel"]["stopped"]["verified"] is True
    (start, cancel) = found["decisions"]
    assert start["at"] <= cancel["at"]
    assert {**cancel, "at": ""} == {
        "at": "",
        "action": "cancel",
        "client": "by-hand 1",
        "surface": "mcp",
        "principal": "local",
        "reason": "enough",
    }
    assert found["session"] == f"bilt://sessions/{session_id}"


async def test_a_failed_workflow_says_why(agent: Agent, hand: Hand) -> None:
    _, workflow_id = await agent.start()
    claim = await hand.claim()
    await hand.begin(claim)
    running = await told(agent.client, f"bilt://workflows/{workflow_id}")
    assert running["steps"][0]["outcome"] == "running"
    assert running["progress"]["elapsed_seconds"] >= 0
    await hand.fail(claim)
    found = await told(agent.client, f"bilt://workflows/{workflow_id}")
    assert found["failure"] == {
        "code": "step_failed",
        "step": "build",
        "exit_code": 3,
        "message": "Step build ended with 3.",
    }
    session = await agent.call("bilt_get_session")
    assert session["failure"] == found["failure"]


async def test_what_is_foreign_unknown_or_gone_is_told_in_the_same_words(
    agent: Agent, hand: Hand, place: Place
) -> None:
    session_id, workflow_id = await agent.start()
    claim = await hand.claim()
    await hand.do_step(claim)
    await hand.complete(claim)
    paths = ["", "/steps/build/log", "/artifacts", "/artifacts/x.txt"]
    unknown = ""
    async with agent_at(place, "somebody else") as other:
        for name, mine in (("sessions", session_id), ("workflows", workflow_id)):
            for path in paths if name == "workflows" else [""]:
                foreign = await refusal(other.client, f"bilt://{name}/{mine}{path}")
                unknown = await refusal(other.client, f"bilt://{name}/{UNKNOWN}{path}")
                assert foreign == unknown
        assert (await other.client.list_resources()).resources == []
    assert await hand.store.hide_old(hand.epoch, 2**60) == 1
    while await hand.store.delete_hidden(hand.epoch):
        pass
    for path in paths:
        assert await refusal(agent.client, f"bilt://workflows/{workflow_id}{path}") == unknown


async def test_the_list_is_short_and_makes_nothing(agent: Agent, hand: Hand, place: Place) -> None:
    assert (await agent.client.list_resources()).resources == []
    assert place.count("session") == 0
    place.workflow("".join(f'[[step]]\nname = "step {n}"\nrun = "true"\n' for n in range(100)))
    session_id, workflow_id = await agent.start()
    listed = [found.uri for found in (await agent.client.list_resources()).resources]
    assert listed == [f"bilt://sessions/{session_id}", f"bilt://workflows/{workflow_id}"]
    await hand.do_step(await hand.claim())
    listed = [found.uri for found in (await agent.client.list_resources()).resources]
    assert listed[2:] == [f"bilt://workflows/{workflow_id}/steps/step%200/log"]
    for uri in listed[:2]:
        await text(agent.client, uri)


# -- logs ------------------------------------------------------------------------------------------


async def test_the_log_of_a_running_step_is_read_as_far_as_it_is_and_then_on(
    tmp_path: Path,
) -> None:
    async with build_in(tmp_path, {"TOKEN": SECRET}) as build, client_of(build) as client:
        gate = Gate(build)
        build.declare(
            '[[step]]\nname = "say"\nsecrets = ["TOKEN"]\nrun = \'\'\'\n'
            "for n in 1 2 3; do echo line $n $TOKEN; done; printf half; touch said\n"
            "read x < gate; echo; echo end\n'''\n"
        )
        workflow_id = await build.start()
        said = Path(build.project.root) / "said"
        await wait_until(said.exists, "it has spoken")
        uri = f"bilt://workflows/{workflow_id}/steps/say/log"
        await build.says("line 3")
        first = await text(client, uri)
        lines = "".join(f"line {n} [redacted]\n" for n in (1, 2, 3))
        assert first == f"{lines}[lines 1 to 3 of 3; go on at {uri}?from=4]\n"
        assert await text(client, f"{uri}?from=4") == (
            f"[nothing after line 3; go on at {uri}?from=4]\n"
        )
        await gate.open()
        await build.ended()
        for _ in range(2):  # before its log is made safe, or after
            assert (
                await text(client, f"{uri}?from=4") == "half\nend\n[lines 4 to 5 of 5; the end]\n"
            )
            assert await text(client, uri) == f"{lines}half\nend\n"
            await settled(build, workflow_id)
        found = await contents(client, f"{uri}?from=-1")
        assert found.meta == {"firstLine": 5, "lastLine": 5, "totalLines": 5}


async def test_a_flood_is_read_in_bounded_answers_that_follow_each_other(tmp_path: Path) -> None:
    async with build_in(tmp_path) as build, client_of(build) as client:
        build.declare(
            '[[step]]\nname = "flood"\nrun = "i=0; while [ $i -lt 9000 ]; do echo line $i of a flood; '
            'i=$((i+1)); done"\n'
        )
        workflow_id = await build.start()
        await build.ended()
        uri: str | None = f"bilt://workflows/{workflow_id}/steps/1/log"
        got = ""
        answers = 0
        while uri is not None:
            found = await contents(client, uri)
            assert isinstance(found, TextResourceContents)
            assert len(found.text) < 51_000
            assert found.meta is not None
            got += found.text[: found.text.rfind("\n[lines ") + 1] or found.text
            uri = found.meta.get("next")
            answers += 1
        assert got == "".join(f"line {n} of a flood\n" for n in range(9000))
        assert answers == 4


async def test_each_attempt_has_its_log_and_the_newest_is_the_default(tmp_path: Path) -> None:
    async with build_in(tmp_path) as build, client_of(build) as client:
        build.declare(
            '[[step]]\nname = "try it"\nretries = 1\nrun = "if [ -e once ]; then echo second; else touch once; '
            'echo first; exit 3; fi"\n'
        )
        workflow_id = await build.start()
        await build.ended()
        uri = f"bilt://workflows/{workflow_id}/steps/try%20it/log"
        assert await text(client, uri) == "second\n"
        assert await text(client, f"{uri}?attempt=1") == "first\n"
        assert "no such step" in await refusal(client, f"{uri}?attempt=3")
        assert "no such step" in await refusal(client, uri.replace("try", "cry"))
        (step,) = (await told(client, f"bilt://workflows/{workflow_id}"))["steps"]
        assert (step["attempts"], step["outcome"]) == (2, "succeeded")


async def test_a_raw_log_whose_secrets_are_forgotten_is_not_shown(tmp_path: Path) -> None:
    async with build_in(tmp_path, {"TOKEN": SECRET}) as build, client_of(build) as client:
        build.declare('[[step]]\nname = "say"\nsecrets = ["TOKEN"]\nrun = "echo $TOKEN"\n')
        workflow_id = await build.start()
        await build.ended()
        await settled(build, workflow_id)
        folder = build.location.run(workflow_id)
        (folder / "01.1.head").write_text(f"{SECRET}\n")
        uri = f"bilt://workflows/{workflow_id}/steps/say/log"
        assert "made safe" in await refusal(client, uri)
        (folder / "01.1.head").unlink()
        (folder / "01.1.log").unlink()
        (folder / "01.1.log").symlink_to(build.location.worker_log)
        assert "not kept" in await refusal(client, uri)


async def test_what_is_deleted_while_it_is_read_is_not_found(tmp_path: Path) -> None:
    location = StoreLocation.of(tmp_path / "store")
    async with SqliteStore(location):
        folder = RunFolder(location, UNKNOWN)
        folder.create({}, [])
        os.rmdir(folder.path)
    async with build_in(tmp_path) as build, client_of(build) as client:
        build.declare('[[step]]\nname = "make"\nrun = "echo said"\n')
        workflow_id = await build.start()
        await build.ended()
        await settled(build, workflow_id)
        uri = f"bilt://workflows/{workflow_id}"
        assert await text(client, f"{uri}/steps/make/log") == "said\n"
        for path in build.location.run(workflow_id).iterdir():
            if path.is_file():
                path.unlink()
        assert "not kept" in await refusal(client, f"{uri}/steps/make/log")
        assert (await told(client, uri))["status"] == "completed"


async def test_a_broken_store_is_an_error_of_the_server_and_not_of_the_address(
    agent: Agent, hand: Hand, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    session_id = await agent.session_id()
    from bilt_mcp.state import StoreUnavailable

    async def fail(*_: object) -> None:
        raise StoreUnavailable("The disk is on fire.")

    monkeypatch.setattr(SqliteStore, "session", fail)
    with pytest.raises(MCPError) as refused:
        await agent.client.read_resource(f"bilt://sessions/{session_id}")
    assert refused.value.error.code == -32603
    assert "on fire" in refused.value.error.message
    await anyio.lowlevel.checkpoint()
