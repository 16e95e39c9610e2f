"""`bilt-mcp keys`, as a person types it."""

from __future__ import annotations

import io
import json
import re
import subprocess
from collections.abc import Generator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import anyio
import pytest

from bilt_mcp.server.command import run
from bilt_mcp.state import (
    Account,
    ApiKey,
    Project,
    SqliteAccess,
    SqliteStore,
    StoreLocation,
    digest_of,
)

from .support.places import Place, open_place
from .support.rpc import command


@pytest.fixture
def place(tmp_path: Path) -> Generator[Place]:
    with open_place(tmp_path) as opened:
        yield opened


def keys(place: Place, *arguments: str) -> subprocess.CompletedProcess[str]:
    """In this process, which is some seconds quicker for all of them together."""
    argv = ["keys", *arguments, "--store", str(place.store)]
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        try:
            code = run(argv)
        except SystemExit as usage:
            code = int(usage.code or 0)
    return subprocess.CompletedProcess(argv, code, out.getvalue(), err.getvalue())


def said(place: Place, *arguments: str) -> str:
    """What a command that succeeds prints on standard output."""
    done = keys(place, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def admitted(place: Place, secret: str) -> ApiKey | None:
    async def ask() -> ApiKey | None:
        async with SqliteAccess(StoreLocation.of(place.store)) as access:
            found = await access.admit(digest_of(secret), 0)
            return None if found is None else found.key

    return anyio.run(ask)


def project_of(place: Place, account: Account) -> Project:
    async def ask() -> Project:
        async with SqliteStore(StoreLocation.of(place.store)) as store:
            return await store.project(account, account.project_id or "")

    return anyio.run(ask)


def test_a_new_key_stands_alone_on_standard_output_and_is_good(place: Place) -> None:
    done = keys(place, "create", "ci")
    assert done.returncode == 0
    assert re.fullmatch(r"bilt_live_[A-Za-z0-9_-]{43}\n", done.stdout)
    secret = done.stdout.strip()
    assert secret[16:] not in done.stderr
    assert "keys revoke ci" in done.stderr
    key = admitted(place, secret)
    assert key is not None
    assert (key.name, key.account, key.account.project_id) == ("ci", "local", None)
    assert not key.read_only
    assert secret.startswith(key.shown)


def test_a_key_may_be_for_one_project_of_an_account_and_for_reading_only(
    place: Place,
) -> None:
    folder = said(
        place, "create", "a", "--account", "team-1", "--read-only", "--project", str(place.project)
    )
    of_folder = admitted(place, folder.strip())
    assert of_folder is not None
    assert of_folder.read_only
    assert of_folder.account == "team-1"
    assert of_folder.account.project_id is not None
    project = project_of(place, of_folder.account)
    assert project.root == str(place.project)
    by_id = said(place, "create", "b", "--account", "team-1", "--project", project.id.upper())
    of_id = admitted(place, by_id.strip())
    assert of_id is not None
    assert of_id.account.project_id == project.id
    foreign = keys(place, "create", "c", "--project", project.id)
    assert (foreign.returncode, foreign.stdout) == (1, "")
    assert "Project not found" in foreign.stderr


def test_a_list_shows_all_keys_and_no_secret(place: Place) -> None:
    secrets = [said(place, "create", name).strip() for name in ("first", "second")]
    said(place, "revoke", "first")
    admitted(place, secrets[1])
    table = said(place, "list").splitlines()
    assert [line.split()[0] for line in table] == ["name", "first", "second"]
    assert "revoked" in table[1]
    assert "in use" in table[2]
    listed = said(place, "list", "--json")
    found = json.loads(listed)
    assert [key["name"] for key in found] == ["first", "second"]
    assert [key["revoked_at"] is None for key in found] == [False, True]
    assert [key["last_used_at"] is None for key in found] == [True, False]
    assert all(found[0][field] is not None for field in ("id", "account", "shown", "created_at"))
    for secret in secrets:
        assert secret[16:] not in "\n".join(table) + listed


def test_a_revoked_key_is_not_good_any_more(place: Place) -> None:
    secret = said(place, "create", "ci").strip()
    done = keys(place, "revoke", "ci")
    assert (done.returncode, done.stdout) == (0, "")
    assert admitted(place, secret) is None
    again = keys(place, "revoke", "ci")
    assert again.returncode == 1
    assert "Key not found" in again.stderr


def test_a_name_that_is_taken_is_refused_and_nothing_is_printed_that_looks_like_a_key(
    place: Place,
) -> None:
    said(place, "create", "ci")
    again = keys(place, "create", "ci")
    assert (again.returncode, again.stdout) == (1, "")
    assert "Key already exists" in again.stderr


IMPOSSIBLE = [
    ("create", ""),
    ("create", "a b"),
    ("create", "7d3fcd2c-5b5f-4c5e-8a7b-0123456789ab"),
    ("create", "ok", "--account", "../up"),
    ("create", "ok", "--project", "no such folder"),
    ("create", "ok", "--project", ""),
    (),
]


def test_what_cannot_be_is_refused_in_a_sentence_and_makes_no_key(place: Place) -> None:
    for arguments in IMPOSSIBLE:
        done = keys(place, *arguments)
        assert (done.returncode, done.stdout) == (2, ""), arguments
        assert "Traceback" not in done.stderr
    assert said(place, "list", "--json").strip() == "[]"


def test_a_key_given_as_an_argument_is_not_repeated(place: Place) -> None:
    secret = said(place, "create", "ci").strip()
    for arguments in (("revoke", secret), ("create", secret)):
        done = keys(place, *arguments)
        assert done.returncode == 2
        assert secret not in done.stdout + done.stderr


def test_a_project_that_stands_before_keys_is_not_taken_for_the_limit(place: Place) -> None:
    argv = command("--project", str(place.project), "keys", "create", "ci")
    done = subprocess.run(
        argv, env={**place.environ, "BILT_STORE": str(place.store)}, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "comes last" in done.stderr
    assert said(place, "list", "--json").strip() == "[]"


def test_the_store_may_be_named_before_keys_or_by_the_environment(place: Place) -> None:
    said(place, "create", "ci")
    before = command("--store", str(place.store), "keys", "list")
    done = subprocess.run(before, env=dict(place.environ), capture_output=True, text=True)
    assert "ci" in done.stdout
    environ = {**place.environ, "BILT_STORE": str(place.store)}
    done = subprocess.run(command("keys", "list"), env=environ, capture_output=True, text=True)
    assert "ci" in done.stdout


def test_a_key_that_could_not_be_printed_is_not_left_behind(place: Place) -> None:
    argv = command("keys", "create", "ci", "--store", str(place.store))
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            argv, env=dict(place.environ), stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1
    assert "none was made" in done.stderr
    closed = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *argv],
        env=dict(place.environ),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert closed.returncode == 1
    assert "Traceback" not in done.stderr
    assert "in use" not in said(place, "list")
