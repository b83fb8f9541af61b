"""``evaluation.json``: its classes and its table in the docs say the same keys."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asced_analysis.evaluation import Evaluation


def keys_of(rule: Any, definitions: dict[str, Any]) -> Iterator[str]:
    """Every key that a file may hold, of all depths."""
    for one in rule.get("anyOf", [rule]):
        if "$ref" in one:
            yield from keys_of(definitions[one["$ref"].rpartition("/")[2]], definitions)
        for name, inner in one.get("properties", {}).items():
            yield name
            yield from keys_of(inner, definitions)
        for inner in (one.get("additionalProperties"), one.get("items")):
            if isinstance(inner, dict):
                yield from keys_of(inner, definitions)


def test_the_docs_name_every_key_and_no_other() -> None:
    page = (Path(__file__).parents[2] / "docs" / "replay.md").read_text()
    table = page.partition("### `evaluation.json`")[2].partition("`asced evaluate")[0]
    schema = Evaluation.schema()
    keys = set(keys_of(schema, schema["$defs"]))

    def named(text: str) -> set[str]:
        return {part for name in re.findall(r"`([\w.]+)`", text) for part in name.split(".")} - {""}

    assert keys - named(table) == {"value", "low", "high"}
    assert named("".join(row.split("|")[1] for row in table.splitlines() if "|" in row)) <= keys
