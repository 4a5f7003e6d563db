"""Shapes: JSON Schema, as much of it as the API needs, read by the OpenAPI document and by the check of what comes in.

The rule it keeps: one table says what a body may be, and it is both shown and enforced. A keyword that the check does
not know is a mistake of ours, found when the table is made. Schemas mean what JSON Schema 2020-12 says: a pattern is
searched for, 1.0 is an integer, true is no number, and characters are code points.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Final

Schema = Mapping[str, Any]

NAMED: Final[dict[str, Schema]] = {}
"""Schemas that have a name: `components/schemas` of the document."""

_KNOWN: Final = {
    *("type", "properties", "required", "additionalProperties", "items", "minItems", "maxItems", "uniqueItems"),
    *("enum", "const", "minimum", "maximum", "exclusiveMinimum", "minLength", "maxLength", "pattern", "anyOf"),
    *("minProperties", "maxProperties", "$ref", "description", "default", "examples", "format"),
}
_DEPTH: Final = 32


def name(title: str, schema: Schema) -> Schema:
    """Gives a schema a name; returns what refers to it."""
    judge(schema)
    NAMED[title] = schema
    return {"$ref": f"#/components/schemas/{title}"}


def table(
    required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None, *, open: bool = False
) -> Schema:
    """An object with these properties and, unless it is open, no others."""
    made: dict[str, Any] = {"type": "object", "properties": {**required, **(optional or {})}}
    if required:
        made["required"] = list(required)
    if not open:
        made["additionalProperties"] = False
    return made


def listed(items: Schema, most: int | None = None, **more: Any) -> Schema:
    """An array."""
    return {"type": "array", "items": items, **({} if most is None else {"maxItems": most}), **more}


def or_null(schema: Schema) -> Schema:
    """The same, or nothing."""
    return {"anyOf": [schema, {"type": "null"}]}


TEXT: Final[Schema] = {"type": "string"}
NUMBER: Final[Schema] = {"type": "number"}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
YES_NO: Final[Schema] = {"type": "boolean"}
TIME: Final[Schema] = {"type": "number", "description": "Unix seconds"}
ANYTHING: Final[Schema] = {"type": "object", "description": "as the node said it"}


def words(*choices: str) -> Schema:
    """One of some words."""
    return {"type": "string", "enum": list(choices)}


def text(most: int, least: int = 0, pattern: str | None = None) -> Schema:
    """A string of so many characters."""
    return {"type": "string", "minLength": least, "maxLength": most, **({"pattern": pattern} if pattern else {})}


def judge(schema: Schema) -> None:
    """ValueError if a schema has a keyword that `check` does not know."""
    if unknown := set(schema) - _KNOWN:
        raise ValueError(f"keywords that are not checked: {unknown}")
    parts = [*schema.get("properties", {}).values(), *schema.get("anyOf", [])]
    parts += [schema[key] for key in ("items", "additionalProperties") if isinstance(schema.get(key), Mapping)]
    for part in parts:
        judge(part)


def check(schema: Schema, value: Any, where: str = "", depth: int = 0) -> str | None:
    """What is wrong with a value, in words; None if nothing is."""
    here = where or "the body"
    if depth > _DEPTH:
        return f"{here} is nested too deeply"
    if "$ref" in schema:
        return check(NAMED[schema["$ref"].rpartition("/")[2]], value, where, depth + 1)
    if "anyOf" in schema:
        found = [check(part, value, where, depth + 1) for part in schema["anyOf"]]
        return None if None in found else next(text for text in found if text)
    if "type" in schema and not _is(schema["type"], value):
        return f"{here} must be {_WORDS[schema['type']]}"
    if "const" in schema and not _same(value, schema["const"]):
        return f"{here} must be {schema['const']!r}"
    if "enum" in schema and not any(_same(value, choice) for choice in schema["enum"]):
        return f"{here} must be one of {', '.join(map(str, schema['enum']))}"
    if isinstance(value, str):
        return _string(schema, value, here)
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return _number(schema, value, here)
    if isinstance(value, list):
        return _array(schema, value, where, depth)
    return _object(schema, value, where, depth)


_WORDS: Final = {
    "string": "a string",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "array": "an array",
    "object": "an object",
    "null": "null",
}


def _is(kind: str, value: Any) -> bool:
    match kind:
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "null":
            return value is None
        case "array":
            return isinstance(value, list)
        case "object":
            return isinstance(value, dict)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return False
    return kind == "number" or isinstance(value, int) or value.is_integer()


def _same(one: Any, other: Any) -> bool:
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _string(schema: Schema, value: str, here: str) -> str | None:
    if len(value) < schema.get("minLength", 0):
        return f"{here} is too short: at least {schema['minLength']} characters"
    if len(value) > schema.get("maxLength", math.inf):
        return f"{here} is too long: at most {schema['maxLength']} characters"
    if "pattern" in schema and not re.search(schema["pattern"], value):
        return f"{here} must look like {schema['pattern']}"
    return None


def _number(schema: Schema, value: float, here: str) -> str | None:
    if value < schema.get("minimum", -math.inf):
        return f"{here} must be at least {schema['minimum']}"
    if value > schema.get("maximum", math.inf):
        return f"{here} must be at most {schema['maximum']}"
    if value <= schema.get("exclusiveMinimum", -math.inf):
        return f"{here} must be more than {schema['exclusiveMinimum']}"
    return None


def _array(schema: Schema, value: list[Any], where: str, depth: int) -> str | None:
    here = where or "the body"
    if len(value) < schema.get("minItems", 0):
        return f"{here} must have at least {schema['minItems']} items"
    if len(value) > schema.get("maxItems", math.inf):
        return f"{here} must have at most {schema['maxItems']} items"
    if schema.get("uniqueItems") and len({repr(item) for item in value}) < len(value):
        return f"{here} has something twice"
    for number, item in enumerate(value):
        if "items" in schema and (problem := check(schema["items"], item, f"{where}[{number}]", depth + 1)):
            return problem
    return None


def _object(schema: Schema, value: dict[str, Any], where: str, depth: int) -> str | None:
    here = where or "the body"
    for key in schema.get("required", ()):
        if key not in value:
            return f"{here} lacks {key}"
    if len(value) < schema.get("minProperties", 0):
        return f"{here} must have at least {schema['minProperties']} entries"
    if len(value) > schema.get("maxProperties", math.inf):
        return f"{here} must have at most {schema['maxProperties']} entries"
    known, rest = schema.get("properties", {}), schema.get("additionalProperties", True)
    for key, item in value.items():
        part = known.get(key, rest)
        path = f"{where}.{key}" if where else key
        if part is False:
            return f"{here} has {key!r}, which is unknown"
        if isinstance(part, Mapping) and (problem := check(part, item, path, depth + 1)):
            return problem
    return None
