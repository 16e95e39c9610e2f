"""What the small process of a client does when it loses its resident, seen with residents that are none."""

from __future__ import annotations

import subprocess
import sys

import pytest

LOSING = """
import _socket
from bilt_mcp.server.relay import Backlog, Relay
joined = 0
def rejoin():
    global joined
    joined += 1
    ours, theirs = _socket.socketpair()
    theirs.close()
    return ours
print(Relay(Backlog("x"), rejoin).run(), joined)
"""


def test_a_client_that_loses_every_resident_soon_asks_for_no_more() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LOSING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as client:
        assert client.stdout is not None
        assert client.stdout.read() == "False 3\n"


ANSWERED = """
import os, _socket
from bilt_mcp.server.frames import ANSWER, LOG, frame
from bilt_mcp.server.relay import Backlog, Relay
reader, writer = os.pipe()
os.dup2(writer, 2)
os.close(reader)  # nobody reads the log
ours, theirs = _socket.socketpair()
theirs.setblocking(True)
backlog = Backlog("x")
backlog.take(b"one\\ntwo\\n")
import threading
answers = frame(LOG, 0, b"told") + frame(ANSWER, 1, b"a" * 500_000 + b"\\n")
def answer():
    theirs.sendall(answers)
    theirs.close()
threading.Thread(target=answer).start()
ours.setblocking(False)
left = [ours]
relay = Relay(backlog, lambda: left.pop() if left else None)
assert relay.run() is False
os.write(1, repr(list(backlog.open)).encode())
"""


def test_what_was_answered_before_the_last_resident_was_lost_still_reaches_the_client() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ANSWERED], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as client:
        assert client.stdout is not None
        assert client.stdout.read() == b"a" * 500_000 + b"\n[2]"
    assert client.returncode == 0


GONE = """
import os, _socket
from bilt_mcp.server.frames import ANSWER, frame
from bilt_mcp.server.relay import Backlog, Relay
ours, theirs = _socket.socketpair()
theirs.sendall(frame(ANSWER, 1, b"told\\n"))
theirs.close()
ours.setblocking(False)
backlog = Backlog("x")
backlog.take(b"one\\ntwo\\n")
left = [ours]
assert Relay(backlog, lambda: left.pop() if left else None).run() is False
os.write(1, repr(list(backlog.open)).encode())
"""


def test_what_a_resident_has_said_before_it_was_lost_is_not_asked_again() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", GONE], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as client:
        assert client.stdout is not None
        assert client.stdout.read() == b"told\n[2]"


ENDED = """
import os, sys, _socket, threading
from bilt_mcp.server.frames import ANSWER, END, frame
from bilt_mcp.server.relay import Backlog, Relay
joined = []
def serve(theirs):
    while theirs.recv(4096):
        pass  # until the client's end has come through
    if len(joined) == 2:
        theirs.sendall(frame(ANSWER, 1, b"told\\n"))
    if len(joined) == 2 or sys.argv[1] == "in order":
        theirs.sendall(frame(END, 0))
    theirs.close()
def rejoin():
    ours, theirs = _socket.socketpair()
    joined.append(ours)
    threading.Thread(target=serve, args=(theirs,)).start()
    ours.setblocking(False)
    return ours
backlog = Backlog("x")
assert Relay(backlog, rejoin).run() is True
os.write(1, b"%d" % len(joined))
"""


@pytest.mark.parametrize(("how", "said"), [("lost", b"told\n2"), ("in order", b"1")])
def test_a_client_that_has_closed_its_end_loses_no_answer_with_a_resident(
    how: str, said: bytes
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ENDED, how], input=b"one\n", capture_output=True, check=True
    )
    assert done.stdout == said
