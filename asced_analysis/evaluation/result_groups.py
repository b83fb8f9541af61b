"""An evaluation in words: four groups of figures, each with its line."""

from __future__ import annotations

from dataclasses import dataclass

from asced_analysis.correction.controls import IN_WORDS
from asced_analysis.evaluation.effects import AgainstControls
from asced_analysis.evaluation.intervals import Estimate
from asced_analysis.evaluation.outcome_rates import OutcomeRates
from asced_analysis.evaluation.parts import EvaluationFields, FlaggedRuns
from asced_analysis.realism.claims import Claims

DAMAGED, ELSEWHERE = "  in the damaged tenth", "  elsewhere"


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


def groups_of(evaluation: EvaluationFields) -> list[Group]:
    """How it was judged, what changed, who was repaired and harmed, what the controls did.

    Returns
    -------
    list of Group
        Without those that have no figures.
    """
    made = (_judged, _changed, _ended, _controls)
    return [group for make in made if (group := make(evaluation, evaluation.claims)).rows]


def _judged(found: EvaluationFields, claims: Claims) -> Group:
    judge, flagged = found.judge, f"{found.flagged} of {found.runs} runs"
    chose = ", who also chose among the draws: too kind" if judge.chose else ""
    rows = (
        ("judge", judge.name + chose),
        ("compared with", str(judge.reference)),
        ("measured", f"{claims.distance}; lower is {claims.better}"),
        *([("correction", _how(found))] if found.correction else []),
        *([] if found.replay_of else [("runs", found.pairs)]),
        *([("flagged", flagged)] if found.paired else []),
        *(("note", note) for note in found.notes),
    )
    what = f"{flagged} flagged" if found.paired else found.pairs
    return Group("How it was judged", f"{judge.name}, with {judge.reference}; {what}", rows)


def _changed(found: EvaluationFields, claims: Claims) -> Group:
    rows = [
        (
            claims.distance if name == "local_realism" else _words(name),
            f"{_number(figure.before)} before, {_number(figure.after)} after, "
            f"change {figure.change}",
        )
        for name, figure in found.quality.items()
    ]
    flagged = found.flagged_runs
    effect = flagged.effect
    if found.paired and found.flagged:
        figures = {
            f"flagged, change of {claims.distance}": effect.all,
            DAMAGED: effect.damaged,
            ELSEWHERE: effect.undamaged,
            "  per changed pixel": effect.per_changed_pixel,
            "flagged, share improved": effect.improved,
            "pixel change inside the mask": flagged.inside_mask,
            "pixel change outside the mask": flagged.outside_mask,
        }
        anew = _locations_by_chance(flagged)
        rows += [
            (name, f"{figure}{anew.get(name, '')}")
            for name, figure in figures.items()
            if figure.value is not None
        ]
    if found.paired:
        rows.append(("other runs that changed", str(found.other_runs.changed)))
    whose = "of flagged runs" if found.paired else "between the stores"
    return Group("What changed", f"{claims.distance} {whose} by {effect.all}", tuple(rows))


def _ended(found: EvaluationFields, claims: Claims) -> Group:
    title, ends = claims.ended, found.flagged_runs.endings
    if not found.paired:
        beyond = ends.worst_quarter
        shares = f"{share_text(beyond.before)} before, {share_text(beyond.after)} after"
        rows = (
            (f"in or beyond {claims.worst}", shares),
            ("  change", share_text(beyond.change)),
        )
        return Group(title, f"in or beyond {claims.worst}: {shares}", rows)
    if not found.flagged:
        return Group(title, "", ())
    left = f"{claims.left} {share_text(ends.repaired)} of {ends.broken}"
    if not ends.broken:
        left = f"no flagged run was in {claims.worst}"
    line = f"{left}; {claims.fell} {share_text(ends.harmed_of_all_good)}; {_by_chance(ends)}"
    return Group(title, line, tuple(_ending_rows(found.flagged_runs, claims)))


def _controls(found: EvaluationFields, claims: Claims) -> Group:
    rows, line = [], "no control was sampled"
    for name, control in found.controls.items():
        label = "other runs" if found.against_other_runs else IN_WORDS.get(name, name)
        figures = (
            f"{control.effect.all}, {claims.left} {share_text(control.repaired)}, {claims.fell} "
            f"{share_text(control.harmed_of_flagged_good)}"
        )
        rows.append((f"control: {label}", figures))
    if found.against_best_control:
        for where, figure in found.against_best_control.items():
            name = f"effect against the best control, {where.replace('_', ' ')}"
            rows.append((name, _against(figure)))
            if "everywhere" in figure.against and figure.best_control != "everywhere":
                everywhere = f"  against {IN_WORDS['everywhere']}"
                rows.append((everywhere, str(figure.against["everywhere"])))
        line = _against(found.against_best_control.all)
    if found.against_other_runs:
        for where, difference in found.against_other_runs.items():
            rows.append((f"effect against other runs, {where.replace('_', ' ')}", str(difference)))
        line = f"{found.against_other_runs.all} (against other runs)"
    of = "other runs" if found.against_other_runs else "the best control"
    return Group(f"Effect against {of}", line, tuple(rows))


def _against(figure: AgainstControls) -> str:
    """An effect beyond the best control, and which one that is."""
    name = figure.best_control
    return f"{figure}, against {IN_WORDS.get(name, name)}" if name else str(figure)


def _how(found: EvaluationFields) -> str:
    """What was done, and who chose."""
    chosen = f", chosen by {found.teacher}" if found.teacher else ""
    return f"{found.correction}, at step {found.correction_step} of {found.steps}{chosen}"


def _words(name: str) -> str:
    return name.replace("_", " ").replace("frechet", "Frechet")


def _ending_rows(flagged: FlaggedRuns, claims: Claims) -> list[tuple[str, str]]:
    """Who left the worst quarter of the recorded runs, who fell into it, and what it cost."""
    ends, paid = flagged.endings, flagged.evaluations
    return [
        (f"flagged runs in {claims.worst}", str(ends.broken)),
        (f"  {claims.left}", share_text(ends.repaired)),
        (f"{claims.fell}, of flagged {claims.good} ones", share_text(ends.harmed_of_flagged_good)),
        (f"{claims.fell}, of all {claims.good} runs", share_text(ends.harmed_of_all_good)),
        ("  by chance", _by_chance(ends)),
        (f"flagged runs in {claims.worst}, change", share_text(ends.worst_quarter.change)),
        *([] if paid is None else [("evaluations a flagged run", f"{paid:.1f}")]),
    ]


def _locations_by_chance(flagged: FlaggedRuns) -> dict[str, str]:
    """What any other draw would do where a figure chose the places: they look better by chance."""
    if flagged.chance is None:
        return {}
    by_row = {DAMAGED: flagged.chance.damaged, ELSEWHERE: flagged.chance.undamaged}
    return {
        name: f"; of runs drawn anew {change:+.3g}"
        for name, change in by_row.items()
        if change is not None
    }


def _by_chance(ends: OutcomeRates) -> str:
    """What would become of runs that are drawn anew, which no correction is needed for."""
    return f"of runs drawn anew, {100 * ends.chance:.0f} % would be in the worst quarter"


def share_text(estimate: Estimate) -> str:
    """A share and its 95 % interval, in per cent; a dash where there is none."""
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return "-"
    value, low, high = (100 * one for one in (estimate.value, estimate.low, estimate.high))
    return f"{value:.1f} % ({low:.1f} to {high:.1f} %)"


def _number(estimate: Estimate) -> str:
    return "-" if estimate.value is None else f"{estimate.value:.4g}"
