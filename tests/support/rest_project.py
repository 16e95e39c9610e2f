"""A server for a project with a step for each thing that an invocation can meet; one for a module of tests."""

from __future__ import annotations

from collections.abc import Generator
from uuid import uuid4

import pytest

from .hostile import alive, end
from .rest import Rest, Served, rest_server, step, tree

MARKER = f"rest-{uuid4()}"
WORKFLOW = "\n".join(
    [
        "[workflow]\nmax_parallel = 1\n",
        step(
            "build", "echo built; mkdir -p $BILT_ARTIFACTS/a; echo x > $BILT_ARTIFACTS/a/report.txt"
        ),
        step("hang", tree(MARKER), grace=0.1),
        step("fail", "echo the secret of the build; exit 3"),
        step("again", "test -e tried || { touch tried; exit 1; }", retries=1),
        step("print", "printf 'of %s' \"$BILT_STEP\""),
        step("read", 'printf %s "$BILT_ARGS" > args.txt; cp "$BILT_REF_OUTPUT" ref.txt'),
        step("ship", "touch shipped", deploy=True, confirm="Ship it to production?"),
        step("careful", "sleep 60", timeout="90s"),
    ]
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Generator[Served]:
    with rest_server(tmp_path_factory.mktemp("rest"), WORKFLOW) as found:
        try:
            yield found
        finally:
            end(alive(MARKER))


@pytest.fixture
def rest(served: Served) -> Rest:
    return served.caller
