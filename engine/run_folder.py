"""The private files of one workflow.

open/<workflow id>.json              only while it is not final: the variables its steps may see, secrets too, and what
                                     an invocation's caller gave them as arguments
runs/<workflow id>/message.txt       the message (BILT_MESSAGE_FILE)
                   01.1.log          the kept output of step 1, attempt 1, safe to show
                   01.output         only while it is not final: what step 1 printed, for later steps that refer to it
                   artifacts/        what the steps leave there (BILT_ARTIFACTS)
                   artifacts.safe    which of these tell none of the secrets, where there are secrets
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bilt_mcp.state import StoreLocation

from .artifacts import Artifacts
from .output import LineReader
from .safe_text import Redactor
from .step_log import log_paths, read_log

_PIECE_BYTES = 1 << 16
_OUTPUT = ".output"


class RunFolder:
    """What is kept of one workflow beside the store."""

    def __init__(self, location: StoreLocation, workflow_id: str) -> None:
        self.path = location.run(workflow_id)
        self._open = location.open / f"{workflow_id}.json"

    @property
    def message_file(self) -> Path:
        """The message, as a file."""
        return self.path / "message.txt"

    @property
    def artifacts(self) -> Path:
        """Where steps leave what shall be kept."""
        return self.path / "artifacts"

    def create(
        self,
        environment: Mapping[str, str],
        secrets: Sequence[str],
        trace: Mapping[str, Mapping[str, str]] | None = None,
        args: Mapping[int, str] | None = None,
    ) -> None:
        """Make the folder and keep the environment, durably: the workflow may start after a power cut.

        `secrets` names the variables whose values must never be shown; `trace` and `args` are what the methods of
        these names return.
        """
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        kept = {"environment": dict(environment), "secrets": list(secrets), "trace": trace or {}}
        if args:
            kept["args"] = {str(position): text for position, text in args.items()}
        _write_private(self._open, [json.dumps(kept)], durable=True)

    def discard(self) -> None:
        """Remove everything: the workflow was not accepted."""
        self.forget()
        shutil.rmtree(self.path, ignore_errors=True)

    def environment(self) -> dict[str, str] | None:
        """The kept environment, or None when it is not (fully) there."""
        kept = self._kept()
        return None if kept is None else kept["environment"]

    def trace(self) -> dict[str, dict[str, str]]:
        """`context`, the trace's variables where the workflow was started, and `settings` for its spans, if any."""
        kept = self._kept()
        return {} if kept is None else kept.get("trace", {})

    def args(self) -> dict[int, str]:
        """What callers gave steps as their arguments, JSON by position from 1."""
        kept = self._kept()
        given: dict[str, str] = {} if kept is None else kept.get("args", {})
        return {int(position): text for position, text in given.items()}

    def keep_output(self, position: int, attempt: int) -> None:
        """Make what an attempt has printed, safe to show, the `output` of its step."""
        log = read_log(self.path, step_file_name(position, attempt))
        safe = self._safe(log, Redactor(self.secrets() or ()))
        # Durably: at a gate it may wait there for days.
        _write_private(self.output(position), safe, durable=True)

    def output(self, position: int) -> Path:
        """What a step printed, for others; no file where it was not kept."""
        return self.path / f"{position:02d}{_OUTPUT}"

    def forget_outputs(self) -> None:
        """Delete what was kept for other steps: none follows."""
        for output in self.path.glob(f"*{_OUTPUT}"):
            with contextlib.suppress(OSError):
                output.unlink(missing_ok=True)

    def write_message(self, message: str) -> None:
        """Write the message's file and make room for artifacts."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.artifacts.mkdir(mode=0o700, exist_ok=True)
        _write_private(self.message_file, [message])

    def make_logs_safe(self) -> None:
        """Turn the raw logs into ones that are safe to show, and see which artifacts are. Safe to repeat."""
        secrets = self.secrets()
        redactor = Redactor(secrets or ())
        for head in sorted(self.path.glob("*.head")):
            name = head.name.removesuffix(".head")
            try:
                self._make_safe(name, redactor)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
                    raise  # it may be possible later
                # A step has put something of its own in the way: better no log than one that tells secrets.
                for raw in log_paths(self.path, name):
                    with contextlib.suppress(OSError):
                        raw.unlink(missing_ok=True)
        for pids in self.path.glob("*.pids*"):
            with contextlib.suppress(OSError):
                pids.unlink(missing_ok=True)
        if secrets:
            Artifacts(self.path, redactor).remember_safe()

    def secrets(self) -> list[str] | None:
        """The values that must never be shown; None when they are forgotten."""
        kept = self._kept()
        if kept is None:
            return None
        return [kept["environment"].get(name, "") for name in kept["secrets"]]

    def forget(self) -> None:
        """Forget the environment: the workflow is final."""
        self.forget_outputs()
        self._open.unlink(missing_ok=True)

    def _kept(self) -> dict[str, Any] | None:
        try:
            kept: dict[str, Any] = json.loads(self._open.read_text("utf-8"))
        except (OSError, ValueError):
            return None
        return kept

    def _make_safe(self, name: str, redactor: Redactor) -> None:
        safe = self._safe(read_log(self.path, name), redactor)
        _write_private(self.path / f"{name}.log", safe)
        for raw in log_paths(self.path, name):
            raw.unlink(missing_ok=True)

    @staticmethod
    def _safe(log: bytes, redactor: Redactor) -> Iterator[str]:
        reader = LineReader(redactor)
        # In pieces: a megabyte of short lines would otherwise be a hundred megabytes of strings.
        for at in range(0, len(log), _PIECE_BYTES):
            yield reader.read(log[at : at + _PIECE_BYTES])
        # Not before: what ends without a newline is only now a line.
        for line in reader.finish():
            yield f"{line}\n"


def step_file_name(position: int, attempt: int) -> str:
    """The stem of the files of one attempt of a step, such as `01.1`."""
    return f"{position:02d}.{attempt}"


def _write_private(path: Path, text: Iterable[str], *, durable: bool = False) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:
        file.writelines(text)
        if durable:
            file.flush()
            os.fsync(file.fileno())
