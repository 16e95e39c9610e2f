"""Writes that wait at the same time share one transaction, and so its sync."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar, cast

import aiosqlite

from .driver import sqlite3
from .hop import Answer, Hop
from .turn import WriteTurn

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

BUSY_SECONDS = 10.0
"""How long a writer waits for its turn, and then for another program's lock."""
MOST_TOGETHER = 64
"""Writes in one transaction: some milliseconds, so that other processes need not wait long for their turn."""


class _Member(Generic[T]):
    """One write, and what became of it."""

    __slots__ = ("error", "over", "result", "work")

    def __init__(self, work: Work[T], over: Answer | None = None) -> None:
        self.work = work
        self.over = over
        self.result: T | None = None
        self.error: BaseException | None = None

    def answer(self) -> T:
        if self.error is not None:
            raise self.error
        return cast(T, self.result)


class GroupCommit:
    """The writes of one store object.

    Whoever comes to the connection's thread first takes along all who wait by then, so a single writer waits for
    nobody. Each has its own savepoint: who raises undoes only what he did himself. Nobody hears anything before
    the commit, neither that he succeeded nor that he was refused, because others' work may be why.
    """

    def __init__(self, turn: WriteTurn, hop: Hop, committed: Callable[[], None]) -> None:
        """`committed` is called in the event loop after each commit, before its writers go on."""
        self._turn = turn
        self._hop = hop
        self._committed = committed
        self._waiting: deque[_Member[Any]] = deque()

    async def write(self, connection: aiosqlite.Connection, work: Work[T]) -> T:
        """Run `work` as one transaction, or as a part of one; raises what `work` or the commit raised.

        `work` may be run more than once; only what it did the last time stays.
        """
        over = self._hop.answer()
        member = _Member(work, over)
        self._waiting.append(member)
        # Every writer leaves a call, so nobody is forgotten; who was taken along finds nothing left to do.
        self._hop.there(connection, self._serve)
        await over
        return member.answer()

    def _serve(self, connection: sqlite3.Connection) -> None:
        if not self._waiting:
            return
        members: list[_Member[Any]] = []
        try:
            # The checkpoint that a commit may bring with it is over before the turn is given back.
            with self._turn.taken(BUSY_SECONDS):
                members = self._next()  # also who came while we waited for the turn
                _transaction(connection, members)
        except BaseException as trouble:
            members = members or self._next()
            for member in members:
                member.error = trouble
        answers = [member.over.give for member in members if member.over is not None]
        if any(member.error is None for member in members):
            self._hop.back(self._committed, *answers)
        else:
            self._hop.back(*answers)

    def _next(self) -> list[_Member[Any]]:
        return [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_TOGETHER))]


def write_alone(
    turn: WriteTurn, connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]
) -> T:
    """Run `work` as a transaction of its own, on the thread of the caller."""
    member = _Member(work)
    with turn.taken(BUSY_SECONDS):
        _transaction(connection, [member])
    return member.answer()


def _transaction(connection: sqlite3.Connection, members: Sequence[_Member[Any]]) -> None:
    """Run all in one transaction. What is raised is the trouble of all."""
    left = list(members)
    while left:
        connection.execute("BEGIN IMMEDIATE")
        try:
            broken = _run(connection, left)
            connection.commit()
        except BaseException:
            if connection.in_transaction:
                connection.rollback()
            raise
        if broken is None:
            return
        left.remove(broken)  # the others once more, without it


def _run(connection: sqlite3.Connection, members: Sequence[_Member[Any]]) -> _Member[Any] | None:
    """Run each; returns one whose error has undone what all have done."""
    alone = len(members) == 1
    for member in members:
        member.error = None
        if not alone:
            connection.execute("SAVEPOINT member")
        try:
            member.result = member.work(connection)
        except BaseException as error:
            member.error = error
            if not connection.in_transaction:
                return member
            connection.execute("ROLLBACK" if alone else "ROLLBACK TO member")
        if not alone:
            connection.execute("RELEASE member")
    return None
