"""The small process that a client starts: it joins the client to the store's resident. Standard library only.

The SDK takes 0.7 s and 70 MB to come up. So one process for a store has it, and whoever comes later is joined to that.
Where there can be none, `serve` says so, and the caller serves in this process.
"""

from __future__ import annotations

import errno
import os
import select

from .joining import Asked, join
from .relay import READ_BYTES, Backlog, Relay

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_OPTIONS = ("--project", "--store")


def plainly_asked(arguments: Sequence[str], environ: Mapping[str, str]) -> Asked | None:
    """What is asked for, where that is a resident's work and plain; None leaves it to the whole program."""
    if environ.get("BILT_RESIDENT") == "0" or not hasattr(os, "fork"):
        return None
    given: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if name not in _OPTIONS or (not equals and not rest):
            return None
        given[name] = value if equals else rest.pop(0)
    project = given.get("--project") or environ.get("BILT_PROJECT") or "."
    home = environ.get("HOME") or "~"
    store = given.get("--store") or environ.get("BILT_STORE") or os.path.join(home, ".bilt")
    try:
        here = os.getcwd()
    except OSError:
        return None
    project, store = os.path.expanduser(project), os.path.expanduser(store)
    if "~" in (project[:1], store[:1]):
        return None  # there is no such home
    project, store = os.path.join(here, project), os.path.join(here, store)
    if not os.path.isdir(project) or "\0" in project + store:
        return None
    return Asked(project, store.rstrip("/") or "/", dict(environ))


def serve(asked: Asked) -> Backlog | None:
    """Serve the client on descriptors 0 and 1; None when it has gone, else what is left to do in this process."""
    backlog = Backlog(asked.connection)
    try:
        # Whoever never says anything needs no resident.
        poll = select.poll()
        poll.register(0, select.POLLIN)
        poll.poll()
        backlog.take(os.read(0, READ_BYTES))
        if not backlog.number and backlog.ended:
            return None
        return None if Relay(backlog, lambda: join(asked)).run() else backlog
    except KeyboardInterrupt:
        return None
    except OSError as error:
        # Without an input there is nobody to serve.
        return None if error.errno == errno.EBADF and not backlog.number else backlog
