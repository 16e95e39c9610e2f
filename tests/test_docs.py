"""What a reader of the documentation must find there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from bilt_mcp.bench.picture import load as load_figures
from bilt_mcp.bench.plot import figures_picture, peers_picture
from bilt_mcp.bench.tables import MARKS, fill
from bilt_mcp.engine.workflow_file import load
from bilt_mcp.engine.workflow_step import Limits, ProjectTable, Step
from bilt_mcp.server import __main__ as program
from bilt_mcp.state import VERSION, FailureCode, Status
from bilt_mcp.tools import TOOLS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
FIGURES = ROOT / "docs" / "figures.json"
PEERS = ROOT / "docs" / "peers.json"
CLIENTS = ROOT / "docs" / "clients.json"
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]


@pytest.mark.parametrize("name", [tool.name for tool in TOOLS])
def test_the_readme_names_every_tool(name: str) -> None:
    assert f"`{name}`" in README


@pytest.mark.parametrize("word", [*Status, *FailureCode])
def test_the_readme_names_every_status_and_every_failure(word: str) -> None:
    assert f"`{word}`" in README


@pytest.mark.parametrize("table", [ProjectTable, Limits, Step])
def test_the_readme_shows_every_key_of_a_workflow_file(
    table: type[ProjectTable | Limits | Step],
) -> None:
    shown = set(re.findall(r"^(\w+) = ", README, re.MULTILINE))
    assert set(table.model_fields) <= shown


def test_the_workflow_file_that_the_readme_shows_is_valid(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    blocks: list[str] = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    shown = max((block.replace("\n   ", "\n") for block in blocks), key=len)
    assert tomllib.loads(shown)
    (tmp_path / "bilt.toml").write_text(shown, "utf-8")
    assert [step.name for step in load(tmp_path).steps] == ["build", "deploy"]


def test_the_readme_names_every_option_and_variable(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        program.main(["--help"])
    told = capsys.readouterr().out
    options = set(re.findall(r"--[a-z]+", told)) - {"--help", "--version"}
    assert options
    assert all(f"`{option}" in README for option in options)
    variables = set(re.findall(r"BILT_[A-Z_]+", (ROOT / "server" / "config.py").read_text("utf-8")))
    assert variables
    assert all(f"`{variable}`" in README for variable in variables)


def test_every_link_within_the_documentation_leads_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_program_has_the_version_of_its_package() -> None:
    assert (
        tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"] == VERSION
    )


def test_the_tables_of_figures_are_those_that_the_bench_has_measured() -> None:
    """`make figures` makes them from what was kept; a figure that somebody edited is found here."""
    figures = load_figures(FIGURES)
    peers = load_figures(PEERS) if PEERS.exists() else None
    clients = load_figures(CLIENTS)
    shown = {page.name: page.read_text("utf-8") for page in PAGES}
    marked = {name for name, text in shown.items() if MARKS.search(text)}
    assert marked >= {"README.md", "performance.md"}
    for name in marked:
        assert fill(shown[name], figures, peers, clients) == shown[name], f"{name}: make figures"


def test_the_pictures_of_figures_are_drawn_from_what_the_bench_has_measured() -> None:
    drawn = {"figures.svg": figures_picture(load_figures(FIGURES))}
    if PEERS.exists():
        drawn["peers.svg"] = peers_picture(load_figures(PEERS))
    for name, picture in drawn.items():
        assert (FIGURES.parent / name).read_text("utf-8") == picture, f"{name}: make figures"
        assert any(name in page.read_text("utf-8") for page in PAGES), f"no page shows {name}"
