"""Choice of ``T_c`` and strength on counterfactuals, not by hand."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from asced_analysis.correction.registry import STRATEGIES
from asced_analysis.correction.settings import correction_step
from asced_analysis.evaluation.intervals import Estimate, change_estimate
from asced_analysis.evaluation.options import TuneOptions
from asced_analysis.realism.claims import Reference
from asced_analysis.realism.judges import choose_judge, real_images_of
from asced_analysis.realism.local import local_realism
from asced_analysis.realism.pictures import read_pictures
from asced_analysis.replay.branching import Branch, branch
from asced_analysis.replay.decoding import Decoder
from asced_analysis.replay.planning import detect_recorded, lookahead_network
from asced_analysis.replay.recording import Recording
from asced_analysis.replay.sampling import schedule_of
from asced_analysis.thresholds.document import Thresholds
from asced_stores import TrajectoryStore, open_runs
from asced_stores.errors import InputError
from asced_stores.options import takes

LEAST_RUNS = 8


@dataclass(frozen=True)
class Candidate:
    """One setting of the correction, and what it does.

    Attributes
    ----------
    strategy : str
    step : int
        ``T_c``.
    strength : float
        Noise scale of the perturbation.
    chosen_on, held_out : Estimate
        Mean change of local distance (lower is better) on the half of the runs that the choice is
        made on, and on the other.
    parameters : dict
        Of the strategy, besides the strength: the place.
    """

    strategy: str
    step: int
    strength: float
    chosen_on: Estimate
    held_out: Estimate
    parameters: dict[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """For people."""
        place = f", {self.parameters['where']}" if "where" in self.parameters else ""
        return f"{self.strategy}{place}, step {self.step}, strength {self.strength:g}"


@dataclass(frozen=True)
class Tuning:
    """The candidates, the best of them, and thresholds that carry it.

    Examples
    --------
    >>> from asced_analysis.evaluation import tune
    >>> tuning = tune("runs.zarr", "thresholds.json", steps=[5], strategies=["ttc"], share=0.5)
    >>> len(tuning.candidates), tuning.thresholds.correction.strategy
    (1, 'ttc')
    """

    candidates: tuple[Candidate, ...]
    best: Candidate
    runs: int
    judge: str
    reference: Reference
    thresholds: Thresholds

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "judge": self.judge,
            "reference": self.reference.to_dict(),
            "runs": self.runs,
            "candidates": [{**asdict(one), "best": one is self.best} for one in self.candidates],
        }


@takes(TuneOptions)
def tune(
    store: TrajectoryStore | str | Path, thresholds: Thresholds | str | Path, options: TuneOptions
) -> Tuning:
    """Try corrections on the runs with the highest scores and choose the one that repairs most.

    Parameters
    ----------
    store : TrajectoryStore or path
        Recorded runs, not those that results are reported on.
    thresholds : Thresholds or path
    options : TuneOptions
        Each by keyword.

    Returns
    -------
    Tuning
        Chosen on one half of the runs; the other half's figures are free of that choice.

    Examples
    --------
    >>> from asced_analysis.evaluation import tune
    >>> tuning = tune("runs.zarr", "thresholds.json", steps=[5], strategies=["ttc"], share=0.5)
    >>> tuning.best.strategy, tuning.best.step
    ('ttc', 5)
    """
    recording = Recording(store)
    if not isinstance(thresholds, Thresholds):
        thresholds = Thresholds.load(thresholds)
    real = real_images_of(options.real, recording.dataset)  # before the pipeline is loaded
    pipe = options.sampler(recording)
    decoder = Decoder(recording, pipe)
    model = choose_judge(options.judge, recording.dataset, real=real, role="teacher")
    table = schedule_of(pipe, recording)
    own = correction_step(thresholds, table)
    steps = options.steps
    if steps is None:
        last = max(own, int(0.8 * table.steps))
        steps = sorted({int(step) for step in np.linspace(own, last, 6).round()})
    network = lookahead_network(thresholds, pipe, options.network)
    first = detect_recorded(recording, thresholds, last_step=min(steps) - 1, network=network)
    scores = np.array(list(first.scores.values()))
    level = float(np.quantile(scores, 1 - options.share))
    lowered = replace(thresholds, levels=replace(thresholds.levels, level=level), groups={})
    plan = detect_recorded(recording, lowered, last_step=min(steps) - 1, network=network)
    if len(plan.masks) < LEAST_RUNS:
        raise InputError(
            f"{len(plan.masks)} runs lie above the level that --share gives; corrections are tried "
            f"on at least {LEAST_RUNS}: record more runs, or raise --share"
        )
    branches = [
        Branch(
            step=step,
            strategy=strategy,
            seed=thresholds.correction.seed,
            parameters=parameters,
        )
        for strategy in options.strategies
        for step in steps
        for parameters in _variations(strategy, options.strengths, options.regions)
    ]
    with tempfile.TemporaryDirectory() as folder:
        branched = branch(
            recording.store,
            Path(folder) / "branches.zarr",
            branches,
            masks=plan.masks,
            pipeline=pipe,
            call=options.call,
            call_options=options.call_options,
            progress=options.progress,
        )
        ds = open_runs(branched.path)
        numbers = np.asarray(ds["run"].values, np.int64)
        place = {int(run): i for i, run in enumerate(recording.dataset["run"].values)}
        at = np.array([place[int(run)] for run in numbers], np.intp)
        seen = read_pictures(recording.dataset, at)
        before = local_realism(seen, model, runs=numbers).mean((1, 2))
        changes = []
        for i in range(len(branches)):
            samples = ds["branch_sample"].isel(branch=i).values
            drawn = decoder.pictures(samples, numbers)
            changes.append(local_realism(drawn, model, runs=numbers).mean((1, 2)) - before)
        even = np.asarray(ds["run"].values) % 2 == 0
    candidates = tuple(
        Candidate(
            strategy=one.strategy,
            step=one.step,
            strength=float(one.parameters.get("noise_scale", 0.0)),
            chosen_on=change_estimate(change[even]),
            held_out=change_estimate(change[~even]),
            parameters={k: v for k, v in one.parameters.items() if k != "noise_scale"},
        )
        for one, change in zip(branches, changes, strict=True)
    )
    best = min(
        candidates, key=lambda one: np.inf if one.chosen_on.value is None else one.chosen_on.value
    )
    correction = replace(
        thresholds.correction,
        strategy=best.strategy,
        log_snr=float(table.log_snr[best.step]),
        normalised_time=best.step / table.steps,
        strength=best.strength,
        parameters=best.parameters,
    )
    return Tuning(
        candidates=candidates,
        best=best,
        runs=len(before),
        judge=model.name,
        reference=model.reference,
        thresholds=replace(thresholds, correction=correction),
    )


def _variations(
    strategy: str, strengths: Sequence[float], regions: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Parameters that a strategy is tried with: its strength and region, where it has them."""
    kind = STRATEGIES.get(strategy)
    known = {one.name for one in fields(kind)}
    for strength in strengths if kind.strength else (None,):
        for region in regions if "where" in known else (None,):
            yield {
                name: value
                for name, value in ((kind.strength, strength), ("where", region))
                if name is not None and value is not None
            }
