"""The store on SQLite: projects, and the audit of what was decided."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from uuid import UUID, uuid4, uuid5

from .access import limited_to
from .driver import sqlite3
from .errors import PermissionDenied, ProjectAlreadyExists, RateLimitExceeded
from .models import AuditEntry, Caller, Project, Visibility
from .sqlite_base import Row, one
from .sqlite_lookup import project_row, session_row, whose
from .sqlite_rows import audit_of, project_of
from .sqlite_writes import SharedWrites

MOST_PROJECTS = 200
"""How many are listed."""
CREATED_AN_HOUR = 10
HOUR_MS = 3_600_000
_BY_KEY = UUID("6d0e31a5-6b0b-4c5f-9a57-0a1c3e5f7d42")


class ProjectVerbs(SharedWrites):
    """A part of `SessionStore`, whose docstrings are the contract."""

    async def open_project(self, account: str, root: str, name: str) -> Project:
        """See `SessionStore.open_project`."""
        found = await self._read(
            lambda c: one(
                c,
                """SELECT * FROM project WHERE account = :account AND root = :root
                   AND (:only IS NULL OR id = :only)""",
                **whose(account),
                root=root,
            )
        )
        if found is None:
            _refuse_limited(account)
            found = await self._write(lambda c: self._insert_project(c, account, root, name))
        return project_of(found)

    async def project(self, account: str, project_id: str) -> Project:
        """See `SessionStore.project`."""
        return project_of(await self._read(lambda c: project_row(c, account, project_id)))

    async def projects(self, account: str, after: str | None = None) -> Sequence[Project]:
        """See `SessionStore.projects`."""
        sql = f"""SELECT * FROM project WHERE account = :account AND (:only IS NULL OR id = :only) AND n < :before
                  ORDER BY n DESC LIMIT {MOST_PROJECTS}"""

        def look(c: sqlite3.Connection) -> list[Row]:
            before = 1 << 62 if after is None else project_row(c, account, after)["n"]
            return c.execute(sql, {**whose(account), "before": before}).fetchall()

        return [project_of(row) for row in await self._read(look)]

    async def create_project(
        self,
        account: str,
        root: str,
        name: str,
        by: Caller,
        make: Callable[[], None],
        *,
        description: str = "",
        visibility: Visibility = "public",
        key: str | None = None,
    ) -> Project:
        """See `SessionStore.create_project`."""
        _refuse_limited(account)
        # Made of the key, so that a request that comes again knows what it made.
        project_id = str(uuid4() if key is None else uuid5(_BY_KEY, f"{account} {key}"))

        def create(c: sqlite3.Connection) -> Row:
            taken = one(
                c,
                "SELECT * FROM project WHERE account = :a AND (name = :name OR root = :root)",
                a=account,
                name=name,
                root=root,
            )
            if taken is not None and taken["id"] == project_id:
                return taken
            if taken is not None:
                raise ProjectAlreadyExists(
                    f"There is a project {name} already. Choose another name, or find it with bilt_list_projects."
                )
            self._refuse_too_many(c, account)
            row = self._insert_project(c, account, root, name, description, visibility, project_id)
            c.execute(
                """INSERT INTO audit (at, account, action, project, principal, client, surface)
                   VALUES (?, ?, 'create_project', ?, ?, ?, ?)""",
                (
                    self._clock.now(),
                    account,
                    row["n"],
                    by.principal or account,
                    by.client,
                    by.surface,
                ),
            )
            make()
            return row

        return project_of(await self._write(create))

    def _refuse_too_many(self, c: sqlite3.Connection, account: str) -> None:
        now = self._clock.now()
        row = one(
            c,
            """SELECT count(*) AS made, min(at) AS first FROM audit
               WHERE account = :account AND action = 'create_project' AND at > :since""",
            account=account,
            since=now - HOUR_MS,
        )
        assert row is not None
        if row["made"] >= CREATED_AN_HOUR:
            reset = row["first"] + HOUR_MS
            wait = max(1, -(-(reset - now) // 1000))
            raise RateLimitExceeded(
                f"Nothing was created: {CREATED_AN_HOUR} projects an hour are allowed. Wait {wait} s, or use one of "
                "bilt_list_projects.",
                limit=CREATED_AN_HOUR,
                remaining=0,
                reset=-(-reset // 1000),
                retry_after_seconds=wait,
            )

    def _insert_project(
        self,
        c: sqlite3.Connection,
        account: str,
        root: str,
        name: str,
        description: str = "",
        visibility: Visibility = "public",
        project_id: str | None = None,
    ) -> Row:
        row = one(
            c,
            """INSERT INTO project (id, account, root, name, description, visibility, created_at, updated_at)
               VALUES (:id, :account, :root, :name, :description, :visibility, :now, :now)
               ON CONFLICT (account, root) DO UPDATE SET root = excluded.root RETURNING *""",
            id=project_id or str(uuid4()),
            account=account,
            root=root,
            name=name,
            description=description,
            visibility=visibility,
            now=self._clock.now(),
        )
        assert row is not None
        return row

    async def audit(self, account: str, session_id: str) -> Sequence[AuditEntry]:
        """See `SessionStore.audit`."""

        def look(c: sqlite3.Connection) -> list[Row]:
            session = session_row(c, account, session_id)
            return c.execute(
                """SELECT a.*, w.id AS workflow_id FROM audit AS a LEFT JOIN workflow AS w ON w.n = a.workflow
                   WHERE a.session = ? ORDER BY a.n""",
                (session["s_n"],),
            ).fetchall()

        return [audit_of(row) for row in await self._read(look)]


def _refuse_limited(account: str) -> None:
    if limited_to(account) is not None:
        raise PermissionDenied(
            "This key is for one project: it cannot open or make others. Use that one, or ask for a key that is not "
            "limited to it: bilt-mcp keys create NAME"
        )
