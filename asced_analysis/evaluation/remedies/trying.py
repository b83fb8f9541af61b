"""Try what may help on a recorded pipeline: one judge chooses, another confirms on fresh seeds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asced_analysis.correction.loops import LoopSampler
from asced_analysis.evaluation.intervals import (
    NOTHING,
    change_estimate,
    change_of_share,
    share_estimate,
    unpaired_estimate,
)
from asced_analysis.evaluation.options import RemedyOptions
from asced_analysis.evaluation.outcome_rates import worst_quarter_limit
from asced_analysis.evaluation.remedies.kinds import (
    KINDS,
    Remedy,
    RemedyContext,
    Runs,
    Skipped,
    sampling,
)
from asced_analysis.evaluation.remedies.result import Remedies, Trial
from asced_analysis.realism.content import content_of, varying
from asced_analysis.realism.judges import choose_judge, real_images_of
from asced_analysis.realism.local import RealismModel, local_realism
from asced_analysis.replay.calls import repeat_calls
from asced_analysis.replay.decoding import Decoder
from asced_analysis.replay.other_settings import Drawn
from asced_analysis.replay.planning import lookahead_network
from asced_analysis.replay.recording import Recording
from asced_analysis.thresholds.document import Thresholds
from asced_stores import TrajectoryStore
from asced_stores.errors import InputError
from asced_stores.options import takes

FEWEST = 8
ROOM = 1.02  # of the budget: what pruning looks at does not always divide it


@takes(RemedyOptions)
def try_remedies(store: TrajectoryStore | str | Path, options: RemedyOptions) -> Remedies:
    """Try samplers, steps, guidance, noise normalisation, corrections and pruning at equal cost.

    Every remedy draws as many runs, under the prompts and options of recorded ones. The best by
    the chooser within the budget is drawn once more on fresh seeds, beside plain sampling at its
    own and at equal evaluations, and a judge that took no part in the choice compares them.

    Parameters
    ----------
    store : TrajectoryStore or path
        Recorded runs of the pipeline.
    options : RemedyOptions
        Each by keyword.

    Returns
    -------
    Remedies

    Raises
    ------
    InputError
        For a loop of one's own, too few runs, a budget below the recorded steps, or a pipeline that
        does not give the recorded images of the recorded samples.

    Examples
    --------
    >>> from asced_analysis.evaluation import try_remedies
    >>> found = try_remedies("runs.zarr", budget=14, runs=8)
    >>> found.budget, found.trials[0].evaluations
    (14, 12.0)
    """
    runs, recording = options.runs, Recording(store)
    real = real_images_of(options.real, recording.dataset)  # before the pipeline is loaded
    pipe = recording.pipeline(options.pipeline)
    if isinstance(pipe, LoopSampler):
        raise InputError("a loop of your own cannot be given another sampler: use tune(loop=...)")
    repeat_calls(recording, pipe, options=options.call_options)
    context = _context(recording, pipe, options)
    numbers = np.asarray(recording.dataset["run"].values, np.int64)
    if runs < FEWEST:
        raise InputError(f"runs is {runs}: at least {FEWEST} are needed to compare anything")
    seeds = np.asarray(recording.dataset["seed"].values, np.int64)
    chosen_on, fresh = _seeds(seeds, runs)
    conditions = np.resize(numbers, runs)
    decoder = Decoder(recording, pipe)
    chooser = choose_judge(options.chooser, recording.dataset, real=real, role="teacher")
    first = _Look(context, decoder, chooser)
    second = _Look(context, decoder, choose_judge(options.judge, recording.dataset, real=real))
    found = [one for kind in KINDS for one in kind(context)]
    tried = [one for one in found if isinstance(one, Remedy)]
    skipped = {one.title: one.reason for one in found if isinstance(one, Skipped)}
    plain = Remedy(
        f"plain, {context.steps} steps",
        f"pipe(..., num_inference_steps={context.steps})",
        sampling(context, pipe, context.steps),
    )
    tell = options.progress or (lambda done, total: None)
    parts = len(tried) + 4
    with recording.threads():
        trials = [first.plain(plain, conditions, chosen_on)]
        for done, one in enumerate(tried, start=1):
            tell(done, parts)
            try:
                trials.append(first.against(one, conditions, chosen_on))
            except InputError as error:
                skipped[one.title] = str(error)
        best = _best(trials, context.budget)
        wanted = [one for one in tried if one.title in (f"{context.budget} steps", best.title)]
        confirmed = [second.plain(plain, conditions, fresh)]
        wanted.sort(key=lambda one: one.title == best.title)
        confirmed += [second.against(one, conditions, fresh) for one in wanted]
        tell(parts, parts)
    return Remedies(
        trials=tuple(trials),
        confirmed=tuple(confirmed),
        best=best.title,
        helps=_helps(second, confirmed),
        budget=context.budget,
        runs=runs,
        chooser=first.model.name,
        judge=second.model.name,
        reference=second.model.reference,
        skipped=skipped,
    )


def _context(recording: Recording, pipe: Any, options: RemedyOptions) -> RemedyContext:
    """Check what is given."""
    thresholds = options.thresholds
    if thresholds is not None and not isinstance(thresholds, Thresholds):
        thresholds = Thresholds.load(thresholds)
    steps = int(recording.attributes.get("steps", recording.steps))
    budget = 2 * steps if options.budget is None else options.budget
    if budget < steps:
        raise InputError(
            f"a budget of {budget} evaluations is below the {steps} steps of the recorded runs: "
            "give more, or record runs of fewer steps"
        )
    lookahead = lookahead_network(thresholds, pipe, options.network)
    return RemedyContext(recording, pipe, budget, thresholds, lookahead, options.call_options or {})


def _seeds(recorded: NDArray[np.int64], runs: int) -> tuple[Runs, Runs]:
    """Seeds to choose on, and others, that were never recorded, to confirm on."""
    after = int(recorded.max(initial=-1)) + 1
    return np.arange(after, after + runs), np.arange(after + runs, after + 2 * runs)


@dataclass
class _Look:
    """One judge, who sees plain runs first and compares the others with them."""

    context: RemedyContext
    decoder: Decoder
    model: RealismModel
    rows: float = 0.0
    pictures: NDArray[np.float32] | None = None
    distance: NDArray[np.float64] | None = None
    limit: float = np.nan
    seen: dict[str, NDArray[np.bool_]] | None = None

    def plain(self, one: Remedy, runs: Runs, seeds: Runs) -> Trial:
        """Draw plain runs; the worst quarter of them sets the limit."""
        drawn = one.draw(runs, seeds)
        self.rows = float(drawn.rows or self.context.steps)
        self.pictures, self.distance = self._look(drawn, runs)
        self.limit = worst_quarter_limit(self.distance)
        broken = self.distance > self.limit
        self.seen = {one.title: broken}
        steps, share = float(self.context.steps), share_estimate(broken)
        return Trial(one.title, one.code, steps, share, NOTHING, NOTHING, None)

    def against(self, one: Remedy, runs: Runs, seeds: Runs) -> Trial:
        """Draw a remedy's runs and compare them with the plain ones."""
        assert self.pictures is not None
        assert self.distance is not None
        assert self.seen is not None
        drawn = one.draw(runs, seeds)
        pictures, distance = self._look(drawn, runs)
        before, after = self.distance > self.limit, distance > self.limit
        self.seen[one.title] = after
        if drawn.paired:
            change = change_of_share(before, after)
            moved = change_estimate(distance - self.distance)
        else:
            change = unpaired_estimate(after, before)
            moved = unpaired_estimate(distance, self.distance)
        evaluations = drawn.evaluations
        if evaluations is None:
            evaluations = float(drawn.rows or 0) * self.context.steps / self.rows
        return Trial(
            one.title,
            one.code,
            evaluations,
            share_estimate(after),
            change,
            moved,
            _content_kept(self.pictures, pictures),
        )

    def _look(self, drawn: Drawn, runs: Runs) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Pictures and mean local distances; runs stand where recorded ones of their prompts do."""
        pictures = self.decoder.pictures(drawn.ends, runs)
        return pictures, local_realism(pictures, self.model, runs=runs).mean((1, 2))


def _best(trials: list[Trial], budget: int) -> Trial:
    """The fewest broken runs within the budget, then the lowest distance."""
    affordable = [one for one in trials[1:] if one.evaluations <= ROOM * budget]
    if not affordable:
        raise InputError(
            f"nothing can be tried within {budget} evaluations: give a larger budget, or thresholds"
        )
    return min(affordable, key=lambda one: (one.broken.value or 0.0, one.distance.value or 0.0))


def _helps(look: _Look, confirmed: list[Trial]) -> bool:
    """Whether the last has fewer broken runs than each plain sampling: intervals below 0."""
    assert look.seen is not None
    last = look.seen[confirmed[-1].title]
    others = [look.seen[one.title] for one in confirmed[:-1]]
    if len(confirmed) == 1:
        return False
    changes = [unpaired_estimate(last, other) for other in others]
    return all(one.high is not None and one.high < 0 for one in changes)


def _content_kept(plain: NDArray[np.float32], others: NDArray[np.float32]) -> float | None:
    """Smallest p-value that both show the same content, times the number of kinds."""
    from scipy.stats import ks_2samp

    first, second = content_of(plain), content_of(others)
    names = list(varying(first))
    if not names:
        return None
    smallest = min(float(ks_2samp(first[name], second[name]).pvalue) for name in names)
    return min(1.0, smallest * len(names))
