"""The schemas that tools/list publishes: everything a caller needs, in as few characters as that takes."""

from __future__ import annotations

from typing import Any, get_args

from .results import Result, SessionStatus

ERROR_SCHEMA: dict[str, Any] = {"required": ["error", "details"]}
"""The documented shape of a failure, `{"error": string, "details": object}`."""

Schema = dict[str, Any]

_PLAIN: tuple[Schema, ...] = ({"type": "string"}, {"type": ["string", "null"]})

_STATUSES = len(get_args(SessionStatus))
"""The one list of values that a caller has to branch on."""


def output_schema(*successes: type[Result]) -> Schema:
    """`anyOf[success, error]`: a client that validates would otherwise throw the error away."""
    arms = [_arm(success) for success in successes]
    return {"type": "object", "anyOf": [*arms, ERROR_SCHEMA]}


def _arm(success: type[Result]) -> Schema:
    schema = success.model_json_schema(mode="serialization")
    arm: Schema = _inlined(lean(schema), schema.get("$defs", {}))
    return _brief(arm)


def _brief(table: Schema) -> Schema:
    """Fields that are always there; a string, or null, is only named. What may be missing is not told."""
    required: list[str] = table["required"]
    fields = {name: _plain(table["properties"][name]) for name in required}
    typed = {name: field for name, field in fields.items() if field not in _PLAIN}
    return {"required": required, "properties": typed} if typed else {"required": required}


def _plain(field: Schema) -> Schema:
    """A field's type. What its values mean stands in the tool's description and in the contract."""
    kept = {key: value for key, value in field.items() if key in {"type", "required", "properties"}}
    if "required" in field.get("items", {}):
        kept["items"] = {"required": field["items"]["required"]}
    if len(field.get("enum", [])) == _STATUSES:
        kept["enum"] = field["enum"]
    return kept


def _inlined(schema: Any, definitions: Schema) -> Any:
    """Without references, and with `["string", "null"]` for what may be null."""
    if isinstance(schema, list):
        parts: list[Any] = schema  # pyright: ignore[reportUnknownVariableType]
        return [_inlined(part, definitions) for part in parts]
    if not isinstance(schema, dict):
        return schema
    table: Schema = schema  # pyright: ignore[reportUnknownVariableType]
    if "$ref" in table:
        inner = lean(definitions[table["$ref"].rpartition("/")[2]])
        return {"type": "object", **_brief(_inlined(inner, definitions))}
    found: Schema = {
        key: _inlined(value, definitions) for key, value in table.items() if key != "$defs"
    }
    arms: list[Schema] = found.get("anyOf", [])
    if len(arms) == 2 and arms[1] == {"type": "null"}:
        del found["anyOf"]
        return {**arms[0], **found, "type": [arms[0]["type"], "null"]}
    return found


def lean(schema: Schema) -> Schema:
    """A schema without the titles and model docstrings that pydantic adds: they cost tokens and say nothing."""
    cleaned: Schema = _lean(schema)
    return cleaned


def _lean(schema: Any, inside: str = "") -> Any:
    if isinstance(schema, list):
        parts: list[Any] = schema  # pyright: ignore[reportUnknownVariableType]
        return [_lean(part) for part in parts]
    if not isinstance(schema, dict):
        return schema
    table: dict[str, Any] = schema  # pyright: ignore[reportUnknownVariableType]
    names = inside in {"properties", "$defs"}
    drop = set[str]()
    if not names:
        drop = {"title", "description"} if "properties" in table else {"title"}
    return {key: _lean(value, key) for key, value in table.items() if key not in drop}
