"""What bctrl's own page says of an invocation, read from the page that is kept in docs/seeds."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import yaml

Json = dict[str, Any]

PAGE = Path(__file__).parents[2] / "docs" / "seeds" / "bctrl-cancel.md"
ANSWER = "invocations_cancel_Response_200"

_jsonschema = import_module("jsonschema")
_validator: Callable[..., Any] = _jsonschema.Draft202012Validator


@cache
def seed_document() -> Json:
    """The OpenAPI document of the page."""
    found = re.search(r"^```yaml\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert found is not None
    document: Json = yaml.safe_load(found[1])
    return document


def closed(schema: Any) -> Any:
    """The same schema, except that objects have no members but those that it names."""
    if isinstance(schema, list):
        return list(map(closed, iter(schema)))  # pyright: ignore[reportUnknownArgumentType]
    if not isinstance(schema, dict):
        return schema
    told: Json = {key: closed(value) for key, value in cast("Json", schema).items()}
    if isinstance(told.get("properties"), dict) and told.get("type") == "object":
        told["additionalProperties"] = False
    return told


@cache
def seed_validator() -> Any:
    """Finds what is wrong with an answer, also a field that the page does not have."""
    components = closed(seed_document()["components"])
    root = {"$ref": f"#/components/schemas/{ANSWER}", "components": components}
    return _validator(root, format_checker=_jsonschema.FormatChecker())


def fits(answer: Any) -> Json:
    """The answer, after it was looked at field by field."""
    wrong = [
        f"{error.json_path}: {error.message}" for error in seed_validator().iter_errors(answer)
    ]
    assert wrong == []
    found: Json = answer
    return found


def shape(schema: Json, document: Json) -> Any:
    """What a schema says about values, however it says it: two schemas that say the same have the same shape.

    Titles, descriptions, limits and the closing of objects are left out; all else is told.
    """
    while "$ref" in schema:
        found: Any = document
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        schema = found
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else list(kinds)
    options = [
        shape(each, document) for each in (*schema.get("oneOf", ()), *schema.get("anyOf", ()))
    ]
    nullable = "null" in kinds
    kinds = [kind for kind in kinds if kind != "null"]
    rest = [each for each in options if each != NULL]
    nullable = nullable or len(rest) < len(options)
    if len(rest) == 1:
        return {**rest[0], "nullable": nullable or rest[0]["nullable"]}
    told: Json = {"nullable": nullable, "type": sorted(kinds)}
    if rest:
        told["either"] = sorted(rest, key=repr)
    words = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if words is not None:
        told["enum"] = sorted(map(repr, words))
    if "format" in schema:
        told["format"] = schema["format"]
    if "items" in schema:
        told["items"] = shape(schema["items"], document)
    if "properties" in schema:
        required = set(schema.get("required", ()))
        told["members"] = {
            name: (name in required, shape(member, document))
            for name, member in sorted(schema["properties"].items())
        }
    return told


NULL: Json = {"nullable": True, "type": []}
