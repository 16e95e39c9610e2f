"""Bad inputs: each gets the answer that it must get, once, changes nothing, and the next call is answered.

The inputs are drawn by `support/bad_inputs.py`; the server is the real program, and its client knows no SDK.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from .support.bad_inputs import Bad, Corpus
from .support.due_answers import Due, Json, judge
from .support.places import Place
from .support.places import place as place  # a fixture
from .support.proof import Proof
from .support.rpc import Server, request, structured

MAX_GROWTH_KIB = 64 * 1024
HUGE_LINE = 64 * 1024 * 1024
BATCH = 6


def peak_kib(pid: int) -> int:
    """The most memory that a process ever had."""
    for line in Path(f"/proc/{pid}/status").read_text("ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    pytest.skip("the kernel does not tell how much memory a process had")


class Conversation:
    """Keeps account of what must be answered, and of what was."""

    def __init__(self, server: Server, session_id: str) -> None:
        self._server = server
        self._session_id = session_id
        self._calls = 0
        self.answers = 0

    def suffers(self, bads: list[Bad]) -> None:
        """Send bad inputs and then a normal call; every answer that is due comes once, and no other."""
        said = [bad.what for bad in bads]
        waited = Counter(
            _key(due.request_id) for bad in bads for due in bad.due if not due.optional
        )
        dues = {_key(due.request_id): due for bad in bads for due in bad.due}
        may = Counter(_key(due.request_id) for bad in bads for due in bad.due if due.optional)
        self._calls += 1
        normal_id = f"normal-{self._calls}"
        normal = self._normal(normal_id)
        self._server.write(b"".join(bad.data for bad in bads) + normal)
        normal_answer: Json | None = None
        while normal_answer is None or +waited:
            answer = self._next(f"{said}; unanswered: {+waited}")
            if "method" in answer:
                assert "id" not in answer, (said, answer)
                continue
            key = _key(answer["id"])
            if key == _key(normal_id):
                assert normal_answer is None, (said, answer)
                normal_answer = answer
                continue
            if answer["id"] is None and not waited[key] and not may[key]:
                key = next((k for k, due in dues.items() if due.or_null and waited[k]), key)
            assert key in dues, (said, "nobody asked for this", answer)
            judge(answer, dues[key].kind)
            self.answers += 1
            if waited[key] > 0:
                waited[key] -= 1
            else:
                may[key] -= 1
                assert may[key] >= 0, (said, "answered twice", answer)
        self._is_normal(normal_answer)

    def _next(self, what: str) -> Json:
        try:
            return self._server.next()
        except (AssertionError, EOFError) as error:
            raise AssertionError(f"{error} after {what}") from None

    def _normal(self, request_id: str) -> bytes:
        arguments = {"session_id": self._session_id}
        tool = ("bilt_get_session", "bilt_get_messages")[self._calls % 2]
        params = {"name": tool, "arguments": arguments}
        return request(0, "tools/call", params).replace(
            b'"id": 0', f'"id": "{request_id}"'.encode()
        )

    def _is_normal(self, answer: Json) -> None:
        found = structured(answer)
        if "messages" in found:
            assert (found["messages"], found["total"]) == ([], 0)
        else:
            assert (found["status"], found["session_id"]) == ("idle", self._session_id)

    def goes_silent(self) -> None:
        """Nothing more comes but what is asked for."""
        for _ in range(3):
            request_id = self._server.send("ping")
            assert self._server.next()["id"] == request_id


def _key(request_id: Any) -> tuple[str, Any]:
    return type(request_id).__name__, request_id


def test_whatever_comes_in_is_answered_once_and_changes_nothing(place: Place, proof: Proof) -> None:
    canary = place.project / "canary"
    inputs = proof.size(500, 20_000)
    done, full = 0, 1
    kinds: Counter[str] = Counter()
    with Server(place.arguments, place.environ) as server:
        session_id = str(server.call("bilt_get_session")["session_id"])
        tools: list[Json] = server.ask("tools/list")["result"]["tools"]
        corpus = Corpus(proof.random, tools, session_id, str(canary))
        conversation = Conversation(server, session_id)
        conversation.suffers([])
        before = peak_kib(server.process.pid)
        rows = {
            table: place.count(table) for table in ("session", "workflow", "message", "project")
        }
        with proof.progress(inputs) as bar:
            while done < inputs:
                bads = [corpus.bad() for _ in range(proof.random.randrange(1, BATCH + 1))]
                if done >= 100 * full:
                    bads.append(corpus.full())
                    full += 1
                conversation.suffers(bads)
                done += len(bads)
                kinds.update(bad.what.partition(".")[0] for bad in bads)
                bar.advance(len(bads))
        size = proof.random.randrange(5 * 2**20, 16 * 2**20)
        for line in (size, HUGE_LINE):
            conversation.suffers([corpus.huge(line)])
        conversation.goes_silent()
        grown = peak_kib(server.process.pid) - before
        assert server.process.poll() is None
    assert server.exit_code() == 0
    assert b"failed unexpectedly" not in server.stderr, server.stderr[-3000:]
    assert rows == {table: place.count(table) for table in rows}
    assert place.kept() == ([], [])
    assert not canary.exists()
    assert len(kinds) > len(tools)
    assert grown <= MAX_GROWTH_KIB, f"{grown} KiB more than before"
    proof.figure(
        f"{done} bad inputs of {len(kinds)} kinds, {conversation.answers} answers to them, each as documented, once; "
        f"a normal call answered after every few; memory grew by {grown / 1024:.0f} MiB at most"
    )


def test_the_judge_and_the_accountant_notice_a_wrong_answer() -> None:
    assert Due(1) != Due("1")
    good: Json = {"jsonrpc": "2.0", "id": 1, "error": {"code": -32600, "message": "no"}}
    judge(good, "error")
    crash: Json = {"jsonrpc": "2.0", "id": 1, "error": {"code": -32603, "message": "crash"}}
    empty: Json = {"jsonrpc": "2.0", "id": 1, "result": {}}
    for wrong in (crash, empty):
        with pytest.raises(AssertionError):
            judge(wrong, "error")
