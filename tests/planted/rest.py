"""Bugs to plant in invocations over REST."""

from __future__ import annotations

from .plant import Plant, plant, within

REAL = "test_invocations_rest"
REQUESTS = "test_invocation_requests"
STATES = "test_invocation_states"
TROUBLE = "test_invocation_trouble"
SCHEMA = "test_invocation_schema"
OPENAPI = "test_openapi.py::"

PLANTS: tuple[Plant, ...] = (
    plant(
        "rest: a field of the page is left out of the types",
        within("server/http/invocation_models.py", SCHEMA),
        "    correlationId: NotRequired[str | None]\n",
        "",
    ),
    plant(
        "rest: a field is told that the page does not have",
        within("server/http/invocation_view.py", STATES),
        '        "metadata": None,\n',
        '        "metadata": None,\n        "revision": 1,  # type: ignore[typeddict-unknown-key]\n',
    ),
    plant(
        "rest: what times out is told as failed with another code",
        within("server/http/invocation_failure.py", REAL),
        '        "timed-out",\n        "TIMEOUT",\n',
        '        "timed-out",\n        "CAPABILITY_NOT_AVAILABLE",\n',
    ),
    plant(
        "rest: words of the build are in the progress",
        within("server/http/invocation_view.py", STATES),
        '    told = f"{where}: {workflow.step}"\n',
        '    told = workflow.step_message or f"{where}: {workflow.step}"\n',
    ),
    plant(
        "rest: who polls sees an old answer",
        within("server/http/invocation_cache.py", STATES),
        "        if version != self._version:\n",
        "        if self._version is None:\n",
    ),
    plant(
        "rest: what one account has read another sees",
        within("server/http/invocation_cache.py", STATES),
        "        which = (str(desk.account), limited_to(desk.account), workflow_id)\n",
        '        which = ("", limited_to(desk.account), workflow_id)\n',
    ),
    plant(
        "rest: the OpenAPI document promises a header that does not come",
        within(
            "server/http/openapi.py",
            OPENAPI + "test_answers_come_with_the_headers_that_it_names_and_no_other_of_them",
        ),
        'if status == 401 and operation.credential == "bearer":',
        "if status == 401:",
    ),
    plant(
        "rest: an example of the OpenAPI document is one of another body",
        within(
            "server/http/chat_operations.py",
            OPENAPI + "test_an_example_is_a_body_that_could_be_sent",
        ),
        "        example=_THREAD,\n",
        '        example={"user_message": "No."},\n',
    ),
    plant(
        "rest: a wait outlives its time",
        within("server/http/invocations.py", REAL),
        'body.get("timeoutMs", DEFAULT_WAIT_MS) / 1000',
        "DEFAULT_WAIT_MS / 1000",
    ),
    plant(
        "rest: a cancel of one that is over stops the next one",
        within("server/http/invocations.py", STATES),
        "await cancel_and_verify(desk, session_id, None, by, workflow_id=workflow_id)",
        "await cancel_and_verify(desk, session_id, None, by)",
    ),
    plant(
        "rest: an unknown member is ignored",
        within("server/http/invocation_request.py", REQUESTS),
        'extra="forbid", strict=True',
        "strict=True",
    ),
    plant(
        "rest: a malformed id is told apart from an unknown one",
        within("server/http/parsing.py", REQUESTS),
        "    if known is None:\n        raise gone\n",
        '    if known is None:\n        raise InvalidArguments([Problem(name, "is no UUID")])\n',
    ),
    plant(
        "rest: what is written otherwise is another request",
        within("server/http/invocations.py", REQUESTS),
        "json.dumps(asked, sort_keys=True,",
        "json.dumps(asked,",
    ),
    plant(
        "rest: a limited key kills what may not be its own",
        within("tools/cancelling.py", TROUBLE),
        "    if limited_to(desk.account) is not None and not await _is_known(desk, session_id):\n",
        "    if False:\n",
    ),
    plant(
        "rest: what the store cannot show is left alive",
        within("server/http/invocations.py", TROUBLE),
        "    if limited_to(desk.account) is None:",
        "    if False:",
    ),
    plant(
        "a log loses its last line where that has no newline",
        within("engine/run_folder.py", "test_run_folder"),
        '        for line in reader.finish():\n            yield f"{line}\\n"\n',
        "        reader.finish()\n",
    ),
)
