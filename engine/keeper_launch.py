"""Starting programs from a keeper: the step itself, and the worker that follows a lost one.

Part of the keeper's program (see keeper.py): standard library only, quick to import.
"""

# ruff: noqa: SIM105 - contextlib would cost every step several milliseconds

from __future__ import annotations

import fcntl
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from typing import Any

    from .keeper_family import LINUX, SET_CHILD_SUBREAPER, SET_NAME, SET_PDEATHSIG, prctl
else:
    import _signal as signal

    from keeper_family import LINUX, SET_CHILD_SUBREAPER, SET_NAME, SET_PDEATHSIG, prctl


def stand_apart() -> None:
    """Make this process a keeper: out of reach of terminals and signals, adopting orphans."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    try:
        os.setsid()
    except PermissionError:
        pass  # started in a session of its own
    prctl(SET_CHILD_SUBREAPER, 1)
    prctl(SET_NAME, b"bilt-keeper")


def prepare() -> None:
    """Import what a start needs, while the keeper waits for one."""
    __import__("resource")


def run_program(plan: dict[str, Any]) -> str:
    """Become the step's program, in the child; comes back only with the reason why not."""
    try:
        os.chdir(plan["cwd"])
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        return f"cannot enter the folder {plan['cwd']!r}: {reason}"
    argv, env = plan["argv"], plan["env"]
    name = argv[0]
    search = env.get("PATH") or os.defpath
    places = [name] if "/" in name else [os.path.join(p or ".", name) for p in search.split(":")]
    reason = f"not found in PATH ({search})" if "/" not in name else "No such file or directory"
    for place in places:
        try:
            os.execve(place, argv, env)
        except (FileNotFoundError, NotADirectoryError):
            if os.path.isfile(place):
                reason = f"the interpreter that its first line ({place}) names was not found"
        except PermissionError as error:
            reason = f"{error.strerror} ({place}: is it executable?)"
        except (OSError, ValueError) as error:
            reason = f"{error.strerror if isinstance(error, OSError) else error} ({place})"
            break
    return f"cannot run {name!r}: {reason}"


def become_step(plan: dict[str, Any], keeper: int, pipe: int, report: int) -> None:
    """Do the child's half of a start; never returns."""
    message = "cannot prepare the process"
    try:
        os.setsid()
        prctl(SET_PDEATHSIG, 9)
        if os.getppid() != keeper:
            os._exit(127)
        for number in range(1, signal.NSIG):
            try:
                signal.signal(number, signal.SIG_DFL)
            except (OSError, ValueError):
                pass  # SIGKILL, SIGSTOP and the two that the C library keeps
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(pipe, 1)
        os.dup2(pipe, 2)
        for text in os.listdir("/proc/self/fd" if LINUX else "/dev/fd"):
            if int(text) > 2 and int(text) != report:
                try:
                    os.close(int(text))
                except OSError:
                    pass  # the listing's own
        set_limits(plan.get("brand", 0))
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        message = run_program(plan)
    except Exception as error:
        message += f": {error}"
    finally:
        os.write(report, message.encode(errors="replace"))
        os._exit(127)


def set_limits(brand: int) -> None:
    """No core files, the step's brand, and first to go when memory is short.

    The brand is the hard limit for core files: every descendant inherits it, also one that clears its
    environment, and hardly anything changes it. The soft limit of 0 is what counts for core files.
    """
    import resource

    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    fits = hard == resource.RLIM_INFINITY or hard >= brand
    resource.setrlimit(resource.RLIMIT_CORE, (0, brand if fits else 0))
    try:
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(fd, b"500")
        os.close(fd)
    except OSError:
        pass


def spawn_detached(lock: str, argv: list[str]) -> None:
    """Start a program that is nobody's child: called when no process of the step is left.

    It is given the number of the file that holds `lock` as its last argument. Whoever does not get the lock starts
    nothing: many keepers lose their worker at once, and one new worker is enough.
    """
    held = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return
    os.set_inheritable(held, True)
    middle = os.fork()
    if middle:
        os.waitpid(middle, 0)
        return
    try:
        os.setsid()
        if os.fork() == 0:
            os.chdir("/")
            for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            null = os.open(os.devnull, os.O_RDWR)
            for fd in (0, 1, 2):
                os.dup2(null, fd)
            os.execvp(argv[0], [*argv, str(held)])
    finally:
        os._exit(127)
