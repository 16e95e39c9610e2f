"""The examples run as they stand, each with the client or framework that it is about, and say what they promise."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from .clients.environments import Unavailable, installed
from .clients.known import KNOWN
from .support.places import Place
from .support.places import place as place  # a fixture

EXAMPLES = Path(__file__).parent.parent / "examples"
FRAMEWORKS = sorted((EXAMPLES / "frameworks").glob("*.py"))
ENDLESS = '[[step]]\nname = "build"\nrun = "sleep 1000"\n'
MOST_LINES = 80


def run(python: str, example: Path, place: Place, *arguments: str) -> str:
    """What an example says, run as a person would: with the installed command on PATH."""
    path = f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ.get('PATH', '')}"
    done = subprocess.run(
        [python, str(example), *arguments],
        cwd=place.project,
        env={**place.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    return done.stdout


def python_of(environment: str) -> str:
    """The interpreter of a client's environment; made when it is missing, which takes three seconds."""
    known = next(known for known in KNOWN if known.environment == environment)
    try:
        return installed(known)[0]
    except Unavailable as why:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"{environment}: {why}")


def test_the_plain_client_follows_a_build_and_reads_it(place: Place) -> None:
    said = run(sys.executable, EXAMPLES / "plain_client.py", place, *place.arguments)
    assert "completed All steps done\n" in said
    assert said.count("     build  built\n") == 1


def test_the_plain_client_says_what_is_missing(place: Place) -> None:
    (place.project / "bilt.toml").unlink()
    with pytest.raises(AssertionError, match="No workflow configured: "):
        run(sys.executable, EXAMPLES / "plain_client.py", place, *place.arguments)


def test_the_embedded_server_stops_a_build_and_says_why_not_twice(place: Place) -> None:
    place.workflow(ENDLESS)
    folders = (str(place.project), str(place.store))
    said = run(sys.executable, EXAMPLES / "in_process.py", place, *folders)
    # It may be so quick that the step has started nothing yet.
    assert re.fullmatch(
        r"running build\ncancelled: [01] killed, 0 left\n"
        r"Cannot cancel workflow: Workflow is already cancelled\n",
        said,
    )


@pytest.mark.timeout(300)  # a first run installs
@pytest.mark.parametrize("example", FRAMEWORKS, ids=lambda example: example.stem)
def test_an_agent_of_a_framework_builds_and_says_what_was_said(example: Path, place: Place) -> None:
    environment = example.stem.removesuffix("_agent").replace("_", "-")
    said = run(python_of(environment), example, place, *place.arguments).splitlines()
    assert said[:3] == [
        "calls bilt_get_session",
        "calls bilt_send_message",
        "calls bilt_get_messages",
    ]
    assert said[3] == "The build is completed:"
    assert "built" in said[4:]


def test_there_is_an_example_for_each_framework_that_is_promised() -> None:
    assert [example.stem for example in FRAMEWORKS] == [
        "langchain_agent",
        "openai_agents_agent",
        "pydantic_ai_agent",
    ]


def test_an_example_can_be_read_at_a_glance() -> None:
    long = {
        example.name
        for example in [*EXAMPLES.glob("*.py"), *FRAMEWORKS]
        if len(example.read_text("utf-8").splitlines()) > MOST_LINES
    }
    assert long == {"demo.py"}  # which is a show, not documentation
