"""JSON that follows from dataclasses: its schema, and reading by it; numbers that JSON has."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec

T = TypeVar("T")
DRAFT = "https://json-schema.org/draft/2020-12/schema"


class MismatchError(ValueError):
    """A value does not fit its class; the message names the place in the file."""


def finite_json(value: Any) -> Any:
    """Plain values, nested as they are, with null for the numbers that JSON does not know."""
    if isinstance(value, Mapping):
        return {key: finite_json(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite_json(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def json_schema(kind: type, partial: frozenset[str] = frozenset()) -> dict[str, Any]:
    """The schema of a class: objects closed to other keys, every field of a dataclass required.

    Parameters
    ----------
    kind : type
    partial : frozenset of str
        Names of typed dicts, which say themselves what may be absent.
    """
    rules: dict[str, Any] = _rules(kind, partial)
    definitions = {name: rule for name, rule in rules["$defs"].items() if name != kind.__name__}
    return {"$schema": DRAFT, **rules["$defs"][kind.__name__], "$defs": definitions}


def read_as(
    value: Any, kind: type[T], place: str = "", *, partial: frozenset[str] = frozenset()
) -> T:
    """Read parsed JSON as a class, and refuse missing keys and those that it does not have.

    Parameters
    ----------
    value : parsed JSON
    kind : type
    place : str
        Of the value in the file, for messages.
    partial
        As for `json_schema`.

    Raises
    ------
    MismatchError
        Naming the place, what was found and what was expected.
    """
    rules: dict[str, Any] = _rules(kind, partial)  # type: ignore[arg-type]  # classes are hashable
    try:
        _check_keys(value, rules, rules["$defs"], place)
        return msgspec.convert(value, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        found = str(error).replace("`$", f"`${place.replace('/', '.')}")
        raise MismatchError(found[:400]) from None


def check_fields(given: Mapping[str, Any], kind: type) -> None:
    """Refuse values that fields of a class do not take; others may be missing.

    Parameters
    ----------
    given : mapping of str to Any
        By the name of a field.
    kind : type
        A dataclass.

    Raises
    ------
    MismatchError
        Naming the field, what was found and what was expected.
    """
    types = get_type_hints(kind, include_extras=True)
    for name, value in given.items():
        if get_origin(types[name]) is Literal and value not in get_args(types[name]):
            known = ", ".join(map(str, get_args(types[name])))
            raise MismatchError(f"{name} {value!r} is unknown; expected one of {known}")
        try:
            msgspec.convert(value, types[name])
        except msgspec.ValidationError as error:
            raise MismatchError(f"{name} is {value!r}: {error}") from None


@cache
def _rules(kind: type, partial: frozenset[str]) -> dict[str, Any]:
    made: dict[str, Any] = _closed(msgspec.json.schema(kind), partial)
    return made


def _closed(rule: Any, partial: frozenset[str]) -> Any:
    """The schema with objects closed to other keys, and every field of a dataclass required."""
    if isinstance(rule, list):
        return [_closed(one, partial) for one in rule]
    if not isinstance(rule, dict):
        return rule
    closed = {key: _closed(value, partial) for key, value in rule.items()}
    if closed.get("type") == "object" and "properties" in closed:
        closed["additionalProperties"] = False
        if closed.get("title") not in partial:
            closed["required"] = list(closed["properties"])
        closed.setdefault("required", [])
    return closed


def _check_keys(value: Any, rule: Any, definitions: Mapping[str, Any], place: str) -> None:
    """Refuse missing and unknown keys; types and bounds are msgspec's to check."""
    for one in rule.get("anyOf", [rule]):
        while "$ref" in one:
            one = definitions[one["$ref"].rpartition("/")[2]]
        if isinstance(value, Mapping) and one.get("type") == "object":
            known, here = one.get("properties", {}), place or "the top level"
            missing = [key for key in one.get("required", ()) if key not in value]
            if missing:
                raise MismatchError(f"at {here}: the required property {missing[0]!r} is missing")
            for key, inner in value.items():
                if key in known:
                    _check_keys(inner, known[key], definitions, f"{place}/{key}")
                elif one.get("additionalProperties") is False:
                    raise MismatchError(
                        f"at {here}: unknown key {key!r}; expected {', '.join(known) or 'none'}"
                    )
        elif isinstance(value, list | tuple) and "$ref" in (one.get("items") or {}):
            for index, inner in enumerate(value):
                _check_keys(inner, one["items"], definitions, f"{place}/{index}")
