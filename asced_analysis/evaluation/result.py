"""The result of an evaluation: JSON for machines, a table for people."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Self

from asced_analysis.evaluation.parts import EvaluationFields
from asced_analysis.evaluation.result_groups import Group, groups_of, share_text
from asced_analysis.thresholds.typed_json import MismatchError, json_schema, read_as
from asced_stores.errors import InputError
from asced_stores.files import write_json

FORMAT = "asced-evaluation"
FORMAT_VERSION = "2.3"


@dataclass(frozen=True, repr=False, kw_only=True)
class Evaluation(EvaluationFields):
    """What a correction did. The classes of the fields say their JSON form.

    Attributes
    ----------
    judge : JudgeFacts
    paired : bool
        Whether entry i of both stores is one run.
    pairs : str
        How runs were paired, in words.
    notes : tuple of str
        What a reader must know.
    replay_of : str or None
        Fingerprint of the recording.
    pipeline, strategy, correction, teacher, control : str or None
        What was judged; `correction` is the strategy in words.
    correction_step, steps : int or None
    runs, flagged : int
    quality : mapping of str to Change
        Of all runs: ``local_realism``, and against real images ``frechet_distance``, ``precision``
        and ``recall``.
    flagged_runs : FlaggedRuns
    other_runs : OtherRuns
    controls : mapping of str to ControlFigures
    against_best_control : ByLocation of AgainstControls, or None
        Effect minus that of the best control; None without controls, and where whole runs are
        corrected.
    against_other_runs : ByLocation of Estimate, or None
        Effect minus that on as many other runs; None where masks are judged, and without controls.
    by_run : tuple of RunChange
        Of a replay, the flagged runs.

    Examples
    --------
    >>> from asced_analysis.evaluation import Evaluation
    >>> evaluation = Evaluation.load("evaluation.json")
    >>> evaluation.judge.name, evaluation.flagged_runs.endings.repaired.value
    ('fashion-judge', ...)
    >>> print(evaluation.summary())
    flagged runs' local distance ...
    """

    @property
    def data(self) -> dict[str, Any]:
        """The JSON form."""
        return self.to_dict()

    def to_dict(self) -> dict[str, Any]:
        """Strictly JSON."""
        return dict(json.loads(json.dumps(asdict(self), allow_nan=False)))

    def save(self, path: str | PathLike[str], *, overwrite: bool = False) -> Path:
        """Write the JSON file, whole or not at all."""
        return write_json(path, self.to_dict(), overwrite=overwrite)

    @classmethod
    def from_dict(cls, content: Any) -> Self:
        """Check a JSON form and build the evaluation.

        Raises
        ------
        InputError
            Naming the place, what was found and what was expected.
        """
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise InputError(f"this is no evaluation: expected format {FORMAT!r}")
        if content.get("format_version") != FORMAT_VERSION:
            raise InputError(
                f"this is an evaluation of format version {content.get('format_version')}, and "
                f"this toolkit reads {FORMAT_VERSION}; make it again with `asced evaluate`"
            )
        try:
            return read_as(content, cls)
        except MismatchError as error:
            raise InputError(f"this is no evaluation: {error}") from None

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """Read a file that `save` wrote."""
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except FileNotFoundError as error:
            raise InputError(
                f"there is no evaluation at {path}; make one with `asced evaluate`"
            ) from error
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path} is no evaluation: {error}") from error

    @classmethod
    def schema(cls) -> dict[str, Any]:
        """JSON Schema (draft 2020-12) of the file."""
        return json_schema(cls)

    def summary(self) -> str:
        """One line."""
        whose = "flagged runs'" if self.paired else "the second store's"
        of = "other runs" if self.against_other_runs else "the best control"
        against = self.against_other_runs or self.against_best_control
        value = against.all if against else "not measured"
        ends, claims, repaired = self.flagged_runs.endings, self.claims, ""
        if ends.repaired.value is not None:
            repaired = f"{claims.left} {share_text(ends.repaired)}; "
        change = self.flagged_runs.effect.all
        return f"{whose} {claims.distance} {change}; {repaired}effect against {of} {value}"

    def __repr__(self) -> str:
        return f"<Evaluation: {self.summary()}>"

    def _repr_html_(self) -> str:
        """One line a group for notebooks, and the table of `table` folded away."""
        from asced_stores.notebook import html_table

        lines = [(group.title, group.line) for group in self.groups()]
        short = html_table("Evaluation of a correction", ("", ""), lines, self.summary())
        every = html_table("", ("", ""), self.table())
        return f"{short}<details><summary>All figures</summary>{every}</details>"

    def groups(self) -> list[Group]:
        """The figures in four groups, each with one line that says the most of it."""
        return groups_of(self)

    def table(self) -> list[tuple[str, str]]:
        """Rows for people: name, and figures with their 95 % intervals."""
        return [row for group in self.groups() for row in group.rows]
