"""An evaluation in words: four groups of figures, each with its line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from asced_analysis.realism.claims import Claims, Reference, claims_of


@dataclass(frozen=True)
class Group:
    """Figures that belong together.

    Attributes
    ----------
    title : str
    line : str
        What says the most of them.
    rows : tuple of (str, str)
        Name and figure with its 95 % interval; a name that begins with spaces belongs to the one
        before.
    """

    title: str
    line: str
    rows: tuple[tuple[str, str], ...]


def groups_of(data: Mapping[str, Any]) -> list[Group]:
    """How it was judged, what changed, who was repaired and harmed, what the controls did.

    Parameters
    ----------
    data : mapping
        Of an `Evaluation`.

    Returns
    -------
    list of Group
        Without those that have no figures.
    """
    claims = claims_of(data["judge"])
    made = (_judged, _changed, _ended, _controls)
    return [group for make in made if (group := make(data, claims)).rows]


def _judged(data: Mapping[str, Any], claims: Claims) -> Group:
    chose = ", who also chose among the draws: too kind" if data["judge"].get("chose") else ""
    reference = str(Reference(**data["judge"]["reference"]))
    rows = (
        ("judge", data["judge"]["name"] + chose),
        ("compared with", reference),
        ("measured", f"{claims.distance}; lower is {claims.better}"),
        *([("correction", _how(data))] if data.get("correction") else []),
        *([] if data["replay_of"] else [("runs", data["pairs"])]),
        *([("flagged", f"{data['flagged']} of {data['runs']} runs")] if data["paired"] else []),
        *(("note", note) for note in data["notes"]),
    )
    what = f"{data['flagged']} of {data['runs']} runs flagged" if data["paired"] else data["pairs"]
    return Group("How it was judged", f"{data['judge']['name']}, with {reference}; {what}", rows)


def _changed(data: Mapping[str, Any], claims: Claims) -> Group:
    rows = [
        (
            claims.distance if name == "local_realism" else _words(name),
            f"{_number(figure['before'])} before, {_number(figure['after'])} after, "
            f"change {figure_text(figure['change'])}",
        )
        for name, figure in data["quality"].items()
    ]
    if data["paired"] and data["flagged"]:
        effect = data["flagged_runs"]["effect"]
        rows += [
            (f"flagged, change of {claims.distance}", figure_text(effect["all"])),
            ("  in the damaged tenth", figure_text(effect["damaged"])),
            ("  elsewhere", figure_text(effect["undamaged"])),
            ("  per changed pixel", figure_text(effect["per_changed_pixel"])),
            ("flagged, share improved", figure_text(effect["improved"])),
            ("pixel change inside the mask", figure_text(data["flagged_runs"]["inside_mask"])),
            ("pixel change outside the mask", figure_text(data["flagged_runs"]["outside_mask"])),
        ]
    if data["paired"]:
        rows.append(("other runs that changed", str(data["other_runs"]["changed"])))
    change = figure_text(data["flagged_runs"]["effect"]["all"])
    whose = "of flagged runs" if data["paired"] else "between the stores"
    return Group("What changed", f"{claims.distance} {whose} by {change}", tuple(rows))


def _ended(data: Mapping[str, Any], claims: Claims) -> Group:
    title = claims.ended
    if not data["paired"]:
        beyond = data["flagged_runs"]["endings"]["beyond_bar"]
        shares = ", ".join(f"{share_text(beyond[name])} {name}" for name in ("before", "after"))
        rows = (
            (f"in or beyond {claims.worst}", shares),
            ("  change", share_text(beyond["change"])),
        )
        return Group(title, f"in or beyond {claims.worst}: {shares}", rows)
    ends = data["flagged_runs"].get("endings")
    if not data["flagged"] or not ends:
        return Group(title, "", ())
    line = (
        f"{claims.left} {share_text(ends['repaired'])} of {ends['broken']}; {claims.fell} "
        f"{share_text(ends['harmed_of_all_good'])}"
    )
    return Group(title, line, tuple(_outcome_rows(data["flagged_runs"], claims)))


def _controls(data: Mapping[str, Any], claims: Claims) -> Group:
    rows, line = [], "no control was sampled"
    for name, control in (data["controls"] or {}).items():
        repaired = (
            f", {claims.left} {share_text(control['repaired'])}" if "repaired" in control else ""
        )
        label = "other runs" if data.get("against_other_runs") else name
        rows.append((f"control {label}", figure_text(control["effect"]["all"]) + repaired))
    for where, figure in (data["against_best_control"] or {}).items():
        against = f" (against {figure['best_control']})" if figure["best_control"] else ""
        rows.append(
            (
                f"effect against the best control, {where.replace('_', ' ')}",
                figure_text(figure) + against,
            )
        )
        if where == "all":
            line = f"{figure_text(figure)}{against}"
        if "everywhere" in figure["against"] and figure["best_control"] != "everywhere":
            rows.append(("  against everywhere", figure_text(figure["against"]["everywhere"])))
    for where, figure in (data.get("against_other_runs") or {}).items():
        rows.append((f"effect against other runs, {where.replace('_', ' ')}", figure_text(figure)))
        if where == "all":
            line = f"{figure_text(figure)} (against other runs)"
    return Group(
        f"Effect against {'other runs' if data.get('against_other_runs') else 'the best control'}",
        line,
        tuple(rows),
    )


def _how(data: Mapping[str, Any]) -> str:
    """What was done, and who chose."""
    chosen = f", chosen by {data['teacher']}" if data.get("teacher") else ""
    return f"{data['correction']}, at step {data['correction_step']} of {data['steps']}{chosen}"


def _words(name: str) -> str:
    return name.replace("_", " ").replace("frechet", "Frechet")


def _outcome_rows(flagged: Mapping[str, Any], claims: Claims) -> list[tuple[str, str]]:
    """Who left the worst quarter of the recorded runs, who fell into it, and what it cost."""
    ends = flagged.get("endings")
    if not ends:
        return []
    paid = flagged.get("evaluations")
    return [
        (f"flagged runs in {claims.worst}", str(ends["broken"])),
        (f"  {claims.left}", share_text(ends["repaired"])),
        (
            f"{claims.fell}, of flagged {claims.good} ones",
            share_text(ends["harmed_of_flagged_good"]),
        ),
        (f"{claims.fell}, of all {claims.good} runs", share_text(ends["harmed_of_all_good"])),
        *([] if paid is None else [("evaluations a flagged run", f"{paid:.1f}")]),
    ]


def share_text(estimate: Mapping[str, Any]) -> str:
    """A share and its 95 % interval, in per cent; a dash where there is none."""
    if estimate["value"] is None:
        return "-"
    value, low, high = (100 * estimate[name] for name in ("value", "low", "high"))
    return f"{value:.1f} % ({low:.1f} to {high:.1f} %)"


def _number(estimate: Mapping[str, Any]) -> str:
    return "-" if estimate["value"] is None else f"{estimate['value']:.4g}"


def figure_text(estimate: Mapping[str, Any]) -> str:
    """Value and 95 % interval of an estimate; a dash where there is none."""
    if estimate["value"] is None:
        return "-"
    if estimate["low"] is None:
        return f"{estimate['value']:.3g}"
    return f"{estimate['value']:.3g} ({estimate['low']:.3g} to {estimate['high']:.3g})"
