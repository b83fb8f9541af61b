"""The summary of a report: what was found, in plain words, bad news as plainly as good."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asced_analysis.evaluation.intervals import NOTHING, Estimate
from asced_analysis.plots.images import is_latent
from asced_analysis.report.page import Key
from asced_analysis.thresholds.wording import percent, promised_in_words, sentence
from asced_stores.format.recorded_loops import is_loop_recording

if TYPE_CHECKING:
    import xarray as xr

    from asced_analysis.evaluation import Evaluation
    from asced_analysis.phases.segmentation import Phases
    from asced_analysis.thresholds.document import Thresholds


def in_plain_words(
    ds: xr.Dataset,
    phases: Phases | None,
    thresholds: Thresholds | None,
    flagged: int | None,
    evaluation: Evaluation | None,
) -> tuple[tuple[Key, ...], tuple[str, ...]]:
    """Figures that the reader should not miss, and sentences that say what they mean.

    Parameters
    ----------
    ds : xarray.Dataset
        The recording.
    phases : Phases or None
        None where the runs have too few steps for them.
    thresholds : Thresholds or None
    flagged : int or None
        Number of flagged runs; None where nothing detects.
    evaluation : Evaluation or None
    """
    runs, steps = ds.sizes["run"], ds.sizes["step"]
    keys = [Key(f"{runs:,}", "runs"), Key(str(steps), "steps each")]
    said = [
        f"{runs:,} images were sampled {_sampler(ds, steps)}; every step was recorded.",
        *_channels(ds),
        _when(phases, steps),
    ]
    if thresholds is not None:
        keys.append(Key(promised_in_words(thresholds.guarantee), "promised false-alarm rate"))
        said.append(_promise(thresholds))
        said += map(sentence, thresholds.guarantee.notes)
    if flagged is not None:
        keys.append(Key(f"{flagged:,}", "runs flagged"))
        said.append(
            f"{flagged:,} of these {runs:,} runs ({percent(flagged / max(1, runs))}) were flagged"
            + (
                ""
                if thresholds is None
                else f" by what they showed up to step {thresholds.window.steps[1]} of "
                f"{thresholds.window.of_steps}"
            )
            + "."
            if flagged
            else "None of these runs was flagged."
        )
    if evaluation is not None:
        if evaluation.replay_of is None:
            said += stores_in_words(evaluation)
            return tuple(keys), tuple(said)
        ends, claims = evaluation.flagged_runs.endings, evaluation.claims
        bad = f"{ends.broken} flagged {claims.bad} run{'s' * (ends.broken != 1)}"
        for share, words in (
            (ends.repaired.value, f"of {bad} {claims.left}"),
            (ends.harmed_of_all_good.value, f"of all {claims.good} runs {claims.fell}"),
        ):
            if share is not None:  # None where no flagged run was in that quarter
                keys.append(Key(percent(share), words))
        said += effect_in_words(evaluation)
    return tuple(keys), tuple(said)


def _channels(ds: xr.Dataset) -> list[str]:
    """What pixels are, where samples are no pictures."""
    if "x0" not in ds or not is_latent(ds["x0"]):
        return []
    channels, height, width = (ds["x0"].sizes[name] for name in ("channel", "y", "x"))
    return [
        f"Samples have {channels} channels of {height} x {width} places: these are the pixels "
        "that this page counts."
    ]


def _sampler(ds: xr.Dataset, steps: int) -> str:
    """By what the runs were sampled, and in how many steps."""
    if is_loop_recording(ds.attrs):
        return f"in {steps} steps of a custom loop"
    return (
        f"from {ds.attrs.get('pipeline', 'a pipeline')} in {steps} steps with "
        f"{ds.attrs.get('scheduler_class', 'a scheduler that is not named')}"
    )


def _when(phases: Phases | None, steps: int) -> str:
    """When regions begin to change on their own, without the vocabulary."""
    if phases is None:
        few = f"{steps} step{'s' * (steps != 1)}"
        return f"Phases need at least 4 steps, and these runs have {few}: they are left out."
    spans = {name: (left, right) for name, left, right in phases.population.spans("step", 0, steps)}
    if not spans:
        return phases.verdict()
    start, end = spans["Mutation"]
    until = f"to about step {end:.0f}" if "Refinement" in spans else "to the end"
    who = "it" if "Profiling" in spans else "the model"
    said = f"from {'there' if start else 'the start'} {until} {who} revises single regions, which "
    said += "is where artifacts arose in the models of the paper"
    if "Profiling" in spans:
        first = f"up to about step {start:.0f} of {steps} the model lays out the image as a whole"
        said = f"{first}; {said}"
    if "Refinement" in spans:
        said += "; then it refines detail"
    return f"{said[0].upper()}{said[1:]} (p = {phases.p_value:.2g})."


def _promise(thresholds: Thresholds) -> str:
    guarantee = thresholds.guarantee
    measured = "; it was not measured"
    if guarantee.measured is not None and guarantee.interval is not None:
        low, high = (percent(limit) for limit in guarantee.interval)
        band = None if thresholds.groups else guarantee.band()
        kept = (
            "" if band is None else f"; {band[0]} to {band[1]} of them fit a promise that is kept"
        )
        measured = (
            f"; of {guarantee.report} held-out {guarantee.unit}s, "
            f"{percent(guarantee.measured)} were flagged (95 % interval {low} to {high}{kept})"
        )
    verb = "promise to" if guarantee.finite_sample else "aim to"
    return (
        f"Thresholds ({thresholds.variant}) {verb} flag at most {promised_in_words(guarantee)} of "
        f"{guarantee.population}, on average over calibrations{measured}."
    )


def stores_in_words(evaluation: Evaluation) -> tuple[str, ...]:
    """How the runs of a second store compare with these."""
    claims, effect = evaluation.claims, evaluation.flagged_runs.effect.all
    verdict = "do not clearly differ from these runs"
    if effect.sign:
        verdict = f"are {claims.better if effect.sign < 0 else claims.worse}"
    said = [
        f"{evaluation.runs:,} runs of a second store, beside these ({evaluation.pairs}), "
        f"{verdict}, as {evaluation.judge.name} sees it: {claims.distance} differs by "
        f"{effect}; negative is {claims.better}."
    ]
    if not evaluation.paired:
        beyond = evaluation.flagged_runs.endings.worst_quarter
        share, before = (percent(one.value or 0) for one in (beyond.after, beyond.before))
        low, high = (percent(one or 0) for one in (beyond.after.low, beyond.after.high))
        said.append(
            f"{share} ({low} to {high}) of them lie in {claims.worst}, where {before} of these do."
        )
    return tuple(said)


def effect_in_words(evaluation: Evaluation) -> tuple[str, ...]:
    """What the correction did to the flagged runs, and whether the place of the mask mattered."""
    claims, effect = evaluation.claims, evaluation.flagged_runs.effect.all
    if effect.value is None:
        return ("No run was flagged, so nothing was corrected.",)
    how = f"{evaluation.correction}, at step {evaluation.correction_step}"
    verdict = f"made no clear difference to the flagged runs' {claims.distance}"
    if effect.sign:
        verdict = f"made the flagged runs {claims.better if effect.sign < 0 else claims.worse}"
    started = f"Correcting them ({how}) {verdict}"
    if effect.low is None:
        few = f"{evaluation.flagged} flagged run{'s are' if evaluation.flagged > 1 else ' is'}"
        started = f"{few} too few to say what the correction ({how}) or its place does"
    said = [
        f"{started}, as {evaluation.judge.name} sees it: {claims.distance} changed by {effect}; "
        f"negative is {claims.better}."
    ]
    ends = evaluation.flagged_runs.endings
    if ends.repaired.value is not None:
        low, high = (percent(one or 0, 0) for one in (ends.repaired.low, ends.repaired.high))
        were = "runs that were" if ends.broken != 1 else "run that was"
        said.append(
            f"{percent(ends.repaired.value, 0)} ({low} to {high}) of the {ends.broken} "
            f"flagged {were} in {claims.worst} left it; of the runs that were not, "
            f"{percent(ends.harmed_of_all_good.value or 0)} fell into it. Of runs that are "
            f"drawn anew, {percent(ends.chance, 0)} lie there."
        )
    if evaluation.judge.chose:
        said.append("The judge also chose among the draws, so that its figures are too kind.")
    figure = evaluation.against_best_control.all if evaluation.against_best_control else None
    if figure is not None and figure.low is not None:
        if not figure.sign:
            said.append(
                "Against the best control the place of the correction made no clear difference: "
                "the same correction at a wrong place of equal area did about as well. Whom to "
                "correct may have been right; where is not shown."
            )
        elif figure.sign < 0:
            everywhere = figure.against.get("everywhere", NOTHING)
            said.append(
                f"The place of the mask made a difference of {figure.value:.3g} beyond the best "
                f"control (negative: {claims.better})"
                + (
                    "; the same correction everywhere did about as well."
                    if everywhere.value is not None and not everywhere.sign
                    else "."
                )
            )
        else:
            said.append(
                f"The best control did better by {figure.value:.3g}: the place of the "
                "correction was worse than a wrong one of equal area."
            )
    if evaluation.against_other_runs:
        said += _flag_sentence(evaluation.against_other_runs.all)
    others = evaluation.other_runs
    said.append(f"{others.changed:,} of {others.runs:,} other runs changed.")
    return tuple(said)


def _flag_sentence(difference: Estimate) -> list[str]:
    """Whether the choice of runs mattered, where a correction takes whole runs."""
    if difference.low is None:
        return []
    if not difference.sign:
        return [
            "The choice of runs made no clear difference: as many other runs, corrected alike, "
            "gained about as much."
        ]
    more = "more" if difference.sign < 0 else "less"
    return [f"Flagged runs gained {more} than as many others, corrected alike: {difference}."]
