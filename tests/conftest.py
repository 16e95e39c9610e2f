"""What every test can ask for."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from bilt_mcp.state import SessionStore

from .conformance.report import say_conformance
from .store_contract import BACKENDS, Backend, ManualClock, OpenStore, Scene
from .support.loud import say_not_run
from .support.places import GONE_SECONDS
from .support.proof import Proof, add_options, factor, mark, say_figures, shorten

# How fast this machine is, and how busy, is not what is tested.
settings.register_profile(
    "unhurried", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("unhurried")


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser)


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    mark(config, items)
    shorten(config, items)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    say_conformance(terminalreporter)
    say_figures(terminalreporter, config)
    say_not_run(terminalreporter)


@pytest.fixture
def proof(request: pytest.FixtureRequest) -> Proof:
    """A proof programme's rounds, draws and figure."""
    return Proof(request)


@pytest.fixture(scope="session")
def soak_factor(pytestconfig: pytest.Config) -> int:
    """What randomised tests multiply their rounds with that are no programme of their own."""
    return factor(pytestconfig)


@pytest.fixture(scope="session", autouse=True)
def collected() -> Iterator[None]:
    """Collects the workers that servers in this process have started; each test has told its own to go."""
    yield
    for worker in getattr(sys.modules.get("bilt_mcp.engine.local"), "_started", ()):
        worker.terminate()
        worker.wait(GONE_SECONDS)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def quick_path(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is such: many tests wait for the disk and care nothing for it."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="bilt-test-", dir=memory) as folder:
        yield Path(folder)


@pytest.fixture(params=sorted(BACKENDS))
def backend(request: pytest.FixtureRequest, quick_path: Path) -> Backend:
    """A new, empty place for a store; one test run for every implementation."""
    return BACKENDS[request.param](quick_path)


@pytest.fixture
def open_store(backend: Backend, clock: ManualClock) -> OpenStore:
    """Opens the test's store; each call another object on the same place, as another process has."""
    return lambda: backend.open(clock)


@pytest.fixture
async def store(open_store: OpenStore) -> AsyncIterator[SessionStore]:
    async with open_store() as opened:
        yield opened


@pytest.fixture
async def other(open_store: OpenStore) -> AsyncIterator[SessionStore]:
    """A second store object on the same place."""
    async with open_store() as opened:
        yield opened


@pytest.fixture
def scene(store: SessionStore) -> Scene:
    return Scene(store)
