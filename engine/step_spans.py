"""One OpenTelemetry span for each attempt of a step, sent where those who started the workflow send theirs.

Nothing here waits: a finished span is put in a queue, and a thread that starts with the first one does the rest. A
worker that is killed loses the spans that were not sent, and nothing else.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bilt_mcp.state import Claim

from .step_attempt import Ended
from .tracing import Place
from .workflow_step import Step

log = logging.getLogger(__name__)

IDLE_SECONDS = 30.0
"""A thread without a span for so long ends: variables may differ from workflow to workflow."""
STOPPED = ("cancelled", "interrupted")
NO_ERRORS = ("succeeded", "cancelled")


@dataclass(frozen=True)
class Finished:
    """A span that is over. It holds the project's own words and facts, never output, a message or a secret."""

    name: str
    place: Place
    parent: Place | None
    started_ns: int
    ended_ns: int
    outcome: str
    attributes: Mapping[str, str | int | bool]

    @property
    def is_error(self) -> bool:
        """Whether something went wrong; a cancel is what somebody wanted."""
        return self.outcome not in NO_ERRORS


class StepSpans:
    """The spans of one worker's steps."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._outboxes: dict[frozenset[tuple[str, str]], _Outbox] = {}

    def of(self, claim: Claim, kept: Mapping[str, Mapping[str, str]]) -> WorkflowSpans:
        """The spans of one workflow; `kept` is from `RunFolder.trace`."""
        context, settings = kept.get("context", {}), kept.get("settings", {})
        return WorkflowSpans(self, claim, context, settings)

    def put(self, settings: Mapping[str, str], span: Finished) -> None:
        """Have it sent, some time. Never waits, never raises."""
        key = frozenset(settings.items())
        with self._lock:
            outbox = self._outboxes.get(key)
            if outbox is None:
                outbox = self._outboxes[key] = _Outbox(dict(settings))
                threading.Thread(target=self._serve, args=(key, outbox), daemon=True).start()
            outbox.spans.put(span)

    def _serve(self, key: frozenset[tuple[str, str]], outbox: _Outbox) -> None:
        send = outbox.open()
        while True:
            try:
                span = outbox.spans.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                with self._lock:
                    if not outbox.spans.empty():
                        continue
                    del self._outboxes[key]
                    break
            if span is None:
                break
            send(span)
        outbox.close()

    def finish(self, seconds: float) -> None:
        """Send what is left, for at most so long."""
        deadline = time.monotonic() + seconds
        with self._lock:
            outboxes = list(self._outboxes.values())
        for outbox in outboxes:
            outbox.seconds = seconds
            outbox.spans.put(None)
        for outbox in outboxes:
            outbox.closed.wait(max(0.0, deadline - time.monotonic()))


@dataclass(frozen=True)
class WorkflowSpans:
    """Where the spans of one workflow belong."""

    spans: StepSpans
    claim: Claim
    context: Mapping[str, str]
    settings: Mapping[str, str] = field(repr=False)

    def begin(self, step: Step, number: int) -> OpenSpan:
        """An attempt of a step begins."""
        return OpenSpan(self, step, number)


class OpenSpan:
    """The span of an attempt that runs."""

    def __init__(self, workflow: WorkflowSpans, step: Step, number: int) -> None:
        self._workflow = workflow
        self._step = step
        self._number = number
        self._parent = Place.of(workflow.context)
        self._place = Place.below(self._parent)
        self._started_ns = time.time_ns()

    @property
    def variables(self) -> dict[str, str]:
        """With which the step's own tools go on with the trace: below its span, or where it was without spans."""
        if self._workflow.settings:
            return self._place.variables
        return {} if self._parent is None else self._parent.variables

    def end(self, ended: Ended, stopped: str) -> None:
        """The attempt is over; `stopped` is one of `STOPPED` for a step that was stopped from outside, else empty."""
        if not self._workflow.settings or not self._place.sampled:
            return
        of_itself = ended.timed_out or ended.result.lost or not ended.result.stopped
        outcome = ended.outcome if of_itself else stopped or ended.outcome
        claim = self._workflow.claim
        attributes: dict[str, str | int | bool] = {
            "bilt.workflow_id": claim.workflow_id,
            "bilt.session_id": claim.session_id,
            "bilt.step": self._step.name,
            "bilt.attempt": self._number,
            "bilt.deploy": self._step.deploy,
            "bilt.outcome": outcome,
        }
        if ended.result.code is not None:
            attributes["process.exit.code"] = ended.result.code
        span = Finished(
            f"step {self._step.name}",
            self._place,
            self._parent,
            self._started_ns,
            time.time_ns(),
            outcome,
            attributes,
        )
        self._workflow.spans.put(self._workflow.settings, span)


class _Outbox:
    """What is to be sent to one place; all but the queue belongs to its thread."""

    def __init__(self, settings: dict[str, str]) -> None:
        self.spans: queue.SimpleQueue[Finished | None] = queue.SimpleQueue()
        self.closed = threading.Event()
        self.seconds = IDLE_SECONDS
        self._settings = settings
        self._sender: Any = None

    def open(self) -> Any:
        try:
            from .span_writer import SpanWriter

            self._sender = SpanWriter(self._settings)
        except ImportError:
            log.info("no spans are sent: OpenTelemetry's SDK is not installed (bilt-mcp[otel])")
        except Exception as error:
            log.warning("no spans are sent: %s", error)
        return self._forget if self._sender is None else self._sender.write

    @staticmethod
    def _forget(_: Finished) -> None:
        """Where nothing can be sent."""

    def close(self) -> None:
        with contextlib.suppress(Exception):
            if self._sender is not None:
                self._sender.finish(self.seconds)
        self.closed.set()
