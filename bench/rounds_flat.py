"""Row 5, too: what a long history costs whoever reads it, looks at its session, or looks for work."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bilt_mcp.state import MessageQuery, Plan, PlannedStep, SqliteStore, StoreLocation

from .figures import Row, Target, percentile, rounds
from .kernel import MS, now

ACCOUNT = "local"
FEW = 1_000
WORKFLOWS = 4
"""Of the session that is read."""
CONTENT = "[build] compiled src/components/Basket.tsx in 41 ms, 3 warnings, 0 errors, file "

Ask = Callable[[SqliteStore], Awaitable[object]]


@dataclass(frozen=True)
class History:
    """A session with so many messages, every fourth an error, in a store with a tenth as many sessions."""

    location: StoreLocation
    messages: int
    session_id: str
    workflow_id: str
    """The third of its four."""

    def asked(self) -> Mapping[str, tuple[str, Ask]]:
        """What is asked of it: the name of the row, the words for it, and the call."""
        middle = self.messages * 11 // 20  # every eleventh id is another session's
        return {
            "page": ("page of 50", self._page()),
            "page errors": ("errors", self._page(variant="error")),
            "page workflow": ("a workflow's", self._page(workflow_id=self.workflow_id)),
            "page both": (
                "a workflow's errors",
                self._page(variant="error", workflow_id=self.workflow_id),
            ),
            "page text": ("those with a text", self._page(text="COMPILED src")),
            "page no text": ("those with a text that none has", self._page(text="nowhere")),
            "page all": (
                "a workflow's errors with a text",
                self._page(variant="error", workflow_id=self.workflow_id, text="COMPILED src"),
            ),
            "page after": ("after the middle", self._page(after=middle)),
            "page offset": ("behind nine tenths", self._page(offset=self.messages * 9 // 10)),
            "page offset errors": (
                "errors behind three quarters of them",
                self._page(variant="error", offset=self.messages * 3 // 16),
            ),
            "status": ("status of a session", lambda s: s.session(ACCOUNT, self.session_id)),
            "total": ("total", self._page(limit=1)),
            "look": ("a worker's look for work", lambda s: s.claim(0)),
        }

    def _page(self, **query: object) -> Ask:
        asked = MessageQuery(**query)  # type: ignore[arg-type]
        return lambda store: store.messages(ACCOUNT, self.session_id, asked)


async def measure_flat(folder: Path, count: int, many: int) -> list[Row]:
    """What a caller, and the worker at every look, asks of a long history and of a short one, in turns."""
    few, much = [await _history(folder, size) for size in (FEW, many)]
    rows: list[Row] = []
    async with SqliteStore(few.location) as short, SqliteStore(much.location) as long:
        for name, (what, ask) in much.asked().items():
            _, ask_few = few.asked()[name]
            row = Row(
                name,
                f"{what}, of {many:,} messages among {many // 10:,} sessions",
                f"the same of {FEW:,} among {FEW // 10:,}: how history slows it down",
                target=Target(ratio=1.2),
            )
            for number in rounds(row.what, count):
                for ours in (True, False) if number % 2 else (False, True):
                    began = now()
                    await (ask(long) if ours else ask_few(short))
                    (row.ours if ours else row.floor).append((now() - began) / MS)
            row.counts["x p95"] = percentile(row.ours, 95) / percentile(row.floor, 95)
            rows.append(row)
    return rows


async def _history(folder: Path, messages: int) -> History:
    location = StoreLocation.of(folder / f"store-of-{messages}")
    async with SqliteStore(location) as store:
        project = await store.open_project(ACCOUNT, str(folder), "history")
        session = await store.latest_session(ACCOUNT, project.id)
        await store.start(ACCOUNT, session.id, "build", Plan((PlannedStep("build", {}),)))
    with contextlib.closing(sqlite3.connect(location.database)) as database, database:
        database.execute("PRAGMA synchronous = OFF")
        database.execute("UPDATE workflow SET status = 'running', started_at = 1")
        database.execute("UPDATE workflow SET status = 'completed', finished_at = 1")
        for table, of, more in (
            ("session", "", messages // 10),
            # The first session's are the first four.
            ("workflow", f"max(1, i - {WORKFLOWS - 1})", messages // 10 + WORKFLOWS - 1),
        ):
            names = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
            same = ", ".join(name for name in names if name not in {"n", "id", of and "session"})
            database.execute(
                f"""INSERT INTO {table} (id, {of and "session,"} {same})
                    WITH RECURSIVE more (i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM more WHERE i < ?)
                    SELECT lower(hex(randomblob(16))), {of and f"{of},"} {same} FROM more, {table} WHERE n = 1""",
                (more,),
            )
        database.execute("DELETE FROM message")
        database.execute(_MESSAGES, {"messages": messages, "content": CONTENT})
        (workflow_id,) = database.execute("SELECT id FROM workflow WHERE n = 3").fetchone()
    return History(location, messages, session.id, workflow_id)


_MESSAGES = f"""
    INSERT INTO message (id, ordinal, nth, session, workflow, step, side, variant, content, created_at)
    WITH RECURSIVE
        ids (id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM ids WHERE id < :messages * 11 / 10),
        own (id, ordinal, workflow, begins) AS (
            SELECT id, o, 1 + (o - 1) * {WORKFLOWS} / :messages, o % (:messages / {WORKFLOWS}) = 1
            FROM (SELECT id, id - id / 11 AS o FROM ids WHERE id % 11))
    SELECT id, ordinal,
           CASE WHEN ordinal % 4 = 0 THEN ordinal / 4 WHEN begins THEN workflow
                ELSE ordinal - ordinal / 4 - workflow END,
           1, workflow, 'build', iif(begins, 'user', 'ai'),
           CASE WHEN ordinal % 4 = 0 THEN 'error' WHEN begins THEN 'info' ELSE 'log' END,
           :content || ordinal, 0
    FROM own
    UNION ALL
    SELECT id, 1, 1, 1 + id / 11, {WORKFLOWS} + id / 11, 'build', 'user', 'info', :content, 0
    FROM ids WHERE id % 11 = 0 AND id / 11 < :messages / 10"""
