"""Bugs to plant in what the official conformance suite, and whoever reads our list of tools, must notice."""

from __future__ import annotations

from .plant import Plant, plant, within

SUITE = "test_conformance.py::test_the_official_suite_finds_nothing_but_what_is_written_down"
SNAPSHOTS = "test_tool_snapshots.py::test_"

PLANTS: tuple[Plant, ...] = (
    plant(
        "conformance: an output schema is no object",
        within("tools/schemas.py", SUITE),
        '"type": "object", "anyOf": [*arms',
        '"type": "array", "anyOf": [*arms',
    ),
    plant(
        "conformance: the server has no tools",
        within("server/app.py", SUITE),
        "            tools=shown,\n",
        "            tools=[],\n",
    ),
    plant(
        "tools/list: what the schemas of answers leave out is sent",
        within(
            "tools/schemas.py",
            f"{SNAPSHOTS}the_whole_list_as_it_goes_over_standard_output_is_short",
        ),
        ' if key in {"type", "required", "properties"}}',
        "}",
    ),
    plant(
        "tools/list: an argument is not described",
        within(
            "tools/arguments.py", f"{SNAPSHOTS}what_a_linter_of_tool_definitions_counts_is_there"
        ),
        'ProjectId = Annotated[str, _id("From bilt_list_projects."),',
        'ProjectId = Annotated[str, _id(""),',
    ),
)
