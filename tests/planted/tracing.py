"""Bugs to plant in telling OpenTelemetry what was done."""

from __future__ import annotations

from .plant import Plant, plant, within

TRACING = "test_tracing.py::test_"
TROUBLE = "test_tracing_trouble.py::test_"

PLANTS: tuple[Plant, ...] = (
    plant(
        "a step's span belongs to no call",
        within(
            "engine/local.py",
            TRACING + "a_step_is_a_child_of_the_call_that_started_it_and_its_tools_go_on_below",
        ),
        '"context": dict(self._trace_context()),',
        '"context": {},',
    ),
    plant(
        "a step's tools go on beside its span and not below it",
        within(
            "engine/step_spans.py",
            TRACING + "a_step_is_a_child_of_the_call_that_started_it_and_its_tools_go_on_below",
        ),
        "            return self._place.variables\n",
        "            return self._parent.variables if self._parent else {}\n",
    ),
    plant(
        "a process for all keeps the variables of the client that started it",
        within("engine/tracing.py", TRACING + "each_client_s_spans_go_where_its_own_variables_say"),
        'if not n.startswith(("BILT_", "OTEL_"))',
        'if not n.startswith("BILT_")',
    ),
    plant(
        "all clients of a resident share a tracer provider",
        within(
            "server/span_routing.py", TRACING + "each_client_s_spans_go_where_its_own_variables_say"
        ),
        "        set_tracer_provider(_Routing())",
        "        set_tracer_provider(provider)",
    ),
    plant(
        "a worker that leaves forgets its last spans",
        within("engine/worker.py", TROUBLE + "a_worker_that_leaves_sends_what_it_has"),
        "    spans.finish(FINISH_SECONDS)\n",
        "",
    ),
    plant(
        "a span that cannot be sent keeps the next worker waiting",
        within("engine/worker.py", TROUBLE + "a_dead_endpoint_delays_no_step_no_cancel_and_no_end"),
        "    os.close(lock)  # the next worker need not wait for an endpoint that does not answer\n"
        "    spans.finish(FINISH_SECONDS)\n",
        "    spans.finish(1000)\n    os.close(lock)\n",
    ),
    plant(
        "a cancelled step is told as an error",
        within(
            "engine/step_spans.py",
            TRACING + "a_cancelled_step_is_told_as_cancelled_and_as_no_error",
        ),
        'NO_ERRORS = ("succeeded", "cancelled")',
        'NO_ERRORS = ("succeeded",)',
    ),
    plant(
        "a trace's state may be of any length",
        within("engine/tracing.py", TRACING + "a_bad_place_in_a_trace_reaches_no_step"),
        'state if len(state) <= MOST_STATE else ""',
        "state",
    ),
)
