"""Figures that were kept as JSON, as tables in Markdown: at the marks in a page that ask for them.

`<!-- figures -->` and `<!-- /figures -->` hold between them all rows and what each floor is; `<!-- figures: warm,
cancel -->` only these rows. `<!-- peers -->` holds the comparison with others, `<!-- clients -->` what clients
could do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .figures import Target, told

Found = Mapping[str, Any]
"""What `bilt-mcp bench --json` has written, or the comparison with peers: `machine` and `rows`."""

MARKS = re.compile(r"(<!-- (figures|peers|clients)(?:: *(.*?))? -->\n).*?(<!-- /\2 -->)", re.DOTALL)
FIGURES_HEAD = ("", "floor p50", "ours p50", "ratio", "p95", "p99", "target", "reached")
PEERS_HEAD = (
    "",
    "version",
    "start of a step",
    "cancel: answered",
    "cancel: all dead",
    "alive when answered",
    "alive in the end",
    "memory",
    "first answer",
)
CLIENTS_HEAD = ("client", "version", "on mcp", "protocol")
OURS = "bilt-mcp"
CANNOT = "–"


class NoFigures(Exception):
    """A page asks for figures that are not there; the text says which."""


def fill(
    page: str, figures: Found | None, peers: Found | None, clients: Found | None = None
) -> str:
    """The page with the table that belongs there between each two marks. Raises `NoFigures`."""

    def table(match: re.Match[str]) -> str:
        begin, kind, names, end = match.groups()
        found = {"figures": figures, "peers": peers, "clients": clients}[kind]
        if found is None:
            raise NoFigures(f"the page asks for {kind}, which were not given")
        chosen = [name.strip() for name in (names or "").split(",") if name.strip()]
        if kind == "figures":
            text = figures_table(found, chosen)
        else:
            text = peers_table(found) if kind == "peers" else clients_table(found)
        return f"{begin}\n{text}\n{end}"

    return MARKS.sub(table, page)


def figures_table(found: Found, names: Sequence[str] = ()) -> str:
    """Ours beside the floor, the command and the machine. Without names every row, and what each floor is."""
    rows = chosen_rows(found, names)
    lines = [_line(FIGURES_HEAD), "|---|--:|--:|--:|--:|--:|---|---|"]
    lines += [_line(_figures_cells(row)) for row in rows]
    if not names:
        lines += [
            "",
            "The floor is the least that could do the same, measured in the same run:",
            "",
        ]
        lines += [f"* {'; '.join(of)}: {floor}" for floor, of in _floors(rows).items()]
    lines += ["", made_by(found), ""]
    return "\n".join(lines)


def chosen_rows(found: Found, names: Sequence[str]) -> list[Found]:
    """The rows of these names in this order, or all of them. Raises `NoFigures`."""
    rows: dict[str, Found] = {row["name"]: row for row in found["rows"]}
    if missing := [name for name in names if name not in rows]:
        raise NoFigures(f"no rows {', '.join(missing)}; there are {', '.join(rows)}")
    return [rows[name] for name in names or rows]


def label(row: Found) -> str:
    """What a row is about, and what was counted meanwhile."""
    counts = "".join(f" ({told(value)} {name})" for name, value in row["counts"].items())
    return f"{row['what'].strip()}{counts}"


def amount(value: float | None, unit: str = "") -> str:
    """A figure with its unit; what is not there is a dash."""
    return CANNOT if value is None else f"{told(value)} {unit}".strip()


def made_by(found: Found) -> str:
    """The command and the machine, in a sentence."""
    facts: Found = found["machine"]
    made = f"Made by `{found['command']}`" if found.get("command") else "Made"
    return f"{made} on: {', '.join(f'{name} {value}' for name, value in facts.items() if value)}."


def peers_table(found: Found) -> str:
    """Each peer with the same job, ours among them, and how each was set up."""
    rows = [row for row in found["rows"] if not row.get("skipped")]
    lines = [_line(PEERS_HEAD), "|---|---|--:|--:|--:|--:|--:|--:|--:|"]
    lines += [_line(_peer_cells(row)) for row in rows]
    lines += ["", f"Times are medians; {CANNOT} is what a peer has not. {made_by(found)}", ""]
    for row in found["rows"]:
        if said := row.get("skipped") or row.get("note"):
            lines.append(f"* {row['peer']}: {'not measured: ' if row.get('skipped') else ''}{said}")
    return "\n".join([*lines, ""])


def clients_table(found: Found) -> str:
    """What each client could do, how a failed call's JSON reaches its caller, and who was not run."""
    rows = [row for row in found["rows"] if not row["skipped"]]
    asked = list(rows[0]["did"]) if rows else []
    head = (*CLIENTS_HEAD, *asked, "an error arrives as")
    lines = [_line(head), "|---|---|---|---|" + ":-:|" * len(asked) + "---|"]
    lines += [_line(_client_cells(row)) for row in rows]
    lines += ["", made_by(found), ""]
    lines += [
        f"* {row['client']}: not run: {row['skipped']}" for row in found["rows"] if row["skipped"]
    ]
    return "\n".join([*lines, ""] if lines[-1] else lines)


def _client_cells(row: Found) -> Sequence[str]:
    yes = {"gate": "asked" if row["asks"] else "refused"}
    did = [yes.get(name, "yes") if could else "**no**" for name, could in row["did"].items()]
    return (
        *(f"{row['client']}: `{row['package']}`", row["version"], row["sdk"]),
        *(row["protocol"] or "", *did, row["failure"]),
    )


def middle(row: Found, name: str) -> float | None:
    """A figure of a peer: one that was measured once, or the median of many; None where it has none."""
    value: Any = row.get(name)
    if value is None or isinstance(value, float | int):
        return value
    median: float = value["p50"]
    return median


def dead(row: Found) -> str:
    """How long until everything of a cancelled job was dead, or that it never was."""
    if row.get("survivors_after"):
        return "never"
    return amount(middle(row, "cancel_dead_ms"), "ms")


def _peer_cells(row: Found) -> Sequence[str]:
    return (
        f"**{row['peer']}**" if row["peer"] == OURS else row["peer"],
        row.get("version") or "",
        amount(middle(row, "start_ms"), "ms"),
        amount(middle(row, "cancel_answer_ms"), "ms"),
        dead(row),
        amount(row.get("survivors_at_answer")),
        amount(row.get("survivors_after")),
        amount(middle(row, "memory_mib"), "MiB"),
        amount(middle(row, "first_answer_ms"), "ms"),
    )


def _figures_cells(row: Found) -> Sequence[str]:
    unit, ours, floor = row["unit"], row["ours"], row["floor"]
    return (
        label(row),
        amount(floor["p50"], unit) if floor else "",
        f"**{amount(ours['p50'], unit)}**",
        "" if row["ratio"] is None else f"{told(row['ratio'])} ×",
        amount(ours["p95"], unit),
        amount(ours["p99"], unit),
        Target(**row["target"]).told(unit) if row["target"] else "",
        {True: "yes", False: "**no**", None: ""}[row["ok"]],
    )


def _floors(rows: Sequence[Found]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in rows:
        if row["floor_is"]:
            found.setdefault(row["floor_is"], []).append(row["what"].strip())
    return found


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
