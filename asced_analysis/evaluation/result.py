"""The result of an evaluation: JSON for machines, a table for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Self

from asced_analysis.realism.claims import Claims, Reference, claims_of
from asced_stores.errors import InputError
from asced_stores.files import write_json

FORMAT = "asced-evaluation"
FORMAT_VERSION = "2.0"


@dataclass(frozen=True)
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
        change = _text(data["flagged_runs"]["effect"]["all"])
        whose = "flagged runs'" if data["paired"] else "the second store's"
        worth, of = data["worth_of_mask"], "mask"
        if data.get("worth_of_flag"):
            worth, of = data["worth_of_flag"], "flag"
        value = _text(worth["all"]) if worth else "not measured"
        ends = data["flagged_runs"].get("endings")
        repaired, claims = "", claims_of(data["judge"])
        if ends and ends["repaired"]["value"] is not None:
            repaired = f"{claims.left} {_percent(ends['repaired'])}; "
        return f"{whose} {claims.distance} {change}; {repaired}worth of the {of} {value}"

    def _repr_html_(self) -> str:
        """The table of `table` for notebooks."""
        from asced_stores.notebook import html_table

        return html_table("Evaluation of a correction", ("", ""), self.table(), self.summary())

    def table(self) -> list[tuple[str, str]]:
        """Rows for people: name, and figures with their 95 % intervals."""
        data = self.data
        chose = ", who also chose among the draws: too kind" if data["judge"].get("chose") else ""
        claims = claims_of(data["judge"])
        rows = [
            ("judge", data["judge"]["name"] + chose),
            ("compared with", str(Reference(**data["judge"]["reference"]))),
            ("measured", f"{claims.distance}; lower is {claims.better}"),
            *([("correction", _how(data))] if data.get("correction") else []),
            *([] if data["replay_of"] else [("runs", data["pairs"])]),
            *([("flagged", f"{data['flagged']} of {data['runs']} runs")] if data["paired"] else []),
            *(("note", note) for note in data["notes"]),
        ]
        for name, figure in data["quality"].items():
            rows.append(
                (
                    claims.distance if name == "local_realism" else _words(name),
                    f"{_number(figure['before'])} before, {_number(figure['after'])} after, "
                    f"change {_text(figure['change'])}",
                )
            )
        effect = data["flagged_runs"]["effect"]
        if not data["paired"]:
            beyond = data["flagged_runs"]["endings"]["beyond_bar"]
            shares = ", ".join(f"{_percent(beyond[name])} {name}" for name in ("before", "after"))
            rows.append((f"in or beyond {claims.worst}", shares))
            rows.append(("  change", _percent(beyond["change"])))
            return rows
        if data["flagged"]:
            rows += [
                (f"flagged, change of {claims.distance}", _text(effect["all"])),
                ("  in the damaged tenth", _text(effect["damaged"])),
                ("  elsewhere", _text(effect["undamaged"])),
                ("  per changed pixel", _text(effect["per_changed_pixel"])),
                ("flagged, share improved", _text(effect["improved"])),
                ("pixel change inside the mask", _text(data["flagged_runs"]["inside_mask"])),
                ("pixel change outside the mask", _text(data["flagged_runs"]["outside_mask"])),
            ]
            rows += _ending_rows(data["flagged_runs"], claims)
        rows.append(("other runs that changed", str(data["other_runs"]["changed"])))
        for name, control in (data["controls"] or {}).items():
            repaired = (
                f", {claims.left} {_percent(control['repaired'])}" if "repaired" in control else ""
            )
            label = "other runs" if data.get("worth_of_flag") else name
            rows.append((f"control {label}", _text(control["effect"]["all"]) + repaired))
        for where, figure in (data["worth_of_mask"] or {}).items():
            against = f" (against {figure['best_control']})" if figure["best_control"] else ""
            rows.append((f"worth of the mask, {where.replace('_', ' ')}", _text(figure) + against))
            if "everywhere" in figure["against"] and figure["best_control"] != "everywhere":
                rows.append(("  against everywhere", _text(figure["against"]["everywhere"])))
        for where, figure in (data.get("worth_of_flag") or {}).items():
            rows.append((f"worth of the flag, {where.replace('_', ' ')}", _text(figure)))
        return rows


def _how(data: Mapping[str, Any]) -> str:
    """What was done, and who chose."""
    chosen = f", chosen by {data['teacher']}" if data.get("teacher") else ""
    return f"{data['correction']}, at step {data['correction_step']} of {data['steps']}{chosen}"


def _words(name: str) -> str:
    return name.replace("_", " ").replace("frechet", "Frechet")


def _ending_rows(flagged: Mapping[str, Any], claims: Claims) -> list[tuple[str, str]]:
    """Who left the worst quarter of the recorded runs, who fell into it, and what it cost."""
    ends = flagged.get("endings")
    if not ends:
        return []
    paid = flagged.get("evaluations")
    return [
        (f"flagged runs in {claims.worst}", str(ends["broken"])),
        (f"  {claims.left}", _percent(ends["repaired"])),
        (
            f"{claims.fell}, of flagged {claims.good} ones",
            _percent(ends["harmed_of_flagged_good"]),
        ),
        (f"{claims.fell}, of all {claims.good} runs", _percent(ends["harmed_of_all_good"])),
        *([] if paid is None else [("evaluations a flagged run", f"{paid:.1f}")]),
    ]


def _percent(estimate: Mapping[str, Any]) -> str:
    """A share and its interval."""
    if estimate["value"] is None:
        return "-"
    value, low, high = (100 * estimate[name] for name in ("value", "low", "high"))
    return f"{value:.1f} % ({low:.1f} to {high:.1f} %)"


def _number(estimate: Mapping[str, Any]) -> str:
    return "-" if estimate["value"] is None else f"{estimate['value']:.4g}"


def _text(estimate: Mapping[str, Any]) -> str:
    """Value and interval."""
    if estimate["value"] is None:
        return "-"
    if estimate["low"] is None:
        return f"{estimate['value']:.3g}"
    return f"{estimate['value']:.3g} ({estimate['low']:.3g} to {estimate['high']:.3g})"
