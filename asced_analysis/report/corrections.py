"""Sections of a report on what corrections did: effects, controls, comparison, gallery."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from asced_analysis.correction.controls import IN_WORDS
from asced_analysis.report.page import Case, Group, Picture, Section, Table
from asced_analysis.report.pictures import figure_uri
from asced_analysis.report.sections import figure_of
from asced_analysis.thresholds.wording import percent, sentence

if TYPE_CHECKING:
    from asced_analysis.evaluation import Evaluation, Remedies


CONTROLS = (
    "The controls repeat the same correction of the same runs in masks of equal area at the wrong "
    "place, or everywhere; where it takes whole runs, they are as many other runs. The effect of "
    "the mask's place is the correction's effect minus that of the best control."
)
NO_CONTROLS = (
    "No control was sampled: this page cannot say whether the place of a mask, or the choice of "
    "runs, made a difference."
)


def evaluation_section(evaluation: Evaluation, others: Sequence[Evaluation] = ()) -> Section:
    """What the correction did, beside the controls and beside other corrections of these runs."""
    from asced_analysis import plots

    figures = []
    claims, effect = evaluation.claims, evaluation.flagged_runs.effect.all
    of_replay = evaluation.replay_of is not None
    what = ("with the correction", "The correction") if of_replay else ("", "The second store")
    if effect.value is not None:
        controls = ", ".join(
            f"{IN_WORDS.get(name, name)} {control.effect.all.value:.3g}"
            for name, control in evaluation.controls.items()
            if control.effect.all.value is not None
        )
        figures.append(
            Picture(
                figure_uri(figure_of(plots.effects(evaluation))),
                f"Change of {_whose(evaluation)} {claims.distance}: {effect.value:.3g} {what[0]}"
                + (f"; controls: {controls}" if controls else ""),
                f"{what[1]}{', and the same correction elsewhere' if controls else ''}. Left "
                f"of zero is {claims.better}"
                + ("; what a control does as well is no merit of the mask." if controls else "."),
            )
        )
    groups = tuple(
        Group(one.title, one.line, Table("Intervals are of 95 %", tuple(_full_names(one.rows))))
        for one in evaluation.groups()
    )
    return Section(
        "Before and after" if of_replay else "Beside a second store",
        (
            f"{claims.meaning} The judge is {evaluation.judge.name} "
            f"({evaluation.judge.reference}). Intervals are over runs.",
            *((CONTROLS if evaluation.controls else NO_CONTROLS,) if of_replay else ()),
            *map(sentence, evaluation.notes),
        ),
        tuple(figures),
        (compared(evaluation, *others),) if others else (),
        groups=groups,
    )


def remedies_section(found: Remedies) -> Section:
    """What was tried on the pipeline at equal cost, and what to write to get the best."""
    from asced_analysis import plots

    head, *rows = found.table()
    judged = f"{found.judge} ({found.reference})"
    return Section(
        "What helps at this cost",
        (
            found.verdict(),
            f"Every remedy drew {found.runs} runs at no more than {found.budget} evaluations an "
            f"image. {found.chooser} chose; {judged} confirmed, on seeds that took no part in the "
            "choice. Guidance counts as one evaluation with what it guides.",
            *(f"Not tried: {title}: {why}." for title, why in found.skipped.items()),
        ),
        (
            Picture(
                figure_uri(figure_of(plots.remedies(found))),
                found.verdict(),
                "Shares of broken runs with 95 % intervals; dotted: plain sampling's quarter.",
            ),
        ),
        (
            Table("What was tried", tuple(rows), head),
            Table("To get the best", tuple((line,) for line in found.code.splitlines()), ("code",)),
        ),
    )


def _whose(evaluation: Evaluation) -> str:
    """Whose change it is."""
    return "the flagged runs'" if evaluation.paired and evaluation.strategy else "the runs'"


def _full_names(rows: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Rows that a table indents, with the name of what they are a part of."""
    whole = ""
    for name, figures in rows:
        if name.startswith(" "):
            yield f"{whole}, {name.strip()}", figures
        else:
            whole = name
            yield name, figures


def compared(*evaluations: Evaluation) -> Table:
    """Corrections of the same runs, one a row: whom they repair, whom they harm, what they cost."""
    rows = []
    for evaluation in evaluations:
        flagged, claims = evaluation.flagged_runs, evaluation.claims
        ends = flagged.endings
        said = [f"{claims.distance} {flagged.effect.all.value or 0:+.3f}"]
        if ends.repaired.value is not None:
            share = percent(ends.repaired.value, 0)
            said.append(f"{share} of {ends.broken} {claims.bad} runs {claims.left}")
        if ends.harmed_of_all_good.value is not None:
            share = percent(ends.harmed_of_all_good.value)
            said.append(f"{share} of {claims.good} runs {claims.fell}")
        if "recall" in evaluation.quality:
            said.append(f"recall {evaluation.quality['recall'].change.value:+.3f}")
        if flagged.evaluations is not None:
            said.append(f"{flagged.evaluations:.0f} evaluations a flagged run")
        name = evaluation.correction or "the second store"
        if evaluation.correction_step is not None:
            name += f", step {evaluation.correction_step}"
        rows.append((name, "; ".join(said)))
    return Table("Corrections of the same runs", tuple(rows), ("correction", "what it did"))


def gallery_section(
    cases: Sequence[Case], flagged: int, outlined: str = "flagged region"
) -> Section:
    """Flagged runs with their masks, each beside its corrected version."""
    what = (
        "mask that the detector drew before the image was finished"
        if outlined == "flagged region"
        else "place that was renewed: the detector said whom, the image that the model expected "
        "at that step said where"
    )
    text = (
        f"{len(cases)} of {flagged} flagged runs, the most abnormal first. The outline is the "
        f"{what}."
        if cases
        else "No run was flagged."
    )
    return Section("Flagged runs", (text,), cases=tuple(cases))
