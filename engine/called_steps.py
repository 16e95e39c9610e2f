"""Plans the steps that a caller names one by one, and says why when some of them cannot be run."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bilt_mcp.state import (
    MOST_CALLS,
    CalledStep,
    InvalidWorkflowFile,
    NoWorkflowConfigured,
    Plan,
    PlannedStep,
    Refusal,
    RefusalCode,
)

from .environment import missing_secrets
from .planning import make_plan, planned
from .safe_text import clean
from .workflow_file import WorkflowFile, load
from .workflow_step import MAX_SECONDS, MAX_STRING_BYTES, Step, quoted

ARGS = "BILT_ARGS"
MAX_ALIAS = 64
MAX_SHOWN = 64
"""Characters of a wrong name that are told."""
MAX_TOLD = 10
"""Problems of a file, or names, that one refusal tells."""
_ALIAS = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ALIAS_RULE = f"1 to {MAX_ALIAS} letters, digits, - and _"
_CATEGORY = {
    RefusalCode.INVALID_ARGS: "arg-shape",
    RefusalCode.UNKNOWN_CALL: "semantic",
    RefusalCode.UNKNOWN_REF: "semantic",
    RefusalCode.CAPABILITY_NOT_AVAILABLE: "runtime",
    RefusalCode.RUNTIME_NOT_FOUND: "runtime",
}


@dataclass(frozen=True)
class CallPlan:
    """A plan, and what the steps need that is not kept in it."""

    plan: Plan
    steps: Sequence[Step] = ()
    """Those that are called, in their order; none when the plan is refused."""
    args: Mapping[int, str] = field(default_factory=dict[int, str])
    """JSON for the step at a position, from 1; none for one that was called without."""


def plan_calls(
    root: Path, calls: Sequence[CalledStep], request: Mapping[str, Any], environ: Mapping[str, str]
) -> CallPlan:
    """Plan `calls` of the project in the folder `root`, 1 to `MOST_CALLS` of them. Never raises for what they say."""
    if not 1 <= len(calls) <= MOST_CALLS:
        raise ValueError(f"1 to {MOST_CALLS} calls")
    found = _file(root, calls[0].call)
    if isinstance(found, Refusal):
        return CallPlan(_refused_plan(calls, request, [found]))
    known = {step.name: step for step in found.steps}
    refused: list[Refusal] = []
    bound: set[str] = set()
    args: dict[int, str] = {}
    for index, call in enumerate(calls):
        try:
            _check_names(call, index, known, bound, calls)
            if missing := missing_secrets([known[call.call]], environ):
                raise _missing(call.call, [name for _, name in missing])
            if call.args:
                args[index + 1] = _args_text(call.args)
        except _Refused as why:
            refused.append(why.told(index, call.call))
        if call.bind is not None:
            bound.add(call.bind)  # also of a refused call: one mistake is told once
    if refused:
        return CallPlan(_refused_plan(calls, request, refused))
    steps = [_limited(known[call.call], call.timeout_ms) for call in calls]
    as_called = [
        planned(step, dry_run=call.dry_run, bind=call.bind, ref=call.ref)
        for step, call in zip(steps, calls, strict=True)
    ]
    return CallPlan(replace(make_plan(found, as_called), request=request), steps, args)


def _file(root: Path, call: str) -> WorkflowFile | Refusal:
    gone = _Refused(
        RefusalCode.RUNTIME_NOT_FOUND,
        "project-not-there",
        "The project's folder, or the bilt.toml in it, is not there any more.",
        fixes=[{"title": "Put the project with its bilt.toml back, then call again"}],
    )
    if not root.is_dir():
        return gone.told(0, call)
    try:
        return load(root)
    except NoWorkflowConfigured:
        return gone.told(0, call)
    except InvalidWorkflowFile as error:
        told = [f"{problem.field}: {problem.message}" for problem in error.problems[:MAX_TOLD]]
        return _Refused(
            RefusalCode.CAPABILITY_NOT_AVAILABLE,
            "invalid-workflow-file",
            f"The project's bilt.toml cannot be used as it stands: {'; '.join(told)}",
            fixes=[{"title": f"Correct bilt.toml: {problem}"} for problem in told],
        ).told(0, call)


def _refused_plan(
    calls: Sequence[CalledStep], request: Mapping[str, Any], refused: Sequence[Refusal]
) -> Plan:
    # Without the project's own limits: it is over as soon as a worker sees it, whatever else runs.
    steps = [PlannedStep(_shown(call.call), {}, dry_run=call.dry_run) for call in calls]
    return Plan(tuple(steps), request=request, refused=tuple(refused))


# -- what may be wrong with a call -----------------------------------------------------------------


class _Refused(Exception):
    def __init__(
        self,
        code: RefusalCode,
        id_: str,
        message: str,
        **diagnostic: str | Sequence[str] | Sequence[Mapping[str, str]],
    ) -> None:
        super().__init__(message)
        self._code = code
        self._message = message
        self._diagnostic = {
            "id": id_,
            "code": code.value,
            "category": _CATEGORY[code],
            **diagnostic,
        }

    def told(self, index: int, call: str) -> Refusal:
        shown = _shown(call)
        return Refusal(index, shown, self._code, self._message, {**self._diagnostic, "call": shown})


def _check_names(
    call: CalledStep,
    index: int,
    known: Mapping[str, Step],
    bound: set[str],
    calls: Sequence[CalledStep],
) -> None:
    if call.call not in known:
        raise _unknown_call(call.call, list(known))
    if call.bind is not None:
        if not _ALIAS.fullmatch(call.bind):
            raise _invalid(f"bind must be {_ALIAS_RULE}.", _ALIAS_RULE, _shown(call.bind))
        if call.bind in bound:
            told = f"bind {quoted(call.bind)} was given to an earlier step."
            raise _invalid(told, "a name that no earlier step has", call.bind)
    if call.ref is not None and call.ref not in bound:
        later = any(other.bind == call.ref for other in calls[index:])
        raise _unknown_ref(call.ref, sorted(bound), later)
    if call.timeout_ms is not None and call.timeout_ms < 1:
        told = "options.timeoutMs must be 1 or more."
        raise _invalid(told, "milliseconds, from 1", str(call.timeout_ms))


def _unknown_call(call: str, names: Sequence[str]) -> _Refused:
    closest = _closest(call, names)
    listed = ", ".join(names[:MAX_TOLD]) + (", …" if len(names) > MAX_TOLD else "")
    meant = f" Did you mean {quoted(closest[0])}?" if closest else f" It declares {listed}."
    return _Refused(
        RefusalCode.UNKNOWN_CALL,
        "unknown-call",
        f"The project declares no step {quoted(call)}.{meant}",
        closest=closest,
        expected=f"one of: {listed}",
        received=_shown(call),
        fixes=[
            {"title": f"Call {quoted(name)}", "example": json.dumps({"call": name})}
            for name in closest or names[:1]
        ],
    )


def _unknown_ref(ref: str, bound: Sequence[str], later: bool) -> _Refused:
    closest = _closest(ref, bound)
    if later:
        meant = " It is bound by this step or a later one; a step can refer to earlier ones only."
    else:
        meant = f" Did you mean {quoted(closest[0])}?" if closest else ""
    example = json.dumps({"bind": _shown(ref)}, ensure_ascii=False)
    return _Refused(
        RefusalCode.UNKNOWN_REF,
        "unknown-ref",
        f"No earlier step is bound to {quoted(ref)}.{meant}",
        closest=closest,
        expected=f"one of: {', '.join(bound[:MAX_TOLD])}" if bound else "bind in an earlier step",
        received=_shown(ref),
        fixes=[
            *(
                {"title": f"Refer to {quoted(name)}", "example": json.dumps({"ref": name})}
                for name in closest
            ),
            {"title": "Bind an earlier step to this name", "example": example},
        ],
    )


def _missing(call: str, names: Sequence[str]) -> _Refused:
    listed = ", ".join(names)
    return _Refused(
        RefusalCode.CAPABILITY_NOT_AVAILABLE,
        "missing-variable",
        f"Step {quoted(call)} needs {listed}, which is not set where bilt-mcp runs.",
        expected=listed,
        fixes=[{"title": f"Set {name} in the environment of bilt-mcp"} for name in names],
    )


def _invalid(message: str, expected: str, received: str) -> _Refused:
    return _Refused(
        RefusalCode.INVALID_ARGS,
        "invalid-args",
        message,
        expected=expected,
        received=received,
        fixes=[{"title": f"Give {expected}"}],
    )


def _args_text(args: Sequence[Any]) -> str:
    """The arguments as one string that a program can be given in its environment."""
    room = MAX_STRING_BYTES - len(f"{ARGS}=")
    try:
        text = json.dumps(list(args), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        size = len(text.encode())
    except UnicodeEncodeError:
        told, wrong = "args must not contain half of a surrogate pair.", "half a surrogate pair"
        raise _invalid(told, "text that is whole characters", wrong) from None
    except (TypeError, ValueError, RecursionError):
        told = "args must be JSON: no NaN, no Infinity, and not nested too deeply."
        raise _invalid(told, "JSON values", "what is no JSON") from None
    if size > room:
        told = f"args must be at most {room:,} bytes of JSON; these are {size:,}. Put it into a file of the project."
        raise _invalid(told, f"at most {room} bytes of JSON", f"{size} bytes")
    if any("\0" in string for string in _strings(args)):
        told = "args must not contain a NUL character."
        raise _invalid(told, "text without NUL", "a NUL character")
    return text


def _strings(value: Any) -> Iterable[str]:
    left = [value]
    while left:
        found = left.pop()
        if isinstance(found, str):
            yield found
        elif isinstance(found, Mapping):
            left += (*found.keys(), *found.values())
        elif isinstance(found, list | tuple):
            left += found


def _limited(step: Step, timeout_ms: int | None) -> Step:
    if timeout_ms is None:
        return step
    seconds = timeout_ms / 1000
    if step.timeout is not None and step.timeout <= seconds:
        return step
    return step.model_copy(update={"timeout": min(seconds, MAX_SECONDS)})


def _closest(name: str, names: Sequence[str]) -> list[str]:
    # Also where only the case is wrong, which the comparison would count as letters that differ.
    lowered = {other.lower(): other for other in names}
    found = difflib.get_close_matches(name.lower()[:MAX_SHOWN], list(lowered), 3)
    return [lowered[other] for other in found]


def _shown(text: str) -> str:
    return clean(text[: 4 * MAX_SHOWN]).replace("\n", " ").strip()[:MAX_SHOWN] or "?"
