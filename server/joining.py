"""How the small process of a client finds the store's resident, or starts it. Standard library only, and little of it.

The resident listens on a socket in the store's private folder, whose name says which code it runs. It holds a lock for
as long as it lives, taken for it by whoever starts it: so of many clients one starts it, and a dead one is no obstacle.
"""

from __future__ import annotations

import _socket  # `socket` costs a third of the start
import fcntl
import os
import sys
import time

from bilt_mcp.engine import code_identity

from .frames import HELLO, REFUSED, WELCOME, Frames, NotAFrame, frame, pack

START_SECONDS = 20.0
"""Clients give a server some thirty to answer; in this process it takes two or three more."""
WELCOME_SECONDS = 5.0
"""Who is up answers in milliseconds; some clients give a server ten seconds in all."""
LOOK_SECONDS = 0.003
PATIENT_LOOK_SECONDS = 0.02
"""For those who wait for what another one has started: thirty who look often would hold it up."""
MOST_STARTS = 2
DATABASE_SUFFIXES = (".db", ".sqlite", ".sqlite3")


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class HasOptions(Protocol):
        """A socket, of whichever module."""

        def getsockopt(self, level: int, option: int, length: int, /) -> bytes:
            """As the system call."""
            ...


class Asked:
    """Which project and which store somebody wants, as absolute paths, and with which variables."""

    def __init__(self, project: str, store: str, environ: dict[str, str]) -> None:
        self.project = project
        self.store = store
        self.environ = environ
        self.connection = os.urandom(16).hex()
        self.child = 0
        """The resident that was started from here: it outlives us, but whoever has children must collect them."""
        self._identity = ""

    @property
    def identity(self) -> str:
        """The code of this process, as it was at its start."""
        self._identity = self._identity or code_identity()
        return self._identity

    def hello(self) -> bytes:
        """What the resident must know of this connection."""
        pairs = [f"{name}={value}" for name, value in self.environ.items()]
        texts = [self.connection, self.project, self.store, *pairs]
        return frame(HELLO, 0, pack([os.fsencode(text) for text in texts]))


def folder_of(store: str) -> str:
    """The private folder of a store: `state.StoreLocation.of` says the same, at a price."""
    suffix = os.path.splitext(store)[1]
    if os.path.isfile(store) or (suffix in DATABASE_SUFFIXES and not os.path.isdir(store)):
        return store + ".d"
    return store


def join(asked: Asked) -> _socket.socket | None:
    """A connection that the resident has welcomed; None where there can be none, which is no error."""
    try:
        folder = folder_of(asked.store)
        os.makedirs(folder, 0o700, exist_ok=True)
        held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    try:
        found = os.fstat(held)
        if found.st_uid != os.geteuid() or found.st_mode & 0o022:
            return None  # others could put their socket there
        return _Search(asked, folder, held).run()
    except (OSError, ValueError, NotAFrame):
        return None
    finally:
        os.close(held)


class _Search:
    def __init__(self, asked: Asked, folder: str, held: int) -> None:
        name = f"serve-{asked.identity}"
        # A socket's address has room for some 100 characters.
        through = f"/proc/self/fd/{held}"
        self._address = f"{through if os.path.isdir(through) else folder}/{name}.sock"
        self._lock = os.path.join(folder, f"{name}.lock")
        self._asked = asked
        self._folder = folder
        self._starts = 0

    def run(self) -> _socket.socket | None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            connection = self._connect()
            if connection is not None:
                welcome = self._greet(connection) if is_ours(connection) else False
                if welcome:
                    return connection
                connection.close()
                if welcome is False:
                    return None
            if not self._start():
                return None
            time.sleep(LOOK_SECONDS if self._asked.child else PATIENT_LOOK_SECONDS)
        return None

    def _connect(self) -> _socket.socket | None:
        connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            connection.connect(self._address)
        except OSError:
            connection.close()
            return None
        return connection

    def _greet(self, connection: _socket.socket) -> bool | None:
        """Whether we are welcome; None when the resident was just leaving."""
        connection.settimeout(WELCOME_SECONDS)
        frames = Frames()
        try:
            connection.sendall(self._asked.hello())
            while data := connection.recv(65536):
                for kind, _, _ in frames.feed(data):
                    if kind in (WELCOME, REFUSED):
                        connection.setblocking(False)
                        return kind == WELCOME
        except TimeoutError:
            return False
        except OSError:
            pass
        return None

    def _start(self) -> bool:
        """See to it that a resident is coming. False when there is no hope."""
        if self._asked.child and os.waitpid(self._asked.child, os.WNOHANG)[0]:
            self._asked.child = 0
        lock = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True  # it is on its way, or leaving
        else:
            if self._starts == MOST_STARTS:
                return False
            self._starts += 1
            self._asked.child = self._launch(lock)
            return True
        finally:
            os.close(lock)

    def _launch(self, lock: int) -> int:
        log = os.open(
            os.path.join(self._folder, "server.log"),
            os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC,
            0o600,
        )
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        idle = self._asked.environ.get("BILT_WORKER_IDLE", "")
        module = f"{__package__}.resident"
        command = [sys.executable, "-P", "-m", module, self._folder, self._asked.identity]
        given = self._asked.environ.items()
        # It serves others too, and each says for himself what he wants, and where his spans go.
        environ = {n: v for n, v in given if not n.startswith(("BILT_", "OTEL_"))}
        child = os.fork()
        if child:
            os.close(log)
            os.close(nothing)
            return child
        try:
            # Of its own: the client ends our process group when it goes.
            os.setsid()
            os.chdir(self._folder)
            for theirs, ours in ((nothing, 0), (log, 1), (log, 2)):
                os.dup2(theirs, ours)
            os.set_inheritable(lock, True)
            os.execve(sys.executable, [*command, str(lock), idle], environ)
        finally:
            os._exit(127)


def is_ours(connection: HasOptions) -> bool:
    """Whether the other side runs as the same user; where the kernel does not say, the folder is ours alone."""
    option = getattr(_socket, "SO_PEERCRED", None)
    if option is None:
        return True
    user = connection.getsockopt(_socket.SOL_SOCKET, option, 12)[4:8]
    return int.from_bytes(user, sys.byteorder) == os.geteuid()
