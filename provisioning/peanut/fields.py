"""Tables as data: which keys a table has, of which type, within which bounds, and the check of a file against that.

Rule: a key that the table does not know is an error, so that a slip of the pen is not an output without a safe level.
Errors name the file, the table and the key, and say what it must be.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from peanut.errors import PeanutError

Value = bool | int | float | str


@dataclass(frozen=True)
class Field:
    """One key of a table: its type, and for numbers its range (both ends allowed), for words the choice."""

    type: type
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()
    required: bool = True


Table = Mapping[str, Field]


def check(table: Table, data: object, where: str) -> dict[str, Value]:
    """`data` as the table wants it; PeanutError names the key. Integers pass where a number is asked for."""
    if not isinstance(data, Mapping):
        raise PeanutError(f"{where} is not a table")
    unknown = sorted(set(data) - set(table))
    if unknown:
        raise PeanutError(f"{where}: unknown key {unknown[0]!r}", f"Keys: {', '.join(table)}.")
    missing = [k for k, field in table.items() if field.required and k not in data]
    if missing:
        raise PeanutError(f"{where}: {missing[0]} is missing", "Add it.")
    return {key: check_value(table[key], value, f"{where}: {key}") for key, value in data.items()}


def check_variant(common: Table, variants: Mapping[str, Table], key: str, data: object, where: str) -> dict[str, Value]:
    """`data` as the common table and that of its variant want it; its `key` says which variant it is."""
    if not isinstance(data, Mapping):
        raise PeanutError(f"{where} is not a table")
    if key not in data:
        raise PeanutError(f"{where}: {key} is missing", "Add it.")
    word = check_value(Field(str, choices=tuple(variants)), data[key], f"{where}: {key}")
    return check({**common, **variants[str(word)]}, data, where)


def check_value(field: Field, value: object, where: str) -> Value:
    """One value of a table; PeanutError says what it must be."""
    if field.type is bool:
        if not isinstance(value, bool):
            raise PeanutError(f"{where} = {value!r} is neither true nor false")
        return value
    if field.type is str:
        if not isinstance(value, str) or not value:
            raise PeanutError(f"{where} = {value!r} is not a string")
        if field.choices and value not in field.choices:
            raise PeanutError(f"{where} = {value!r} is not known", f"Choose from: {', '.join(field.choices)}.")
        return value
    whole = isinstance(value, int) and not isinstance(value, bool)
    fraction = field.type is float and isinstance(value, float) and math.isfinite(value)
    if not whole and not fraction:
        raise PeanutError(f"{where} = {value!r} is not {'a whole number' if field.type is int else 'a number'}")
    assert isinstance(value, int | float)
    if not field.low <= value <= field.high:
        raise PeanutError(f"{where} = {value} is out of range", f"Give {field.low:g} to {field.high:g}.")
    return value
