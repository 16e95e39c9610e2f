"""An interruption is one exception: what was started is stopped before the bench ends, however often it is asked to."""

from __future__ import annotations

import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def interrupted_once() -> Generator[None]:
    """In the block the first Ctrl-C, TERM or HUP raises `KeyboardInterrupt`, and later ones do nothing."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    # What nohup wants ignored stays so.
    wanted = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    for number in wanted:
        signal.signal(number, _first)
    try:
        yield
    finally:
        for number in wanted:
            signal.signal(number, before[number])


def _first(number: int, frame: FrameType | None) -> None:
    for each in _SIGNALS:
        if signal.getsignal(each) is _first:
            signal.signal(each, _later)
    print("\nstopping what was started ...", file=sys.stderr, flush=True)
    raise KeyboardInterrupt


def _later(number: int, frame: FrameType | None) -> None:
    # Not SIG_IGN, which children would inherit.
    pass
