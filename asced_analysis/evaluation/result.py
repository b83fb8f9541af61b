"""The result of an evaluation: JSON for machines, a table for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Self

from asced_analysis.evaluation.result_groups import Group, figure_text, groups_of, share_text
from asced_analysis.realism.claims import claims_of
from asced_stores.errors import InputError
from asced_stores.files import write_json

FORMAT = "asced-evaluation"
FORMAT_VERSION = "2.0"


@dataclass(frozen=True, repr=False)
class Evaluation:
    """What a correction did; `docs/replay.md` describes every key of `data`.

    Examples
    --------
    >>> from asced_analysis.evaluation import Evaluation
    >>> evaluation = Evaluation.load("evaluation.json")
    >>> evaluation.table()[0]
    ('judge', 'fashion-judge')
    >>> print(evaluation.summary())
    flagged runs' local distance ...
    """

    data: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Strictly JSON."""
        return dict(json.loads(json.dumps(self.data, allow_nan=False)))

    def save(self, path: str | PathLike[str], *, overwrite: bool = False) -> Path:
        """Write the JSON file, whole or not at all."""
        return write_json(path, self.to_dict(), overwrite=overwrite)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """Read a file that `save` wrote."""
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise InputError(
                f"there is no evaluation at {path}; make one with `asced evaluate`"
            ) from error
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path} is no evaluation: {error}") from error
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise InputError(f"{path} is no evaluation: expected format {FORMAT!r}")
        if data.get("format_version") != FORMAT_VERSION:
            raise InputError(
                f"{path} is an evaluation of format version {data.get('format_version')}, and this "
                f"toolkit reads {FORMAT_VERSION}; make it again with `asced evaluate`"
            )
        return cls(data)

    def summary(self) -> str:
        """One line."""
        data = self.data
        change = figure_text(data["flagged_runs"]["effect"]["all"])
        whose = "flagged runs'" if data["paired"] else "the second store's"
        against, of = data["against_best_control"], "the best control"
        if data.get("against_other_runs"):
            against, of = data["against_other_runs"], "other runs"
        value = figure_text(against["all"]) if against else "not measured"
        ends = data["flagged_runs"].get("endings")
        repaired, claims = "", claims_of(data["judge"])
        if ends and ends["repaired"]["value"] is not None:
            repaired = f"{claims.left} {share_text(ends['repaired'])}; "
        return f"{whose} {claims.distance} {change}; {repaired}effect against {of} {value}"

    def __repr__(self) -> str:
        return f"<Evaluation: {self.summary()}>"

    def _repr_html_(self) -> str:
        """The table of `table` for notebooks."""
        from asced_stores.notebook import html_table

        return html_table("Evaluation of a correction", ("", ""), self.table(), self.summary())

    def groups(self) -> list[Group]:
        """The figures in four groups, each with one line that says the most of it."""
        return groups_of(self.data)

    def table(self) -> list[tuple[str, str]]:
        """Rows for people: name, and figures with their 95 % intervals."""
        return [row for group in self.groups() for row in group.rows]
