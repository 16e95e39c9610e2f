"""The numbers that messages have: in stores of an earlier schema, after a kill on the way, and beside older code."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from bilt_mcp.state import MessageQuery, Note, SqliteStore, StoreLocation, Variant
from bilt_mcp.state.migrate import migrations, statements

from .store_contract import ME, PLAN, PROCESS
from .test_store_pages import VARIANTS, Told, agree

RANKS = 5
"""The migration that numbers messages by their variant."""
(SCRIPT,) = (script for number, script in migrations() if number == RANKS)

KILLED = """
import asyncio, os, sys
from bilt_mcp.state import SqliteStore, StoreLocation, migrate
split = migrate.statements
def until(script):
    for number, statement in enumerate(split(script)):
        if "nth" in script and number == int(sys.argv[2]):
            os._exit(9)
        yield statement
migrate.statements = until
asyncio.run(SqliteStore(StoreLocation.of(sys.argv[1])).__aenter__())
"""


def older(folder: Path, schema: int, messages: int = 300) -> tuple[StoreLocation, list[list[Told]]]:
    """A store of that schema with two sessions of two workflows each, and what each session was told."""
    location = StoreLocation.of(folder)
    location.prepare()
    random, told = Random(schema), [list[Told](), list[Told]()]
    with contextlib.closing(sqlite3.connect(location.database)) as database, database:
        for number, script in migrations():
            if number <= schema:
                database.executescript(script)
        database.execute(f"PRAGMA user_version = {schema}")
        database.execute(
            """INSERT INTO project (id, account, root, name, created_at, updated_at)
               VALUES ('p', ?, '/srv/shop', 'shop', 1, 1)""",
            (ME,),
        )
        for n in (1, 2):
            database.execute(
                """INSERT INTO session (id, account, project, created_at, updated_at)
                   VALUES (?, ?, 1, 1, 1)""",
                (f"s{n}", ME),
            )
        for part in range(2):
            for n in (1, 2):
                database.execute(
                    """INSERT INTO workflow (id, session, project, status, message, plan, total_steps, created_at,
                                             started_at, finished_at)
                       VALUES (?, ?, 1, 'completed', 'go', '{}', 1, 1, 1, 1)""",
                    (f"w{n}.{part}", n),
                )
                say(database, told[n - 1], n, f"w{n}.{part}", "info", "user")
            for _ in range(messages // 2):
                n = random.choice([1, 2])
                say(database, told[n - 1], n, f"w{n}.{part}", random.choice(VARIANTS))
    return location, told


def say(
    database: sqlite3.Connection,
    told: list[Told],
    session: int,
    workflow: str,
    variant: Variant,
    side: str = "ai",
) -> None:
    """Write a message as code did that knew no number but the first."""
    content = f"{variant} number {len(told) + 1}"
    (id_,) = database.execute(
        """INSERT INTO message (ordinal, session, workflow, step, side, variant, content, created_at)
           SELECT ?, ?, n, 'build', ?, ?, ?, 1 FROM workflow WHERE id = ? RETURNING id""",
        (len(told) + 1, session, side, variant, content, workflow),
    ).fetchone()
    told.append(Told(id_, variant, content, workflow))


async def agrees(location: StoreLocation, told: list[list[Told]]) -> None:
    """Whether totals, and the pages at both ends and in the middle, are those of plain lists."""
    async with SqliteStore(location) as store:
        for n, one in enumerate(told, 1):
            for variant in (None, *VARIANTS):
                for workflow in (None, f"w{n}.0", f"w{n}.1"):
                    query = MessageQuery(limit=7, variant=variant, workflow_id=workflow)
                    middle = one[len(one) // 2].id
                    await agree(store, f"s{n}", one, query)
                    await agree(store, f"s{n}", one, replace(query, offset=11))
                    await agree(store, f"s{n}", one, replace(query, after=middle))
                    await agree(store, f"s{n}", one, replace(query, before=middle))


@pytest.mark.anyio
@pytest.mark.parametrize("schema", range(1, RANKS))
async def test_messages_of_every_earlier_schema_get_their_numbers(
    tmp_path: Path, schema: int
) -> None:
    location, told = older(tmp_path / "store", schema)
    await agrees(location, told)
    with contextlib.closing(sqlite3.connect(location.database)) as database:
        wrong = database.execute(
            """SELECT count(*) FROM message AS m WHERE nth IS NOT (
                   SELECT count(*) FROM message AS o
                   WHERE o.session = m.session AND o.variant = m.variant AND o.id <= m.id)"""
        )
        assert wrong.fetchone() == (0,)


@pytest.mark.parametrize("statement", range(len(list(statements(SCRIPT)))))
def test_a_kill_while_messages_are_numbered_costs_nothing_but_the_time(
    tmp_path: Path, statement: int
) -> None:
    location, told = older(tmp_path / "store", RANKS - 1)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(location.folder), str(statement)], check=False
    )
    assert killed.returncode == 9
    with contextlib.closing(sqlite3.connect(location.database)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (RANKS - 1,)
    asyncio.run(agrees(location, told))


@pytest.mark.anyio
async def test_what_older_code_still_writes_is_counted_and_what_comes_then_goes_on_from_there(
    tmp_path: Path,
) -> None:
    location, told = older(tmp_path / "store", RANKS - 1, messages=40)
    async with SqliteStore(location):
        pass
    with contextlib.closing(sqlite3.connect(location.database)) as database, database:
        for variant in (*VARIANTS, *VARIANTS):
            say(database, told[0], 1, "w1.1", variant)
    await agrees(location, told)
    async with SqliteStore(location) as store:
        epoch = await store.take_over(PROCESS, "1")
        await store.start(ME, "s1", "again", PLAN)
        claim = await store.claim(epoch)
        assert claim is not None
        await store.note(claim, [Note("more", variant) for variant in (*VARIANTS, *VARIANTS)])
        page = await store.messages(ME, "s1", MessageQuery(limit=10**6, after=told[0][-1].id))
    told[0] += [Told(m.id, m.variant, m.content, m.workflow_id or "") for m in page.messages]
    assert len(page.messages) == 10
    await agrees(location, told)
