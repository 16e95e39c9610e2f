"""Tables and pictures are made from kept figures: at marked places, and drawn to scale."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from bilt_mcp.bench.figures import Row, Target, as_json, show
from bilt_mcp.bench.plot import figures_picture, peers_picture
from bilt_mcp.bench.tables import NoFigures, clients_table, figures_table, fill, peers_table

SVG = "{http://www.w3.org/2000/svg}"
PAGE = """\
# A page

<!-- figures: slow -->
an old table
<!-- /figures -->

Between.

<!-- figures -->
<!-- /figures -->

The end.
"""


def kept(*rows: Row) -> dict[str, Any]:
    """What `--json` writes, read back."""
    found: dict[str, Any] = json.loads(as_json(rows, {"cores": "2"}, "bilt-mcp bench --quick"))
    return found


def row(name: str, ours: float, **target: float) -> Row:
    """A row whose floor is 1 ms, and ours always the same."""
    limits = Target(**target) if target else None
    return Row(name, f"what {name} is", f"{name}'s floor", target=limits, floor=[1.0], ours=[ours])


def peer(name: str, **measured: Any) -> dict[str, Any]:
    """A row of the comparison; what is not given, it cannot."""
    keys = ("start_ms", "cancel_answer_ms", "cancel_dead_ms", "memory_mib", "first_answer_ms")
    more = ("survivors_at_answer", "survivors_after", "note", "skipped", "version")
    return {"peer": name, **dict.fromkeys((*keys, *more)), **measured}


def times(median: float) -> dict[str, float]:
    """As the comparison writes what was measured often."""
    return {"p50": median, "p95": 2 * median, "n": 10}


PEERS: dict[str, Any] = {
    "command": "make bench-peers",
    "machine": {"cores": "2"},
    "rows": [
        peer(
            "bilt-mcp",
            version="1",
            start_ms=times(30),
            cancel_answer_ms=times(20),
            cancel_dead_ms=times(15),
            survivors_at_answer=0.0,
            survivors_after=0.0,
            memory_mib=10,
            first_answer_ms=times(40),
            note="as it is",
        ),
        peer(
            "R&D <other>",
            version="2",
            start_ms=times(60),
            cancel_answer_ms=times(5),
            survivors_at_answer=3.0,
            survivors_after=2.5,
        ),
        peer("absent", skipped="it cannot be installed"),
    ],
}


def client(name: str, **found: Any) -> dict[str, Any]:
    """A row of the clients' run; what is not given, it could do."""
    did = {"list": True, "gate": True}
    known = {"package": f"{name}-package", "version": "1.2", "sdk": "2.3", "protocol": None}
    return {
        "client": name,
        **known,
        "did": did,
        "asks": False,
        "failure": "text",
        "skipped": None,
        **found,
    }


CLIENTS: dict[str, Any] = {
    "command": "make clients",
    "machine": {"cores": "2"},
    "rows": [
        client("asking", asks=True, protocol="2026-07-28", failure="isError"),
        client("lossy", did={"list": False, "gate": True}),
        client("absent", skipped="it cannot be installed"),
    ],
}


def bars(picture: str) -> dict[str, tuple[float, float, str]]:
    """Of each line of text that names a row, or a peer: its bar's left end, width and kind."""
    drawing = ElementTree.fromstring(picture)
    found: dict[str, tuple[float, float, str]] = {}
    said = ""
    for part in drawing:
        if part.tag == f"{SVG}text":
            said = part.text or ""
        if part.tag == f"{SVG}rect" and part.get("class") in ("reached", "missed", "plain"):
            place = float(part.get("x", "")), float(part.get("width", ""))
            found.setdefault(said, (*place, part.get("class", "")))
    return found


def marks(picture: str, style: str) -> list[float]:
    """Where the targets of one kind are, from left to right without the legend's."""
    drawing = ElementTree.fromstring(picture)
    lines = [line for line in drawing.iter(f"{SVG}line") if line.get("class") == style]
    return [float(line.get("x1", "")) for line in lines][:-1]


def test_the_table_fits_into_a_terminal_and_breaks_words_nowhere(
    capsys: pytest.CaptureFixture[str],
) -> None:
    long = row("long", 1234.5, p50=40, p95=60, ratio=0.06)
    long.what = "those with a text that none has, of 1,000,000 messages among 100,000 sessions"
    long.counts["MiB more, once for all clients"] = 118
    show([long, row("slow", 0.0123)], {"cores": "2"}, to_stderr=False)
    head, _, *lines = capsys.readouterr().out.split("\n\n")[0].splitlines()
    assert max(map(len, lines)) <= 120
    told = " ".join(line[: head.index("floor p50")].strip() for line in lines[:-1])
    assert told == f"{long.what} (118 MiB more, once for all clients)"
    limits = [line[head.index("target") :].split("  ")[0] for line in lines[:3]]
    assert limits == ["p50 ≤ 40 ms,", "p95 ≤ 60 ms,", "p50 ≤ 0.06 × floor"]
    assert lines[0].split()[-1] == "NO"


def test_a_table_is_put_between_its_marks_and_nothing_else_is_touched() -> None:
    found = kept(row("fast", 0.5), row("slow", 3.25, ratio=2))
    filled = fill(PAGE, found, None)
    first, last = re.findall(r"<!-- figures.*?-->\n(.*?)<!-- /figures -->", filled, re.DOTALL)
    assert "what slow is" in first
    assert "**3.25 ms**" in first
    assert "| p50 ≤ 2 × floor | **no** |" in first
    assert "what fast is" not in first
    assert "fast's floor" in last
    assert "0.500 ×" in last
    assert "bilt-mcp bench --quick" in first
    assert "cores 2" in first
    assert "an old table" not in filled
    assert filled.startswith("# A page\n\n<!-- figures: slow -->\n")
    assert "\n\nBetween.\n\n" in filled
    assert filled.endswith("<!-- /figures -->\n\nThe end.\n")
    assert fill(filled, found, None) == filled


def test_what_a_page_asks_for_and_is_not_there_is_named() -> None:
    with pytest.raises(NoFigures, match="slow"):
        fill(PAGE, kept(row("fast", 1)), None)
    with pytest.raises(NoFigures, match="peers"):
        fill("<!-- peers -->\n<!-- /peers -->", kept(row("fast", 1)), None)
    with pytest.raises(NoFigures, match="clients"):
        fill("<!-- clients -->\n<!-- /clients -->", kept(row("fast", 1)), PEERS)


def test_every_percentile_and_every_count_is_in_the_table() -> None:
    many = Row("many", "many of them", "", unit="MiB", ours=[float(n) for n in range(1, 102)])
    many.counts["survivors"] = 4
    table = figures_table(kept(many))
    assert (
        "| many of them (4 survivors) |  | **51 MiB** |  | 96 MiB | 100 MiB |  | **no** |" in table
    )


def test_a_bar_goes_from_the_floor_to_our_ratio_on_a_logarithmic_scale() -> None:
    found = kept(row("tenth", 0.1), row("ten", 10, ratio=20), row("hundred", 100, ratio=20))
    drawn = bars(figures_picture(found))
    (left, tenth, plain), (one, ten, reached), (also_one, hundred, missed) = (
        drawn[f"what {name} is"] for name in ("tenth", "ten", "hundred")
    )
    assert [plain, reached, missed] == ["plain", "reached", "missed"]
    assert left + tenth == pytest.approx(one, abs=0.2)
    assert one == also_one
    assert tenth == pytest.approx(ten, abs=0.2)
    assert hundred == pytest.approx(2 * ten, abs=0.3)


def test_a_target_is_marked_where_a_bar_would_just_reach_it() -> None:
    found = kept(row("ratio", 5, ratio=5), row("time", 5, p50=5), row("tail", 5, p95=5))
    picture = figures_picture(found)
    ends = {left + width for left, width, _ in bars(picture).values()}
    (end,) = {round(end, 1) for end in ends if end > 300}
    assert marks(picture, "limit") == pytest.approx([end, end], abs=0.2)
    assert marks(picture, "limit tail") == pytest.approx([end], abs=0.2)


def test_bars_of_peers_are_to_scale_and_what_a_peer_has_not_is_said() -> None:
    picture = peers_picture(PEERS)
    drawn = bars(picture)
    assert drawn["R&D <other>"][1] == pytest.approx(2 * drawn["bilt-mcp"][1], abs=0.2)
    said = [word for word in ElementTree.fromstring(picture).itertext() if "R&D" not in word]
    assert said.count("–") == 2
    assert said[said.index("never") :][:2] == ["never", "2.50 left alive"]
    assert "absent" not in said


def test_the_table_of_peers_says_who_never_died_and_who_was_not_measured() -> None:
    table = peers_table(PEERS)
    assert "| **bilt-mcp** | 1 | 30 ms | 20 ms | 15 ms | 0 | 0 | 10 MiB | 40 ms |" in table
    assert "| R&D <other> | 2 | 60 ms | 5 ms | never | 3 | 2.50 | – | – |" in table
    assert "* bilt-mcp: as it is\n" in table
    assert "| absent" not in table
    assert "* absent: not measured: it cannot be installed\n" in table
    assert "make bench-peers" in table


def test_the_table_of_clients_says_what_each_could_not_do_and_how_it_tells_an_error() -> None:
    table = clients_table(CLIENTS)
    assert "| client | version | on mcp | protocol | list | gate | an error arrives as |" in table
    assert "| asking: `asking-package` | 1.2 | 2.3 | 2026-07-28 | yes | asked | isError |" in table
    assert "| lossy: `lossy-package` | 1.2 | 2.3 |  | **no** | refused | text |" in table
    assert "| absent" not in table
    assert "* absent: not run: it cannot be installed\n" in table
    assert "make clients" in table


@pytest.mark.parametrize("what", ["figures", "peers"])
def test_a_picture_is_text_for_light_and_dark_and_fetches_nothing(what: str) -> None:
    picture = figures_picture(kept(row("a", 2))) if what == "figures" else peers_picture(PEERS)
    assert "prefers-color-scheme: dark" in picture
    assert set(re.findall(r"https?://[^\"'\s]+", picture)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<(script|image|foreignObject|use)|url\(|@import|href", picture)
    drawing = ElementTree.fromstring(picture)
    height = float(drawing.get("height", ""))
    width = float(drawing.get("width", ""))
    for text in drawing.iter(f"{SVG}text"):
        assert 0 < float(text.get("x", "")) < width
        assert 0 < float(text.get("y", "")) < height


def test_the_program_fills_pages_and_draws(tmp_path: Path) -> None:
    (tmp_path / "figures.json").write_text(as_json([row("slow", 2)], {}, "x"), "utf-8")
    (tmp_path / "peers.json").write_text(json.dumps(PEERS), "utf-8")
    (tmp_path / "clients.json").write_text(json.dumps(CLIENTS), "utf-8")
    marks = "<!-- peers -->\n<!-- /peers -->\n<!-- clients -->\n<!-- /clients -->\n"
    (tmp_path / "page.md").write_text(PAGE + marks, "utf-8")
    program = [sys.executable, "-P", "-m", "bilt_mcp.bench.picture", "figures.json"]
    given = (
        "--peers",
        "peers.json",
        "--clients",
        "clients.json",
        "--draw",
        ".",
        "--fill",
        "page.md",
    )
    subprocess.run([*program, *given], cwd=tmp_path, check=True)
    page = (tmp_path / "page.md").read_text("utf-8")
    assert "what slow is" in page
    assert "R&D" in page
    assert "asking-package" in page
    assert (tmp_path / "figures.svg").read_text("utf-8").startswith("<svg")
    assert (tmp_path / "peers.svg").read_text("utf-8").startswith("<svg")
    done = subprocess.run(
        [*program, "--fill", "page.md"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "asks for peers" in done.stderr
