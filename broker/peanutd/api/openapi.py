"""The OpenAPI document, made from the table of operations.

The rule it keeps: nothing is written here that the table does not say, so the document cannot promise another thing
than what `table.serve` keeps to.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from peanutd.access import Role
from peanutd.api import shape
from peanutd.api.problem import CODES, MEDIA_TYPE
from peanutd.api.table import PATHS, Operation

PREFIX: Final = "/api/v1"

PROBLEM: Final = shape.name(
    "Problem",
    shape.table(
        {"status": shape.COUNT, "code": shape.words(*CODES), "title": shape.TEXT, "detail": shape.TEXT}, open=True
    ),
)


def document(operations: Iterable[Operation], version: str) -> dict[str, Any]:
    """The document for these operations."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Peanut",
            "version": version or "0",
            "summary": "The gateway of a fleet of greenhouses and vehicles",
        },
        "servers": [{"url": PREFIX}],
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": dict(shape.NAMED),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
    }


def _operation(operation: Operation) -> dict[str, Any]:
    names = re.findall(r"{(\w+)}", operation.path)
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": PATHS.get(name, shape.TEXT)} for name in names
    ]
    parameters += [{"name": name, "in": "query", "schema": schema} for name, schema in operation.query.items()]
    made: dict[str, Any] = {
        "operationId": f"{operation.method.lower()}{re.sub(r'[^a-z0-9]+', '_', operation.path)}".rstrip("_"),
        "summary": operation.summary,
        "responses": {str(status): _answer(schema) for status, schema in operation.answers.items()},
    }
    if parameters:
        made["parameters"] = parameters
    if operation.open:
        made["security"] = []
    if operation.body is not None:
        made["requestBody"] = {"required": True, "content": {"application/json": {"schema": operation.body}}}
    for code in sorted(_codes(operation, bool(names)), key=lambda code: (CODES[code][0], code)):
        status, title = CODES[code]
        problem = made["responses"].setdefault(
            str(status), {"description": "", "content": {MEDIA_TYPE: {"schema": PROBLEM}}}
        )
        problem.setdefault("content", {}).setdefault(MEDIA_TYPE, {"schema": PROBLEM})
        problem["description"] = f"{problem['description']}; {title}".removeprefix("; ")
    return made


def _codes(operation: Operation, named: bool) -> set[str]:
    """Every problem that it may answer with."""
    found = {*operation.problems, "too_often", "busy", "failed", "unavailable"}
    if not operation.open:
        found |= {"unauthorized"}
        if operation.role is not Role.VIEWER or not operation.shares:
            found |= {"forbidden"}
    if named:
        found |= {"not_found"}
    if operation.query:
        found |= {"malformed", "invalid", "too_large"}
    if operation.body is not None:
        found |= {"malformed", "media_type", "too_large", "invalid"}
    return found


def _answer(schema: shape.Schema | str | None) -> dict[str, Any]:
    if schema is None:
        return {"description": "Done"}
    if isinstance(schema, str):
        return {"description": "Done", "content": {schema: {"schema": {"type": "string"}}}}
    return {"description": "Done", "content": {"application/json": {"schema": schema}}}
