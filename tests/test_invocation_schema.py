"""The answers' types are those of bctrl's own page, field for field, in both directions."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, cast

import pytest
from pydantic import TypeAdapter

from bilt_mcp.server.http.app import OPERATIONS
from bilt_mcp.server.http.invocation_models import Invocation
from bilt_mcp.server.http.openapi import document

from .support.seed import ANSWER, Json, seed_document, shape


def ours() -> Json:
    return TypeAdapter(Invocation).json_schema(mode="serialization")


def theirs(document: Json | None = None) -> Any:
    found = document or seed_document()
    return shape(found["components"]["schemas"][ANSWER], found)


def first_difference(one: Any, other: Any, place: str = "") -> str | None:
    """Where two shapes differ first, for a reader."""
    left, right = _parts(one), _parts(other)
    if left is None or right is None:
        return None if one == other else f"{place}: {one!r} and {other!r}"
    for key in sorted({*left, *right}):
        if key not in left or key not in right:
            return f"{place}.{key}: only in {'one' if key in left else 'the other'}"
        if found := first_difference(left[key], right[key], f"{place}.{key}"):
            return found
    return None


def _parts(value: Any) -> Json | None:
    if isinstance(value, dict):
        return cast("Json", value)
    if isinstance(value, list | tuple):
        return {f"{at:03}": part for at, part in enumerate(cast("list[Any]", value))}
    return None


def test_an_invocation_is_typed_as_on_the_page_field_for_field() -> None:
    mine = shape(ours(), ours())
    assert first_difference(mine, theirs()) is None
    assert mine == theirs()
    # Nothing was compared if nothing was read.
    assert len(theirs()["members"]) == 24
    assert sum(required for required, _ in theirs()["members"].values()) == 12


def test_the_published_document_shows_the_same_for_every_route_that_answers_an_invocation() -> None:
    published = document(OPERATIONS)
    seen: list[str] = []
    for path, methods in published["paths"].items():
        for method, told in methods.items():
            for status in ("200", "202"):
                media = told["responses"].get(status, {}).get("content", {})
                schema = media.get("application/json", {}).get("schema", {})
                if schema.get("$ref", "").endswith("/Invocation"):
                    seen.append(f"{method} {path} {status}")
                    assert shape(schema, published) == theirs()
    assert seen == [
        "post /v1/spaces/{id}/runtimes/{runtimeId}/invocations 202",
        "get /v1/invocations/{id} 200",
        "post /v1/invocations/{id}/wait 200",
        "post /v1/invocations/{id}/cancel 200",
    ]


def test_the_route_of_the_page_is_there_with_its_method_and_parameters() -> None:
    published = document(OPERATIONS)
    for path, methods in seed_document()["paths"].items():
        for method, told in methods.items():
            mine = published["paths"][path][method]
            asked = {
                (p["name"], p["in"]) for p in told["parameters"] if p["name"] != "Authorization"
            }
            assert {(p["name"], p["in"]) for p in mine["parameters"]} == asked
            assert mine["security"] == [{"bearer": []}]
            assert set(told["responses"]) <= set(mine["responses"])


def _only(schemas: Json, end: str) -> Json:
    (found,) = [schema for key, schema in schemas.items() if key.endswith(end)]
    schema: Json = found
    return schema


CHANGES: dict[str, Callable[[Json], Any]] = {
    "a field is gone": lambda s: s[ANSWER]["properties"].pop("sequenceNo"),
    "a field is new": lambda s: s[ANSWER]["properties"].update(extra={"type": "string"}),
    "a field is required": lambda s: s[ANSWER]["required"].append("progress"),
    "a field is not required": lambda s: s[ANSWER]["required"].remove("runId"),
    "a field may be null": lambda s: s[ANSWER]["properties"]["entryCall"].update(
        type=["string", "null"]
    ),
    "a field may not be null": lambda s: s[ANSWER]["properties"]["startedAt"].update(type="string"),
    "a type is another": lambda s: s[ANSWER]["properties"]["stepCount"].update(type="string"),
    "a format is another": lambda s: s[ANSWER]["properties"]["id"].pop("format"),
    "a word is gone": lambda s: _only(s, "SchemaStatus")["enum"].remove("dispatching"),
    "a nested field is gone": lambda s: _only(s, "SchemaProgress")["properties"].pop("step"),
    "a deeply nested field is required": lambda s: _only(s, "ErrorDiagnostic")["required"].append(
        "closest"
    ),
    "one of two kinds of step is gone": lambda s: _only(s, "ResultStepsItems")["oneOf"].pop(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_page_that_says_something_else_is_noticed(change: str) -> None:
    other = copy.deepcopy(seed_document())
    CHANGES[change](other["components"]["schemas"])
    assert theirs(other) != shape(ours(), ours())
