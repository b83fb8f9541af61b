"""The JSON Schema of thresholds, and reading by it: both follow from the dataclasses."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar, is_typeddict

import msgspec

from asced_analysis.thresholds import parts
from asced_analysis.thresholds.content import Content
from asced_analysis.thresholds.files import (
    FORMAT,
    FORMAT_VERSION,
    LARGEST_FILE,
    ThresholdsError,
    check_finite,
    check_version,
)
from asced_analysis.thresholds.registries import VARIANTS

T = TypeVar("T")

OPEN_ENDED = {name for name, kind in vars(parts).items() if is_typeddict(kind)}
"""Parts some of whose keys may be absent; they say which."""

DRAFT = "https://json-schema.org/draft/2020-12/schema"


def schema() -> dict[str, Any]:
    """The published JSON Schema of a thresholds file, with every variant that is known here."""
    made = _closed(msgspec.json.schema(Content))
    definitions = made["$defs"]
    top = definitions.pop(Content.__name__)
    for name, value in (("format", FORMAT), ("format_version", FORMAT_VERSION)):
        top["properties"][name] = {"const": value}
        top["required"].append(name)
    top["properties"]["variant"] = {"enum": list(VARIANTS)}
    conditions = []
    for name in VARIANTS:
        own = _closed(msgspec.json.schema(VARIANTS.get(name).parameters_type))
        kept = own["$defs"].pop(VARIANTS.get(name).parameters_type.__name__)
        definitions.update(own["$defs"])
        definitions[f"parameters of {name}"] = {**kept, "title": f"Parameters of {name}"}
        variant = {"properties": {"variant": {"const": name}}}
        reference = {"$ref": f"#/$defs/parameters of {name}".replace(" ", "%20")}
        conditions.append({"if": variant, "then": {"properties": {"parameters": reference}}})
    return {
        "$schema": DRAFT,
        "$id": f"https://asced-analysis.invalid/schema/thresholds-{FORMAT_VERSION}.json",
        **top,
        "title": f"Thresholds of asced-analysis, format version {FORMAT_VERSION}",
        "description": (
            "Calibrated detection thresholds for diffusion sampling. Files are at most "
            f"{LARGEST_FILE // 2**20} MiB of UTF-8 JSON; every number is finite; unknown keys are "
            "refused."
        ),
        "allOf": conditions,
        "$defs": definitions,
    }


def read_content(content: Any) -> Content:
    """Build checked content from parsed JSON.

    Raises
    ------
    ThresholdsError
        Naming the place in the file, what was found and what was expected.
    """
    check_version(content)
    check_finite(content, "")
    fields = {key: value for key, value in content.items() if not key.startswith("format")}
    read = _convert(fields, Content, "")
    VARIANTS.check(read.variant)
    _convert(read.parameters, VARIANTS.get(read.variant).parameters_type, "/parameters")
    return read


def _convert(value: Any, kind: type[T], place: str) -> T:
    """Read a value as a type, and refuse keys that it does not have."""
    rules: dict[str, Any] = _rules(kind)  # type: ignore[arg-type]  # a class is hashable
    _check_keys(value, rules, rules["$defs"], place)
    try:
        return msgspec.convert(value, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        found = str(error).replace("`$", f"`${place.replace('/', '.')}")
        raise ThresholdsError(f"thresholds file: {found}"[:400]) from None


@cache
def _rules(kind: type) -> dict[str, Any]:
    made: dict[str, Any] = _closed(msgspec.json.schema(kind))
    return made


def _closed(rule: Any) -> Any:
    """The schema with objects closed to other keys, and every field of a dataclass required."""
    if isinstance(rule, list):
        return [_closed(one) for one in rule]
    if not isinstance(rule, dict):
        return rule
    closed = {key: _closed(value) for key, value in rule.items()}
    if closed.get("type") == "object" and "properties" in closed:
        closed["additionalProperties"] = False
        if closed.get("title") not in OPEN_ENDED:
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
                raise ThresholdsError(
                    f"thresholds file, at {here}: the required property {missing[0]!r} is missing"
                )
            for key, inner in value.items():
                if key in known:
                    _check_keys(inner, known[key], definitions, f"{place}/{key}")
                elif one.get("additionalProperties") is False:
                    raise ThresholdsError(
                        f"thresholds file, at {here}: unknown key {key!r}; expected "
                        f"{', '.join(known) or 'none'}"
                    )
        elif isinstance(value, list | tuple) and "$ref" in (one.get("items") or {}):
            for index, inner in enumerate(value):
                _check_keys(inner, one["items"], definitions, f"{place}/{index}")
