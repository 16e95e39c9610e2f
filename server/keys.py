"""`bilt-mcp keys`: who may use the store over HTTP.

A key is printed once, alone on standard output, so that it can be sent on without being seen; all else that is said
goes to standard error. It is kept as its SHA-256, and never stands in an argument, a log or an error.
"""

from __future__ import annotations

import json
import os
import re
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

from bilt_mcp.state import (
    KEY_PREFIX,
    Account,
    ApiKey,
    BiltError,
    SqliteAccess,
    SqliteStore,
    StoreLocation,
    digest_of,
    iso,
    iso_or_none,
    new_key,
)

from .config import Config

_ACCOUNT = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
_COLUMNS = ("name", "account", "project", "may", "key", "created", "last used (UTC)", "state", "id")


class _Wrong(Exception):
    """An argument that cannot be used; the text says why."""


async def keys(config: Config, given: Namespace) -> int:
    """Do what `given.keys_command` says: create, list or revoke. Returns the program's exit code."""
    location = StoreLocation.of(config.store)
    try:
        if given.keys_command == "create":
            return await _create(location, given)
        async with SqliteAccess(location) as access:
            if given.keys_command == "list":
                _show(await access.keys(), as_json=given.json)
                return 0
            revoked = await access.revoke_key(_checked(given.key))
            _say(
                f"Key {revoked.name} ({revoked.shown}…) is revoked, and whoever logged in with it."
            )
            return 0
    except _Wrong as wrong:
        _say(f"bilt-mcp: {wrong}")
        return 2
    except BiltError as error:
        _say(f"bilt-mcp: {error.error}: {error.message}")
        return 1


async def _create(location: StoreLocation, given: Namespace) -> int:
    name = _checked(given.name)
    if not _NAME.fullmatch(name) or _is_id(name):
        raise _Wrong("a key's name has 1 to 64 letters, digits, dots, hyphens and underscores")
    if not _ACCOUNT.fullmatch(given.account):
        raise _Wrong("an account has 1 to 64 letters, digits, hyphens and underscores")
    account = Account(given.account)
    if given.limit is not None:
        account = Account(account, await _project_id(location, account, given.limit))
    async with SqliteAccess(location) as access:
        secret, shown = new_key()
        key = await access.create_key(
            name, account, digest_of(secret), shown, read_only=given.read_only
        )
        if not _hand_over(secret):
            await access.revoke_key(key.id)  # nobody has it
            _say("bilt-mcp: the key could not be printed, so none was made")
            return 1
    where = "its projects" if account.project_id is None else f"project {account.project_id}"
    may = "read" if key.read_only else "do everything in"
    _say(
        f"Key {name} may {may} {where}, account {account}. It is not shown again.\n"
        f"Revoke it with: bilt-mcp keys revoke {name}"
    )
    return 0


async def _project_id(location: StoreLocation, account: Account, given: str) -> str:
    """A project of the account, by its id or its folder."""
    async with SqliteStore(location) as store:
        if _is_id(given):
            return (await store.project(account, given.lower())).id
        root = _folder(given)
        return (await store.open_project(account, str(root), root.name or "root")).id


def _hand_over(secret: str) -> bool:
    """Print it; False when that cannot be done."""
    if sys.stdout is None:  # pyright: ignore[reportUnnecessaryComparison] - it was closed
        return False
    try:
        print(secret, flush=True)
    except OSError:
        # What is left in the buffer is not to be tried again at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


def _folder(given: str) -> Path:
    try:
        if not given:
            raise ValueError
        root = Path(given).expanduser().resolve()
        str(root).encode()
        if root.is_dir():
            return root
    except (OSError, RuntimeError, ValueError):
        pass
    raise _Wrong("--project is neither a folder nor the id of a project")


def _checked(name: str) -> str:
    if name.startswith(KEY_PREFIX):
        raise _Wrong("this is a key, and now others may have seen it: name it by its name or id")
    return name


def _is_id(text: str) -> bool:
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False


def _show(found: Sequence[ApiKey], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([_fields(key) for key in found], indent=2))
    elif not found:
        _say("There are no keys. Make one with: bilt-mcp keys create NAME")
    else:
        _print_table([_row(key) for key in found])


def _fields(key: ApiKey) -> dict[str, str | bool | None]:
    return {
        "id": key.id,
        "name": key.name,
        "account": str(key.account),
        "project_id": key.account.project_id,
        "read_only": key.read_only,
        "shown": key.shown,
        "created_at": iso(key.created_at),
        "last_used_at": iso_or_none(key.last_used_at),
        "revoked_at": iso_or_none(key.revoked_at),
    }


def _row(key: ApiKey) -> tuple[str, ...]:
    return (
        key.name,
        str(key.account),
        key.account.project_id or "all",
        "read" if key.read_only else "everything",
        f"{key.shown}…",
        iso(key.created_at)[:10],
        "never" if key.last_used_at is None else iso(key.last_used_at)[:16].replace("T", " "),
        "in use" if key.revoked_at is None else f"revoked {iso(key.revoked_at)[:10]}",
        key.id,
    )


def _print_table(rows: Sequence[tuple[str, ...]]) -> None:
    lines = [_COLUMNS, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(map(str.ljust, line, widths)).rstrip())


def _say(text: str) -> None:
    print(text, file=sys.stderr)
