"""A page of a session's messages, at a cost that does not depend on how long the history is.

A message knows its number in the session (`ordinal`) and its number among those of its variant there (`nth`). So how
many there are between two ids is a difference, and the thousandth is found in a few looks. The messages of a workflow
follow one another, so a workflow is a stretch of ids. Only a text has to be looked for; there one call looks at `LOOK`
messages at most.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from .driver import sqlite3
from .errors import SessionNotFound, WorkflowNotFound
from .models import Message, MessagePage, MessageQuery
from .sqlite_base import one
from .sqlite_lookup import NO_SESSION, whose
from .sqlite_rows import NEWEST_MESSAGE, NTH, message_of

LOOK = 1024
"""Messages that one call compares with a text."""
_END = 2**63 - 1
"""No id is higher."""
_WHOLE = "m.*, (SELECT id FROM workflow WHERE n = m.workflow) AS workflow_id"


@dataclass(frozen=True)
class _Stretch:
    """The messages of a session, perhaps of one variant, with ids above `low` and up to `high`."""

    session: int
    variant: str | None
    low: int = 0
    high: int = _END


def message_page(
    c: sqlite3.Connection, account: str, session_id: str, query: MessageQuery
) -> MessagePage:
    """See `SessionStore.messages`."""
    session = one(
        c,
        """SELECT n FROM session WHERE id = :id AND account = :account
           AND (:only IS NULL OR project = (SELECT n FROM project WHERE id = :only))""",
        id=session_id,
        **whose(account),
    )
    if session is None:
        raise SessionNotFound(NO_SESSION)
    stretch = _Stretch(session["n"], query.variant)
    if query.workflow_id is not None:
        stretch = _of_workflow(c, stretch, query.workflow_id)
    newest = one(c, NEWEST_MESSAGE, session=stretch.session)
    if newest is None:
        return MessagePage((), total=0, has_more=False, newest_id=0)
    total = _number(c, stretch, stretch.high) - _number(c, stretch, stretch.low)
    if query.text:
        return _search(c, stretch, query, total, newest["id"])
    rest = _rest(c, stretch, query)
    rows = _select(c, rest, _WHOLE, query.limit + 1, query.after is not None).fetchall()
    return MessagePage(
        messages=tuple(message_of(row) for row in rows[: query.limit]),
        total=total,
        has_more=len(rows) > query.limit,
        newest_id=newest["id"],
    )


def _of_workflow(c: sqlite3.Connection, stretch: _Stretch, workflow_id: str) -> _Stretch:
    begins = "SELECT min(m.id) FROM message AS m WHERE m.side = 'user' AND m.workflow ="
    row = one(
        c,
        f"""SELECT ({begins} w.n) AS first,
                   ({begins} (SELECT min(n) FROM workflow WHERE session = w.session AND n > w.n)) AS next
            FROM workflow AS w WHERE w.id = :id AND w.session = :session""",
        id=workflow_id,
        session=stretch.session,
    )
    if row is None:
        raise WorkflowNotFound(
            "No workflow with this id in this session. bilt_get_session names the newest; leave workflow_id out "
            "to read the messages of all."
        )
    high = stretch.high if row["next"] is None else row["next"] - 1
    return replace(stretch, low=row["first"] - 1, high=high)


def _rest(c: sqlite3.Connection, stretch: _Stretch, query: MessageQuery) -> _Stretch:
    """What the page begins with, and what comes then."""
    if query.after is not None:
        return replace(stretch, low=max(stretch.low, min(query.after, _END)))
    if query.before is not None:
        return replace(stretch, high=min(stretch.high, query.before - 1))
    if query.offset:
        return replace(stretch, high=_id_behind(c, stretch, query.offset))
    return stretch


def _select(
    c: sqlite3.Connection, stretch: _Stretch, columns: str, limit: int, oldest_first: bool
) -> sqlite3.Cursor:
    variant = "" if stretch.variant is None else "AND m.variant = :variant"
    return c.execute(
        f"""SELECT {columns} FROM message AS m
            WHERE m.session = :session {variant} AND m.id > :low AND m.id <= :high
            ORDER BY m.id {"ASC" if oldest_first else "DESC"} LIMIT :limit""",
        {**vars(stretch), "limit": limit},
    )


def _last(c: sqlite3.Connection, stretch: _Stretch, upto: int) -> tuple[int, int]:
    """The id and the number of the last one up to there, even if it is before the stretch; zeros if there is none."""
    number = "m.ordinal" if stretch.variant is None else NTH
    before = replace(stretch, low=0, high=upto)
    found = _select(c, before, f"m.id, {number}", 1, oldest_first=False).fetchall()
    return (found[0][0], found[0][1]) if found else (0, 0)


def _number(c: sqlite3.Connection, stretch: _Stretch, upto: int) -> int:
    return _last(c, stretch, upto)[1] if upto else 0


def _id_behind(c: sqlite3.Connection, stretch: _Stretch, offset: int) -> int:
    """The id of the first one behind the newest `offset`; 0 when there are no more."""
    low, before = stretch.low, _number(c, stretch, stretch.low)
    high, newest = _last(c, stretch, stretch.high)
    wanted = newest - offset
    halve = False
    while before < wanted and low < high:
        # Ids rise with the numbers. Where they do so evenly, proportion finds it in two or three looks; halving every
        # second time keeps it at two dozen where they do not.
        part = (high - low) // 2 if halve else (high - low) * (wanted - before) // (newest - before)
        halve = not halve
        found, number = _last(c, stretch, low + max(1, part))
        if number == wanted:
            return found
        if number < wanted:
            low, before = low + max(1, part), number
        else:
            high, newest = found - 1, number - 1
    return 0


def _search(
    c: sqlite3.Connection, stretch: _Stretch, query: MessageQuery, candidates: int, newest_id: int
) -> MessagePage:
    """The page of those that contain the text, as far as one look goes."""
    text = (query.text or "").casefold()
    rest = _rest(c, stretch, replace(query, offset=0))
    counted = candidates <= LOOK
    enough = query.offset + query.limit + 1
    matches: list[int] = []
    read_to: int | None = None
    window = stretch if counted else rest
    with closing(
        _select(c, window, "m.id, m.content", LOOK + 1, query.after is not None)
    ) as looked_at:
        last = 0
        for place, (id_, content) in enumerate(looked_at):
            if not counted and len(matches) == enough:
                break
            if place == LOOK:
                read_to = last
                break
            if text in content.casefold():
                matches.append(id_)
            last = id_
    left = [id_ for id_ in matches if rest.low < id_ <= rest.high][query.offset :]
    return MessagePage(
        messages=_whole(c, left[: query.limit]),
        total=len(matches),
        has_more=len(left) > query.limit or read_to is not None,
        newest_id=newest_id,
        read_to=None if len(left) > query.limit else read_to,
        counted=counted,
    )


def _whole(c: sqlite3.Connection, ids: Sequence[int]) -> Sequence[Message]:
    rows = c.execute(
        f"""SELECT {_WHOLE} FROM json_each(?) AS wanted CROSS JOIN message AS m ON m.id = wanted.value
            ORDER BY wanted.key""",
        (json.dumps(ids),),
    )
    return tuple(message_of(row) for row in rows.fetchall())
