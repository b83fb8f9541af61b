"""The JSON Schema of thresholds, and reading by it: both follow from the dataclasses."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, TypeVar, is_typeddict

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
from asced_analysis.thresholds.typed_json import MismatchError, json_schema, read_as

T = TypeVar("T")

PARTIAL = frozenset(name for name, kind in vars(parts).items() if is_typeddict(kind))
"""Parts some of whose keys may be absent; they say which."""


def schema() -> dict[str, Any]:
    """The published JSON Schema of a thresholds file, with every variant that is known here."""
    made = deepcopy(json_schema(Content, PARTIAL))
    definitions = made.pop("$defs")
    for name, value in (("format", FORMAT), ("format_version", FORMAT_VERSION)):
        made["properties"][name] = {"const": value}
        made["required"].append(name)
    made["properties"]["variant"] = {"enum": list(VARIANTS)}
    conditions = []
    for name in VARIANTS:
        own = json_schema(VARIANTS.get(name).parameters_type, PARTIAL)
        kept = {key: value for key, value in own.items() if key not in ("$schema", "$defs")}
        definitions.update(own["$defs"])
        definitions[f"parameters of {name}"] = {**kept, "title": f"Parameters of {name}"}
        variant = {"properties": {"variant": {"const": name}}}
        reference = {"$ref": f"#/$defs/parameters of {name}".replace(" ", "%20")}
        conditions.append({"if": variant, "then": {"properties": {"parameters": reference}}})
    return {
        "$id": f"https://asced-analysis.invalid/schema/thresholds-{FORMAT_VERSION}.json",
        **made,
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
    try:
        return read_as(value, kind, place, partial=PARTIAL)
    except MismatchError as error:
        raise ThresholdsError(
            f"thresholds file: {error}. It was edited, or made by another version of the toolkit: "
            "calibrate again"
        ) from None
