"""The worker's side of one keeper: start a step, watch it, stop it, learn what became of it.

The keeper is a plain child made by `subprocess`, from the thread that calls: asyncio's own
subprocesses compete for exit statuses, and a child started from a helper thread dies with it. Its
end is noticed as the end of file of the control socket; its exit status means nothing to anybody.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import anyio
from anyio.lowlevel import checkpoint

from .processes import ProcessId, brand_of
from .step_log import log_paths, pids_path

KEEPER = Path(__file__).with_name("keeper.py")
READY_SECONDS = 20.0
"""Longest time to wait for a new keeper; 35 ms are usual."""
CLOSE_SECONDS = 15.0
"""Longest time to wait for a keeper that is told to end; it answers within ten."""
READ_BYTES = 1 << 16

_unreaped: dict[int, subprocess.Popen[bytes]] = {}


def keeper_pids() -> Set[int]:
    """Every keeper of this process that is not reaped yet: what `kill_strays` must spare.

    The set is live: keepers that start later appear in it.
    """
    return _unreaped.keys()


@dataclass(frozen=True)
class StepCommand:
    """One step to run.

    `argv[0]` is looked up in the PATH of `env`, which is the whole environment. Logs are
    `log_paths(folder, name)`, together at most about `log_bytes`. `grace` is the time in seconds
    between TERM and KILL. `on_orphaned` is what a keeper runs, detached, after it killed the step of
    a worker that went away: a lock and an argv, see `spawn_detached`; empty for nothing.
    """

    argv: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str]
    folder: Path
    name: str
    grace: float = 2.0
    log_bytes: int = 5 << 18
    on_orphaned: tuple[str, ...] = ()


@dataclass(frozen=True)
class StepResult:
    """What became of a step.

    Exactly one of `code` and `signal` is set when its leader ran. `stopped`: a cancel came before
    the leader had ended by itself. `killed` counts the processes that were alive when signalled,
    `survivors` those alive at the report; `took_ms` is the time from cancel (or the leader's end)
    to the last death. `lost`: the keeper vanished, nothing is known, strays must be killed.
    """

    code: int | None = None
    signal: int | None = None
    stopped: bool = False
    killed: int = 0
    survivors: int = 0
    took_ms: float = 0.0
    start_error: str | None = None
    lost: bool = False
    log_error: str | None = None


@dataclass(frozen=True)
class Chunk:
    """A piece of live output; `dropped` bytes before it or near it were left out."""

    data: bytes
    dropped: int


class KeeperNotReady(OSError):
    """A keeper was killed, or hung, before it was given a step."""


class StepProcess:
    """One keeper and the step it runs; make it with `spawn`, end it with `aclose`."""

    def __init__(self, keeper: subprocess.Popen[bytes], control: socket.socket, out: int) -> None:
        self.identity = ProcessId("", keeper.pid, 0)
        self._keeper = keeper
        self._control = control
        self._out = out
        self._reading = anyio.Lock()
        self._inbox = bytearray()
        self._outbox = bytearray()
        self._events: dict[str, dict[str, Any]] = {}
        self._dropped = self._told = 0
        self._started = self._eof = self._closed = False

    @classmethod
    async def spawn(cls) -> Self:
        """Start a keeper and wait until it is ready; it may then wait for its step for long.

        An OSError says that it could not be started; `KeeperNotReady`, that it was lost before it was ready.
        """
        _reap_keepers()
        ours, theirs = socket.socketpair()
        out, sink = os.pipe()
        try:
            argv = [sys.executable, "-I", "-S", os.fspath(KEEPER), str(theirs.fileno()), str(sink)]
            keeper = subprocess.Popen(  # noqa: ASYNC220 - 2 ms, and never from a helper thread
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), sink),
                start_new_session=True,
                cwd="/",
            )
        except OSError:
            ours.close()
            os.close(out)
            raise
        finally:
            theirs.close()
            os.close(sink)
        _unreaped[keeper.pid] = keeper
        ours.setblocking(False)
        os.set_blocking(out, False)
        process = cls(keeper, ours, out)
        try:
            with anyio.move_on_after(READY_SECONDS):
                await process._until(lambda: "ready" in process._events)
            ready = process._events.get("ready")
            if ready is None:
                raise KeeperNotReady("the keeper of a step did not get ready")
        except BaseException:
            keeper.kill()  # it has no step yet, and nobody else reaps it
            process._close()
            raise
        process.identity = ProcessId(ready["boot_id"], ready["pid"], ready["start_ticks"])
        return process

    @property
    def alive(self) -> bool:
        """Whether the keeper is there, as far as is known without waiting."""
        self._receive_if_free()
        return not self._eof

    async def start(self, command: StepCommand) -> ProcessId | None:
        """Start the step; the answer is its leader, or None when `wait` tells why it did not."""
        if self._started:
            raise RuntimeError("a keeper runs one step only")
        self._started = True
        head_path, *tail_paths = log_paths(command.folder, command.name)
        head = command.log_bytes // 4
        self._send(
            cmd="start",
            argv=command.argv,
            cwd=os.fspath(command.cwd),
            env=dict(command.env),
            head_path=os.fspath(head_path),
            tail_paths=[os.fspath(path) for path in tail_paths],
            head_bytes=head,
            tail_bytes=command.log_bytes - head,
            pids_path=os.fspath(pids_path(command.folder, command.name)),
            grace=command.grace,
            brand=brand_of(command.env.get("BILT_COOKIE", "")),
            on_orphaned=command.on_orphaned or None,
        )
        answers = {"started", "failed_to_start", "done"}
        await self._until(lambda: not answers.isdisjoint(self._events))
        leader = self._events.get("started")
        if leader is None:
            return None
        return ProcessId(self.identity.boot_id, leader["pid"], leader["start_ticks"])

    def cancel(self, grace: float | None = None) -> None:
        """Stop the step: TERM now, KILL after `grace` seconds (0: at once).

        None is the grace of the command. Returns at once; `wait` tells the outcome. A second call
        can only shorten the grace. Called before `start` it makes the start a stop.
        """
        self._send(cmd="cancel", grace=grace)

    async def chunks(self) -> AsyncIterator[Chunk]:
        """Read the live output, until all of it was read after the step's end. For one reader."""
        while not self._closed:
            try:
                data = os.read(self._out, READ_BYTES)
            except BlockingIOError:
                with contextlib.suppress(anyio.ClosedResourceError):
                    await anyio.wait_readable(self._out)
                continue
            if not data:
                break
            self._receive_if_free()
            yield Chunk(data, self._newly_dropped())
            await checkpoint()
        await self._until(lambda: "done" in self._events)
        if lost := self._newly_dropped():
            yield Chunk(b"", lost)

    async def wait(self) -> StepResult:
        """Wait for the end of the step; several tasks may, and late ones get the same answer."""
        await self._until(lambda: "done" in self._events)
        done = self._events.get("done")
        if done is None:
            # What the keeper had adopted becomes ours only when the keeper is a zombie.
            await self._reap()
            broken = self._events.get("error", {})
            return StepResult(lost=True, log_error=broken.get("message"))
        return StepResult(
            code=done["code"],
            signal=done["signal"],
            stopped=done["stopped"],
            killed=done["killed"],
            survivors=done["survivors"],
            took_ms=done["took_ms"],
            start_error=self._events.get("failed_to_start", {}).get("message"),
            log_error=done["log_error"],
        )

    async def wait_gone(self) -> None:
        """Return when really nothing of the step is alive, also after `wait` told of survivors.

        A keeper that is lost knows nothing more: this returns, and `wait` says `lost`.
        """
        result = await self.wait()
        if result.survivors:
            await self._until(lambda: "gone" in self._events)

    async def aclose(self) -> None:
        """End the keeper, and everything of a step that still runs, at once. May be repeated.

        A keeper that does not answer is killed; then `wait` says `lost`, and strays must be killed.
        """
        if self._closed:
            return
        with anyio.CancelScope(shield=True):
            self._send(cmd="disown")
            if self._started:
                self.cancel(0)
                with anyio.move_on_after(CLOSE_SECONDS):
                    await self._until(lambda: "done" in self._events)
                if "done" not in self._events:
                    self._keeper.kill()
            done = self._events.get("done")
            self._close()
            if done is None or not done["survivors"]:
                await self._reap()

    # ---- the keeper

    def _send(self, **command: Any) -> None:
        self._outbox += json.dumps(command).encode() + b"\n"
        self._flush()

    def _flush(self) -> None:
        try:
            while self._outbox and not self._eof:
                del self._outbox[: self._control.send(self._outbox)]
        except BlockingIOError:
            pass  # the rest goes out from `_until`
        except OSError:
            self._outbox.clear()  # the keeper is gone; reading will say so

    async def _until(self, reached: Callable[[], bool]) -> None:
        """Handle events until `reached()` or the keeper is gone; many tasks may be in here.

        Whoever holds the lock reads for all; it is let go after every piece, so that each looks at
        its own condition.
        """
        while not (reached() or self._eof):
            async with self._reading:
                if reached() or self._eof:
                    return
                if self._outbox:
                    await anyio.wait_writable(self._control)
                    self._flush()
                    if self._outbox:
                        continue
                if not self._receive():
                    with contextlib.suppress(anyio.ClosedResourceError):
                        await anyio.wait_readable(self._control)
                    self._receive()

    def _receive_if_free(self) -> None:
        """Take in events without waiting, unless another task is at it."""
        if not self._reading.locked():
            self._receive()

    def _receive(self) -> bool:
        """Take in what the socket holds; False when that was nothing."""
        if self._eof:
            return False
        try:
            piece = self._control.recv(READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            piece = b""
        if not piece:
            self._eof = True
            return True
        self._inbox += piece
        while (end := self._inbox.find(b"\n")) >= 0:
            event = json.loads(bytes(self._inbox[:end]))
            del self._inbox[: end + 1]
            self._events[event["event"]] = event
            self._dropped = max(self._dropped, event.get("bytes", 0), event.get("dropped", 0))
        return True

    def _newly_dropped(self) -> int:
        new = self._dropped - self._told
        self._told = self._dropped
        return new

    def _close(self) -> None:
        if not self._closed:
            self._closed = self._eof = True
            for fd in (self._control.fileno(), self._out):
                anyio.notify_closing(fd)
            self._control.close()
            os.close(self._out)

    async def _reap(self) -> None:
        """Collect the keeper, which has ended or is about to."""
        while self._keeper.poll() is None:  # noqa: ASYNC110 - the kernel sets no Event
            await anyio.sleep(0.001)
        _unreaped.pop(self._keeper.pid, None)


def _reap_keepers() -> None:
    """Collect keepers that ended after their `aclose`."""
    for pid, keeper in list(_unreaped.items()):
        if keeper.poll() is not None:
            del _unreaped[pid]
