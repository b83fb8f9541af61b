"""Judge what a correction did: what changed, for better or worse, and what controls did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from asced_analysis.correction.controls import Control
from asced_analysis.evaluation.comparison import (
    Comparison,
    compare_replay,
    compare_stores,
    quality_change,
)
from asced_analysis.evaluation.control_runs import (
    ControlSampler,
    PairedRuns,
    control_figures,
    controls_of,
    recorded_strategy,
)
from asced_analysis.evaluation.effects import (
    Effect,
    against_controls,
    against_other_runs,
    change_by_chance,
    damaged_locations,
    effect_of,
    pixel_change,
    unpaired_effect,
)
from asced_analysis.evaluation.intervals import Change, mean_estimate
from asced_analysis.evaluation.judges import (
    AFTER,
    BEFORE,
    Assessment,
    GivenJudge,
    Judge,
    RealismJudge,
    given_judge,
)
from asced_analysis.evaluation.options import EvaluateOptions
from asced_analysis.evaluation.outcome_rates import (
    outcome_rates,
    unpaired_outcome_rates,
    worst_quarter_limit,
)
from asced_analysis.evaluation.parts import ControlFigures, FlaggedRuns, JudgeFacts, RunChange
from asced_analysis.evaluation.populations import estimates, quality_of
from asced_analysis.evaluation.result import Evaluation
from asced_analysis.realism.claims import claims_of
from asced_analysis.realism.distances import neighbour_radii
from asced_analysis.realism.judges import choose_judge, real_images_of
from asced_analysis.thresholds.typed_json import finite_json
from asced_stores import TrajectoryStore, open_runs
from asced_stores.errors import InputError
from asced_stores.format.recorded_loops import is_loop_recording
from asced_stores.options import takes

if TYPE_CHECKING:
    from asced_analysis.realism.local import RealismModel
    from asced_analysis.realism.real_images import Real, RealImages

NEIGHBOURS = 3


@takes(EvaluateOptions)
def evaluate(
    recorded: TrajectoryStore | str | Path,
    corrected: TrajectoryStore | str | Path,
    options: EvaluateOptions,
) -> Evaluation:
    """Compare two stores of runs, as a judge sees both that was not taught by either.

    Parameters
    ----------
    recorded : TrajectoryStore or path
        The recording.
    corrected : TrajectoryStore or path
        What `replay` made of it; or any other store, whose runs are paired with the recorded ones
        by number and start, or compared unpaired where they did not begin alike.
    options : EvaluateOptions
        Each by keyword; of the sampler, whatever the replay was given.

    Returns
    -------
    Evaluation

    Raises
    ------
    InputError
        When a replay is not whole, is one of another recording, or did not bring unedited runs
        back; when there are too few runs, or nothing that they could be compared with.

    Examples
    --------
    >>> from asced_analysis import evaluate
    >>> evaluation = evaluate("runs.zarr", "corrected.zarr", controls=False)
    >>> evaluation.judge.name, evaluation.runs
    ('fashion-judge', 48)
    """
    first, second = _store(recorded), _store(corrected)
    options, given = _read_first(options, first, second)
    is_replay = second.attributes.get("replay_of") is not None
    compared = compare_replay(first, second) if is_replay else compare_stores(first, second)
    _enough(compared)
    if first.backend.position == second.backend.position:
        raise InputError(f"{first.path} and {second.path} are the same store: give two")
    assessor: Judge
    if given is not None:
        assessor = given
    else:
        model = choose_judge(
            options.judge, compared.first, real=options.real, others=(compared.second,)
        )
        assessor = RealismJudge(model, compared.first)
    names, sampler = [], None
    if is_replay and isinstance(assessor, RealismJudge):
        names = _controls(options, second, compared)
        if names and compared.flagged.any():
            assert compared.recording is not None
            sampler = ControlSampler(compared.recording, second, options)
    parts = len(names) + 2
    tell = options.progress or (lambda done, total: None)
    before, after = _both(compared, assessor)
    limit = worst_quarter_limit(before.distance)
    tell(1, parts)
    changes = quality_change(compared, before, after, assessor, NEIGHBOURS)
    if not compared.paired:
        differ = FlaggedRuns(
            effect=unpaired_effect(before.distance, after.distance),
            endings=unpaired_outcome_rates(before.distance, after.distance, limit),
        )
        tell(2, parts)
        return _facts(compared, assessor, second.attributes, changes, differ)
    paired = compared.paired_runs()
    index = np.flatnonzero(compared.flagged)
    was, now = before.at(index).maps, after.at(index).maps
    damaged = damaged_locations(was)
    effect = effect_of(was, now, paired.before, paired.after, damaged)
    inside, outside = _inside(paired, compared.masks is not None)
    masked = len(paired.runs) and compared.masks is not None
    flagged_runs = FlaggedRuns(
        effect=effect.figures(),
        endings=outcome_rates(before.distance, after.distance, compared.flagged, limit),
        inside_mask=mean_estimate(inside[np.isfinite(inside)]),
        outside_mask=mean_estimate(outside[np.isfinite(outside)]),
        mask_area=float(paired.masks.mean()) if masked else None,
        evaluations=compared.evaluations(),
        chance=change_by_chance(before.maps, was, damaged),
    )
    tell(2, parts)
    of_controls: dict[str, Effect] = {}
    figures: dict[str, ControlFigures] = {}
    of_others = sampler is not None and sampler.of_others
    if sampler is not None:
        assert isinstance(assessor, RealismJudge)
        for done, name in enumerate(names):
            wrong = sampler.sample(name, paired)
            there = assessor.see(wrong.before, wrong.runs).maps if of_others else was
            then = assessor.see(wrong.after, wrong.runs).maps
            of_controls[name] = effect_of(
                there, then, wrong.before, wrong.after, damaged_locations(there, was)
            )
            figures[name] = control_figures(of_controls[name].figures(), wrong, there, then, limit)
            tell(3 + done, parts)
    return replace(
        _facts(compared, assessor, second.attributes, changes, flagged_runs),
        other_runs=compared.others(before.distance, after.distance),
        controls=figures,
        against_best_control=against_controls(effect, of_controls)
        if of_controls and not of_others
        else None,
        against_other_runs=against_other_runs(effect, of_controls["shuffled"])
        if of_controls and of_others
        else None,
        by_run=_by_run(paired, was, now, inside, outside) if is_replay else (),
    )


def quality(
    runs: TrajectoryStore | str | Path,
    *,
    judge: str | RealismModel | None = None,
    real: Real | RealImages | None = None,
) -> dict[str, Any]:
    """Quality of recorded runs alone: local distance and, against real images, distances of sets.

    Parameters
    ----------
    runs : TrajectoryStore or path
        The recording.
    judge, real
        As for `evaluate`.

    Returns
    -------
    dict
        ``judge``, ``reference``, ``runs``, and estimates with 95 % intervals over runs. Compare
        populations of one size only.

    Examples
    --------
    >>> from asced_analysis.evaluation import quality
    >>> result = quality("runs.zarr")
    >>> result["judge"], result["runs"]
    ('fashion-judge', 48)
    """
    store = _store(runs)
    dataset = open_runs(store.path)
    if dataset.sizes["run"] <= NEIGHBOURS:
        raise InputError(
            f"{store.path} holds {dataset.sizes['run']} complete runs; their quality needs more "
            f"than {NEIGHBOURS}"
        )
    assessor = RealismJudge(choose_judge(judge, dataset, real=real))
    seen = assessor.assess(dataset, np.arange(dataset.sizes["run"]), BEFORE, paired=True)
    if seen.vectors is None:
        figures = {"local_realism": mean_estimate(seen.distance)}
    else:
        radii = neighbour_radii(assessor.model.vectors, NEIGHBOURS)
        found = quality_of(seen.vectors, seen.distance, assessor.model, radii, NEIGHBOURS)
        figures = estimates(found, assessor.model)
    return {
        "judge": assessor.name,
        "reference": assessor.reference.to_dict(),
        "runs": int(dataset.sizes["run"]),
        **{name: figure.to_dict() for name, figure in figures.items()},
    }


def _read_first(
    options: EvaluateOptions, first: TrajectoryStore, second: TrajectoryStore
) -> tuple[EvaluateOptions, GivenJudge | None]:
    """Real images, or the judge of given outcomes: what is wrong with them is said before work."""
    if options.outcomes is None:
        real = real_images_of(options.real, open_runs(first.path))
        return replace(options, real=real), None
    given = given_judge(options.outcomes, options.better)
    given.before.check(open_runs(first.path))
    given.after.check(open_runs(second.path), varied=False)
    return options, given


def _store(given: TrajectoryStore | str | Path) -> TrajectoryStore:
    return given if isinstance(given, TrajectoryStore) else TrajectoryStore.open(given)


def _enough(compared: Comparison) -> None:
    for name, places in (("recorded", compared.at), ("corrected", compared.there)):
        if len(places) <= NEIGHBOURS:
            raise InputError(
                f"there are {len(places)} complete {name} runs to compare; an evaluation needs "
                f"more than {NEIGHBOURS}"
            )


def _controls(
    options: EvaluateOptions, store: TrajectoryStore, compared: Comparison
) -> list[Control]:
    """Controls to run; none by default where there is nothing to sample them with."""
    named = store.attributes.get("pipeline") and not is_loop_recording(store.attributes)
    if options.controls is True and not named and options.pipeline is None and options.loop is None:
        compared.notes.append(
            "no controls: the recording names no pipeline to sample them with, and no loop was "
            "given (--loop), so the effect is not compared with theirs"
        )
        return []
    return controls_of(options.controls, store, everybody=bool(compared.flagged.all()))


def _both(compared: Comparison, assessor: Judge) -> tuple[Assessment, Assessment]:
    """What the judge sees before and after; runs that are bit for bit the same are seen once."""
    before = assessor.assess(compared.first, compared.at, BEFORE, paired=True)
    if not compared.paired:
        return before, assessor.assess(compared.second, compared.there, AFTER, paired=False)
    if not isinstance(assessor, RealismJudge):
        return before, assessor.assess(compared.second, compared.there, AFTER, paired=True)
    changed = np.flatnonzero(compared.changed)
    new = assessor.assess(compared.second, compared.there[changed], AFTER, paired=True)
    return before, before.replaced(changed, new) if len(changed) else before


def _facts(
    compared: Comparison,
    assessor: Judge,
    attributes: Mapping[str, Any],
    quality: Mapping[str, Change],
    flagged_runs: FlaggedRuns,
) -> Evaluation:
    """What was judged by whom, and what is known of any two stores."""
    strategy = attributes.get("strategy")
    return Evaluation(
        judge=JudgeFacts(
            name=assessor.name,
            reference=assessor.reference,
            distance=claims_of(assessor.reference).distance,
            neighbours=NEIGHBOURS,
            card=assessor.model.card if isinstance(assessor, RealismJudge) else {},
            chose=attributes.get("teacher") == assessor.name,
        ),
        paired=compared.paired,
        pairs=compared.why,
        notes=tuple(compared.notes),
        replay_of=attributes.get("replay_of"),
        pipeline=compared.first.attrs.get("pipeline"),
        strategy=strategy,
        correction=None if strategy is None else recorded_strategy(attributes).title,
        teacher=attributes.get("teacher"),
        correction_step=attributes.get("correction_step"),
        steps=int(compared.first.sizes["step"]) if "step" in compared.first.sizes else None,
        control=attributes.get("control"),
        runs=len(compared.there),
        flagged=int(compared.flagged.sum()),
        quality=quality,
        flagged_runs=flagged_runs,
    )


def _inside(paired: PairedRuns, masked: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Change of pixels inside and outside the masks; NaN where there are none."""
    if masked:
        return pixel_change(paired.before, paired.after, paired.masks)
    nothing = np.full(len(paired.runs), np.nan)
    return nothing, nothing


def _by_run(
    paired: PairedRuns,
    before: NDArray[np.float32],
    after: NDArray[np.float32],
    inside: NDArray[np.float64],
    outside: NDArray[np.float64],
) -> tuple[RunChange, ...]:
    """What happened to each flagged run."""
    return tuple(
        RunChange(
            run=int(paired.runs[i]),
            score=finite_json(float(paired.scores[i])),
            mask_area=float(paired.masks[i].mean()),
            inside_mask=finite_json(float(inside[i])),
            outside_mask=finite_json(float(outside[i])),
            local_realism_before=float(before[i].mean()),
            local_realism_after=float(after[i].mean()),
        )
        for i in range(len(paired.runs))
    )
