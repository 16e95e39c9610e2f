"""What the small process of a client does when it loses its resident, seen with residents that are none."""

from __future__ import annotations

import subprocess
import sys

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
