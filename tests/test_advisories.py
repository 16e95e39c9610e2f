"""The published advisories about MCP servers, one by one, tried on the real program where they can apply to it.

Those about HTTP have no place here: there is none. What another module proves already is named where it applies.
"""

from __future__ import annotations

import inspect
import json
import os
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bilt_mcp.state import SessionStore, WorkflowNotFound

from . import (
    test_store_accounts,
)
from .store_contract import ME, NOBODY_KNOWS, SOMEBODY_ELSE, Kind, Scene
from .support.places import Place, open_place
from .support.places import place as place  # a fixture
from .support.rpc import PATIENCE, STATELESS, Json, Server, handshake, request, structured
from .support.text import TOKENS, is_forbidden

SECRET = "s3cret-of-the-advisories-" + "x9" * 8
FINAL = {"completed", "failed", "cancelled"}

# The message as the steps meet it: in a shell command, in a list, and in a program's own arguments.
STEPS = """
[[step]]
name = "shell"
run = 'printf %s "$BILT_MESSAGE" > said.txt; cat "$BILT_MESSAGE_FILE" > file.txt'
[[step]]
name = "list"
run = ["sh", "-c", "tr '\\\\0' ' ' < /proc/$$/cmdline > argv.txt; tr '\\\\0' ' ' < /proc/$PPID/cmdline >> argv.txt"]
"""


@pytest.fixture
def server(place: Place) -> Iterator[Server]:
    with Server(place.arguments, place.environ) as found:
        yield found


def session_of(server: Server) -> str:
    return str(server.call("bilt_get_session")["session_id"])


def run(server: Server, message: str = "build", **arguments: Any) -> Json:
    """Start a workflow, and the session when it has ended."""
    session_id = session_of(server)
    started = server.call(
        "bilt_send_message",
        session_id=session_id,
        message=message,
        wait_for_response=True,
        **arguments,
    )
    assert "error" not in started, started
    found = server.call("bilt_get_session", session_id=session_id)
    assert found["status"] in FINAL
    return found


def contents(server: Server, **arguments: Any) -> list[str]:
    found = server.call(
        "bilt_get_messages", session_id=session_of(server), max_chars=50_000, **arguments
    )
    return [message["content"] for message in found["messages"]]


def peak_mib(server: Server) -> float:
    text = Path(f"/proc/{server.process.pid}/status").read_text("ascii")
    return int(text.partition("VmHWM:")[2].split()[0]) / 1024


# -- the stream --------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the most memory ever used")
def test_cve_2026_63119_a_line_of_64_mib_without_an_end_takes_bounded_memory(
    server: Server,
) -> None:
    """Of the reader alone `test_framing.py` proves it, of drawn lines `test_proof_inputs.py`."""
    session_of(server)
    before = peak_mib(server)
    piece = b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":"' + b"x" * (1 << 20)
    for _ in range(64):
        server.write(piece)
    # It has no end yet, and nobody waits for one: what was read is not kept.
    assert peak_mib(server) - before < 24
    server.write(b"\n")
    refused = server.next()
    assert (refused["id"], refused["error"]["code"]) == (None, -32600)
    assert session_of(server)
    assert peak_mib(server) - before < 24


@pytest.mark.parametrize("moment", ["before the handshake", "instead of it", "after it"])
def test_cve_2025_53365_and_53366_a_malformed_request_ends_nothing(
    place: Place, moment: str
) -> None:
    """Drawn requests are in `test_proof_inputs.py`, each kind of line in `test_stdio_lines.py`."""
    malformed = [
        request(71, "tools/call"),
        request(72, "tools/call", {"name": 5, "arguments": []}),
        request(73, "initialize", {"protocolVersion": {}}),
        request(74, "resources/read", {"uri": []}),
        b'{"jsonrpc":"2.0","id":75,"method":null,"params":[]}\n',
    ]
    with Server(place.arguments, place.environ, era=None) as server:
        if moment == "after it":
            server.write(handshake())
            assert "result" in server.answer(0)
        for number, line in enumerate(malformed, 71):
            server.write(line)
            assert server.answer(number)["error"]["code"] in (-32600, -32601, -32602)
        if moment == "before the handshake":
            server.write(handshake())
            assert "result" in server.answer(0)
        if moment != "instead of it":
            assert server.call("bilt_get_session")["status"] == "idle"
    assert server.exit_code() == 0
    assert b"Traceback" not in server.stderr


# -- commands and paths --------------------------------------------------------------------------------


def test_cve_2025_53107_54994_and_mcp05_no_text_of_a_caller_becomes_a_command(
    place: Place, server: Server
) -> None:
    """`test_worker.py` has one such message; here is the corpus, through every text that a caller gives."""
    place.workflow(STEPS)
    canary = place.project / "canary"
    evil = "".join(
        (
            *(f"; touch {canary}; $(touch {canary}) `touch {canary}` | touch {canary}", "\n"),
            *(f"touch {canary}\n& touch {canary} & || touch {canary}", f"' ; touch {canary} ; '"),
            *(f'" ; touch {canary} ; "', f" ${{IFS}}touch${{IFS}}{canary}", " > canary < canary"),
            *(
                "\\$(touch canary)",
                " {{7*7}} %(x)s ${x:-`touch canary`} <(touch canary) !!",
                "\r\t~*?",
            ),
        )
    )
    found = run(server, evil, idempotency_key=f"$(touch {canary})`touch canary`;touch canary")
    assert found["status"] == "completed", found
    for name in ("said.txt", "file.txt"):
        assert (place.project / name).read_text("utf-8", "strict").encode() == evil.encode() or (
            (place.project / name).read_bytes() == evil.encode()
        )
    # Not in the arguments of the step or of the keeper that started it, where any user of the machine could read.
    argv = (place.project / "argv.txt").read_text()
    assert "sh -c" in argv
    assert "touch" not in argv
    place.workflow('[[step]]\nname = "long"\nrun = "sleep 1000"\n')
    session_id = session_of(server)
    server.call("bilt_send_message", session_id=session_id, message=evil)
    gone = server.call("bilt_cancel_workflow", session_id=session_id, reason=evil[:500])
    assert gone["status"] == "cancelled"
    assert gone["stopped"]["verified"] is True
    assert not list(place.project.rglob("canary*"))
    assert not list(place.store.rglob("canary*"))


@pytest.mark.parametrize(
    "message", ["--help", "-rf /", "@/etc/passwd", "-", "--", "-c touch canary"]
)
def test_cve_2025_68144_a_message_that_looks_like_an_option_is_only_a_message(
    place: Place, server: Server, message: str
) -> None:
    place.workflow(STEPS)
    assert run(server, message)["status"] == "completed"
    assert (place.project / "said.txt").read_text() == message
    assert message not in (place.project / "argv.txt").read_text().split("sh -c")[0].split(" ")
    assert not (place.project / "canary").exists()


def test_cve_2025_68145_and_53109_a_link_out_of_the_project_is_no_folder_for_a_step(
    place: Place, server: Server, tmp_path: Path
) -> None:
    """`test_workflow_file.py` has the kinds of folders; here nothing is started, as the caller sees it."""
    beside = tmp_path / "project-beside"  # CVE-2025-53110: its path begins like the project's
    beside.mkdir()
    (place.project / "link").symlink_to(beside)
    for cwd in ("../project-beside", "link", "/tmp", "a/../../project-beside", "./.."):
        place.workflow(f'[[step]]\nname = "out"\nrun = "touch canary"\ncwd = "{cwd}"\n')
        refused = server.call("bilt_send_message", session_id=session_of(server), message="build")
        assert refused["error"] == "Invalid workflow file", (cwd, refused)
    assert not list(tmp_path.rglob("canary"))
    assert place.kept() == ([], [])


def test_cve_2025_53109_a_workflow_file_that_links_elsewhere_tells_nothing_of_what_is_there(
    place: Place, server: Server, tmp_path: Path
) -> None:
    private = tmp_path / "private"
    private.write_text(f"[project]\ntoken = {SECRET}\nroot:x:0:0 {SECRET}\n")
    file = place.project / "bilt.toml"
    file.unlink()
    file.symlink_to(private)
    refused = server.call("bilt_send_message", session_id=session_of(server), message="build")
    assert refused["error"] == "Invalid workflow file"
    assert SECRET not in json.dumps(refused)
    assert SECRET.encode() not in server.stderr


def test_symlinks_that_a_step_plants_lead_nothing_of_ours_astray(
    place: Place, server: Server, tmp_path: Path
) -> None:
    """The servers' v2.1.0 advisory: a link that appears between the check and the use."""
    target = tmp_path / "precious"
    target.write_text("precious")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "kept").write_text("kept")
    plant = "; ".join(
        (
            'd=$(dirname "$BILT_ARTIFACTS")',
            *(
                f'ln -s {target} "$d/0{n}.1.{kind}"'
                for n in (1, 2)
                for kind in ("log", "head", "tail")
            ),
            f'ln -s {folder} "$BILT_ARTIFACTS/out"; ln -sf {target} "$d/message.txt"; echo planted',
        )
    )
    place.workflow(
        f"[[step]]\nname = \"plant\"\nrun = '''{plant}'''\n"
        '[[step]]\nname = "after"\nrun = "echo more"\n'
    )
    found = run(server)
    assert found["status"] in FINAL
    assert target.read_text() == "precious"
    assert (folder / "kept").read_text() == "kept"
    assert sorted(path.name for path in folder.iterdir()) == ["kept"]
    assert not any("precious" in text for text in contents(server))
    place.workflow('[[step]]\nname = "build"\nrun = "echo built"\n')
    assert run(server)["status"] == "completed"


# -- what others on the machine can read ---------------------------------------------------------------


def test_cve_2026_77250_and_77268_nobody_else_can_read_the_store_and_no_secret_is_in_it(
    tmp_path: Path,
) -> None:
    """`test_worker.py` greps one store without the server; here is all of it, under the worst umask, by a link."""
    real = tmp_path / "real"
    real.mkdir()
    token = TOKENS["GitHub"]
    old = os.umask(0)
    try:
        with open_place(tmp_path, DEPLOY_KEY=SECRET, GITHUB_TOKEN=token) as place:
            place.store.symlink_to(real)
            place.workflow(
                '[[step]]\nname = "leaky"\nsecrets = ["DEPLOY_KEY"]\n'
                'run = "echo $DEPLOY_KEY; echo ${DEPLOY_KEY} >&2; echo $DEPLOY_KEY | base64; env"\n'
            )
            with Server(place.arguments, place.environ) as server:
                assert run(server)["status"] == "completed"
                told = contents(server)
                during = modes(real)
            assert server.stderr == b""
    finally:
        os.umask(old)
    assert any("[redacted]" in text for text in told)
    assert not any(SECRET in text or token in text for text in told)
    for found in (during, modes(real)):
        assert found
        assert {mode for is_folder, mode in found.values() if is_folder} == {0o700}, found
        assert {mode for is_folder, mode in found.values() if not is_folder} == {0o600}, found
    kept = [path for path in real.rglob("*") if path.is_file()]
    assert any(path.name.endswith(".log") for path in kept)
    for path in kept:
        assert SECRET.encode() not in path.read_bytes(), path
        assert token.encode() not in path.read_bytes(), path


def modes(folder: Path) -> dict[str, tuple[bool, int]]:
    """Whether each is a folder, and its permissions; but for what steps leave in their own folder."""
    found: dict[str, tuple[bool, int]] = {}
    for path in [folder, *folder.rglob("*")]:
        status = path.lstat()
        if "artifacts" not in path.parent.parts:
            found[str(path)] = stat.S_ISDIR(status.st_mode), stat.S_IMODE(status.st_mode)
    return found


@pytest.mark.anyio
async def test_cve_2026_52869_a_foreign_workflow_is_as_unknown_as_one_that_never_was(
    scene: Scene,
) -> None:
    mine = await scene.subject(Kind.RUNNING)
    told: set[str] = set()
    for account, workflow_id in ((SOMEBODY_ELSE, mine.workflow_id), (ME, NOBODY_KNOWS)):
        with pytest.raises(WorkflowNotFound) as refused:
            await scene.store.workflow(account, workflow_id)
        told.add(f"{refused.value.error} {refused.value.details}")
    assert len(told) == 1


def test_cve_2026_52870_and_52869_every_verb_that_takes_an_account_is_tried_with_a_foreign_one() -> (
    None
):
    """`test_store_accounts.py` tries them, cancel among them; this sees to it that it forgets none."""
    verbs = {
        name
        for name, verb in inspect.getmembers(SessionStore, inspect.isfunction)
        if "account" in inspect.signature(verb).parameters
    }
    tried = {name.partition(" ")[0] for name in test_store_accounts.CASES}
    missing = sorted(verbs - tried)
    assert verbs
    assert missing == []


# -- what comes out ------------------------------------------------------------------------------------


def test_kali_80_and_cwe_150_no_control_sequence_of_a_build_reaches_an_answer(
    place: Place, server: Server
) -> None:
    """The filter is fuzzed in `test_safe_text.py` and `test_output.py`; here are all the ways out of a build."""
    nasty = "\x1b[2J\x1b]0;owned\x07\x1b]52;c;ZXZpbA==\x07\x9b31m\x90q\x9c\u202eevil\u2066\u200b\U000e0041\x08\x00"
    (place.project / "nasty").write_bytes(nasty.encode() + b"\xff\xfe seen\n")
    commands = "cat nasty; cat nasty >&2; printf '::error::'; cat nasty; printf '::progress 5::'; cat nasty"
    place.workflow(f"[[step]]\nname = \"print\"\nrun = '''{commands}; exit 3'''\n")
    found = run(server)
    assert found["status"] == "failed"
    told = contents(server)
    assert any("seen" in text for text in told)
    for text in [*told, json.dumps(found, ensure_ascii=False)]:
        assert [hex(ord(char)) for char in text if is_forbidden(char)] == []
    for log in place.location.runs.rglob("*.log"):
        assert [hex(ord(char)) for char in log.read_text("utf-8") if is_forbidden(char)] == []


@pytest.mark.parametrize(
    "pattern", ["(a+)+$", "(a|aa)+b", "(|||||||||)" * 8 + "b", r"(\\w+\\s?)*!"]
)
def test_cve_2026_0621_a_catastrophic_when_ends_in_time_and_holds_up_nobody_else(
    place: Place, server: Server, pattern: str
) -> None:
    """The filters' own time is in `test_safe_text.py` and `test_output.py`; this is the project's own pattern."""
    place.workflow(f'[[step]]\nname = "trap"\nrun = "true"\nwhen = "{pattern}"\n')
    session_id = session_of(server)
    message = "a" * 4999 + "?"
    began = time.monotonic()
    asked = server.start_call("bilt_send_message", session_id=session_id, message=message)
    assert server.answer(server.send("ping"))["result"] == {}
    assert server.call("bilt_get_session", session_id=session_id)["status"] == "idle"
    meanwhile = time.monotonic() - began
    refused = structured(server.answer(asked))
    took = time.monotonic() - began
    assert refused["error"] in ("Invalid workflow file", "No workflow configured"), refused
    assert meanwhile < took or took < 1
    assert took < PATIENCE / 2


def test_both_eras_are_alive_after_all_that(place: Place) -> None:
    with Server(place.arguments, place.environ, era=STATELESS) as server:
        assert server.call("bilt_get_session")["status"] == "idle"
