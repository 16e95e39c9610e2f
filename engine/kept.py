"""What is kept of workflows beside the store, for reading: logs and artifacts, safe to show."""

from __future__ import annotations

import os
from collections.abc import Sequence

from bilt_mcp.state import (
    History,
    KeptFile,
    KeptText,
    LineRange,
    StepRun,
    StoreLocation,
    Withheld,
)

from .artifacts import Artifacts, count_files
from .kept_text import Extents, open_file, open_folder, read_lines
from .live_log import open_live_log
from .run_folder import RunFolder, step_file_name
from .safe_text import Redactor
from .step_log import SEGMENT_TRIES, log_paths, read_log

MOST_COUNTS = 10_000
"""Workflows whose artifacts are not counted again."""
_SOON = "The workflow is over and its log is being made safe to show. Read it again in a moment."


class KeptReader:
    """Reads the files of workflows. Everything here blocks, and belongs in a thread."""

    def __init__(self, location: StoreLocation) -> None:
        self._location = location
        self._counts: dict[str, int] = {}

    def log(self, history: History, run: StepRun, wanted: LineRange) -> KeptText | None:
        """See `tools.Engine.read_log`."""
        workflow_id = history.workflow.id
        name = step_file_name(run.position, run.attempt)
        with open_folder(self._location.run(workflow_id)) as folder:
            if folder is None:
                return None
            # Secrets first: when they are forgotten meanwhile, the log is safe already.
            redactor = self._redactor(history)
            for _ in range(SEGMENT_TRIES):
                with open_live_log(folder, name) as log:
                    if log is None:
                        break
                    if redactor is None:
                        raise Withheld(_SOON)
                    found = read_lines(log.text(), redactor, wanted, growing=run.outcome is None)
                    if log.stands():
                        return found
            else:
                # A flood writes its end over faster than we read it: then all of it at once, which is bounded too.
                assert redactor is not None
                raw = Extents(read_log(self._location.run(workflow_id), name))
                return read_lines(raw, redactor, wanted, growing=run.outcome is None)
            with open_file(folder, f"{name}.log") as safe:
                if safe is None:
                    return None
                return read_lines(Extents.whole(safe), redactor or Redactor(), wanted)

    def log_mark(self, workflow_id: str, run: StepRun) -> object:
        """See `tools.Engine.log_mark`."""
        folder = self._location.run(workflow_id)
        name = step_file_name(run.position, run.attempt)
        marks: list[tuple[int, int]] = []
        for path in (*log_paths(folder, name), folder / f"{name}.log"):
            try:
                found = os.lstat(path)
                marks.append((found.st_size, found.st_mtime_ns))
            except OSError:
                marks.append((-1, 0))
        return tuple(marks)

    def artifacts(self, history: History, most: int) -> Sequence[KeptFile]:
        """See `tools.Engine.artifacts`."""
        return self._artifacts(history).files(most)

    def artifact_count(self, workflow_id: str, final: bool) -> int:
        """See `tools.Engine.artifact_count`."""
        found = self._counts.get(workflow_id)
        if found is None:
            found = count_files(self._location.run(workflow_id))
            if final:
                if len(self._counts) >= MOST_COUNTS:
                    self._counts.clear()
                self._counts[workflow_id] = found
        return found

    def artifact(self, history: History, path: bytes, wanted: LineRange) -> KeptText | bytes | None:
        """See `tools.Engine.read_artifact`."""
        return self._artifacts(history).read(path, wanted)

    def _artifacts(self, history: History) -> Artifacts:
        run = self._location.run(history.workflow.id)
        return Artifacts(run, self._redactor(history))

    def _redactor(self, history: History) -> Redactor | None:
        """What takes the workflow's secrets out; None when it has some that are not known any more."""
        if not any(step.spec.get("secrets") for step in history.plan.steps):
            return Redactor()
        values = RunFolder(self._location, history.workflow.id).secrets()
        return None if values is None else Redactor(values)
