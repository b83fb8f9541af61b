"""Which runs are edited, and where: found in the recording before anything is sampled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from asced_analysis.correction.controls import Control, control_masks, other_runs
from asced_analysis.correction.detecting import Network, RunDetector
from asced_analysis.correction.lookahead import (
    RecordedTable,
    network_by_step,
    pipeline_network,
)
from asced_analysis.correction.loops import LoopSampler
from asced_analysis.correction.regions import find_regions, is_found
from asced_analysis.correction.strategy import Strategy
from asced_analysis.detection.registry import needs_network
from asced_analysis.replay.recording import Batch, Recording
from asced_stores.errors import InputError, TooFewStepsError

if TYPE_CHECKING:
    from asced_analysis.thresholds.document import Thresholds

Masks = Mapping[int, NDArray[np.bool_]]


@dataclass(frozen=True)
class Plan:
    """Edits of a population.

    Attributes
    ----------
    masks : dict of run to bool array (y, x)
        Flagged runs only: memory grows with these alone.
    scores : dict of run to float
    first_flagged : dict of run to int
        First flagged step, where it is known.
    window : (int, int) or None
        Steps that the detector looked at.
    """

    masks: dict[int, NDArray[np.bool_]]
    scores: dict[int, float] = field(default_factory=dict)
    first_flagged: dict[int, int] = field(default_factory=dict)
    window: tuple[int, int] | None = None

    def assignment(self, batch: Batch, shape: tuple[int, int]) -> dict[str, Any]:
        """What `Corrector.assign` is to be told of a batch."""
        masks, flagged, scores = self.of(batch, shape)
        told: dict[str, Any] = {"masks": masks, "flagged": flagged, "scores": scores}
        if self.first_flagged:
            told["first_flagged"] = np.array(
                [self.first_flagged.get(int(run), -1) for run in batch.runs], np.int64
            )
        return told | {"window": self.window}

    def of(
        self, batch: Batch, shape: tuple[int, int]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.float64]]:
        """Masks (n, y, x), flags (n,) and scores (n,) of a batch."""
        masks = np.zeros((len(batch.runs), *shape), np.bool_)
        flagged = np.array([int(run) in self.masks for run in batch.runs], np.bool_)
        for index in np.flatnonzero(flagged):
            masks[index] = self.masks[int(batch.runs[index])]
        scores = np.array([self.scores.get(int(run), np.nan) for run in batch.runs], np.float64)
        return masks, flagged, scores


def lookahead_network(
    thresholds: Thresholds | None, pipe: Any, network: Network | None = None
) -> Network | None:
    """The network that thresholds need for a lookahead; None where they need none.

    Parameters
    ----------
    thresholds : Thresholds or None
    pipe : DiffusionPipeline
        Whose network is evaluated.
    network : callable, optional
        One of your own: ``network(sample, table, step)`` gives predicted x0; beside a loop of your
        own ``network(sample, alpha, sigma)``.
    """
    if not needs_network(thresholds):
        return None
    if isinstance(pipe, LoopSampler):
        if network is None:
            raise InputError(
                "these thresholds need a lookahead, which a loop alone cannot give: "
                "give network=f, with f(sample, alpha, sigma) -> predicted x0"
            )
        return network_by_step(network)
    return pipeline_network(pipe) if network is None else network


def detect_recorded(
    recording: Recording,
    thresholds: Thresholds,
    *,
    last_step: int | None = None,
    streamed: bool = False,
    network: Network | None = None,
) -> Plan:
    """Run the in-loop detector over recorded eps and x0: the same kernel on the same numbers.

    Parameters
    ----------
    recording : Recording
    thresholds : Thresholds
    last_step : int, optional
        Look no further than this step (the one before ``T_c``).
    streamed : bool
        Look after every step, as a strategy does in the loop that acts on what is known so far:
        masks are united over the steps, and the first flagged step is found.
    network : callable, optional
        For thresholds with a lookahead: ``network(sample, table, step)``.
    """
    from asced_analysis.detection.apply import levels_of
    from asced_analysis.detection.registry import modules_of
    from asced_analysis.detection.scoring import check_recorded

    spec, attributes = recording.spec, recording.attributes
    prediction = str(attributes.get("prediction_type"))
    table = RecordedTable(tuple(spec.timestep), tuple(spec.alpha), tuple(spec.sigma), prediction)
    sampler = attributes.get("scheduler_class"), recording.steps
    detector = RunDetector(thresholds, table, network, sampler)
    begin, end = detector.window
    end = end if last_step is None else min(end, last_step)
    if end < begin:
        raise InputError(
            f"the thresholds look at steps {begin} to {detector.window[1]}, but the correction "
            f"edits the sample after step {end}: choose a later T_c"
        )
    if end == begin < detector.window[1]:
        raise TooFewStepsError(
            f"the detector would see step {end} alone before the sample after it is corrected, and "
            "dynamics need two steps: choose a later T_c, or sample in more steps"
        )
    check_recorded(recording.dataset, detector.detector.needs(), thresholds)
    names = ("eps", "x0", *(("activations",) if modules_of(thresholds) else ()))
    own = levels_of(recording.dataset, thresholds)
    plan = Plan({}, window=(begin, end))
    for batch in recording.batches():
        values = {name: recording.read(batch, name, step=slice(0, end + 1)) for name in names}
        shape = (len(batch.runs), *values["eps"].shape[2:])
        detector.begin(shape, None if own is None else own[batch.positions])
        for step in range(end + 1):
            eps, x0, *more = (values[name][:, step] for name in names)
            eps, x0 = eps.astype(np.float32), x0.astype(np.float32)
            detector.look(step, eps=eps, x0=x0, **dict(zip(names[2:], more, strict=True)))
            if streamed and begin <= step < end:
                detector.so_far(step, last=False)
        found = detector.so_far(end, last=True)
        assert found is not None
        runs = [int(run) for run in batch.runs]
        plan.scores.update(zip(runs, map(float, found.scores), strict=True))
        for index in np.flatnonzero(found.flagged):
            plan.masks[runs[index]] = found.masks[index]
            if streamed and detector.first_flagged is not None:
                plan.first_flagged[runs[index]] = int(detector.first_flagged[index])
    return plan


def controlled(
    plan: Plan,
    strategy: Strategy,
    control: Control,
    recording: Recording,
    *,
    step: int,
    seed: int = 0,
) -> tuple[Plan, Strategy]:
    """The control's masks, and the strategy that edits in them.

    Of the same flagged runs; where a strategy takes whole runs, ``shuffled`` shuffles the flags: as
    many runs are corrected, but others.

    Parameters
    ----------
    plan : Plan
    strategy : Strategy
    control : {"shuffled", "foreground", "everywhere"}
    recording : Recording
    step : int
        ``T_c``: places that are found in predicted x0 are found in that of the step before.
    seed : int
        Of the random choice.

    Raises
    ------
    InputError
        For other controls of a strategy that takes whole runs, and for the control that is a
        strategy's own place.
    """
    if strategy.region == "everywhere":
        if control != "shuffled":
            raise InputError(
                f"{strategy.title} corrects whole runs, so no region could be wrong: choose the "
                "control shuffled, which corrects as many runs, but others"
            )
        return others_plan(plan, recording, seed=seed), strategy
    if is_found(strategy.region):
        if control == "foreground":
            raise InputError(
                f"{strategy.title} edits all of the foreground, so that random places of it are "
                "the same place: choose the control shuffled or everywhere"
            )
        plan = found_plan(plan, strategy, recording, step)
    return control_plan(plan, control, recording, seed=seed), at_mask(strategy)


def at_mask(strategy: Strategy) -> Strategy:
    """The same strategy, in given masks."""
    if strategy.region == "mask" or not hasattr(strategy, "where"):
        return strategy
    return replace(strategy, where="mask")  # type: ignore[call-arg]


def found_plan(plan: Plan, strategy: Strategy, recording: Recording, step: int) -> Plan:
    """Masks of a strategy that looks for its place in predicted x0, from the recorded one."""
    if not recording.has_trajectory:
        raise InputError(
            f"{strategy.title} finds its region in predicted x0, which {recording.store.path} "
            "does not hold: a control needs it beforehand"
        )
    found: dict[int, NDArray[np.bool_]] = {}
    for run in sorted(plan.masks):
        x0 = recording.read(recording.select([run]), "x0", step=step - 1)
        found[run] = find_regions(strategy.region, x0, np.ones(1, np.bool_))[0]
    return replace(plan, masks=found)


def others_plan(plan: Plan, recording: Recording, *, seed: int = 0) -> Plan:
    """As many runs, but others, among those that were recorded whole."""
    dataset = recording.dataset
    whole = dataset["run"].values[dataset["status"].values == 1]
    runs = other_runs(np.array(sorted(plan.masks), np.int64), whole, seed=seed)
    everything = np.ones(recording.spec.sample_shape[-2:], np.bool_)
    return Plan({int(run): everything for run in runs}, plan.scores, window=plan.window)


def control_plan(plan: Plan, control: Control, recording: Recording, *, seed: int = 0) -> Plan:
    """Build the control's masks for the same flagged runs."""
    runs = np.array(sorted(plan.masks), np.int64)
    if not len(runs):
        return plan
    masks = np.stack([plan.masks[int(run)] for run in runs])
    images = recording.read(recording.select(runs), "sample")
    images = images.reshape(len(runs), -1, *images.shape[-2:])
    wrong = control_masks(
        control, masks, np.ones(len(runs), np.bool_), images, seed=seed, runs=runs
    )
    return replace(plan, masks={int(run): mask for run, mask in zip(runs, wrong, strict=True)})


def given_plan(masks: Any, recording: Recording) -> Plan:
    """Take masks from outside: a mapping of run to mask, or an array (run, y, x) of all runs.

    Raises
    ------
    InputError
        For runs that the recording does not have, and masks of another size.
    """
    runs = [int(run) for run in recording.dataset["run"].values]
    if not isinstance(masks, Mapping):
        array = np.asarray(masks)
        if array.ndim != 3 or len(array) != len(runs):
            raise InputError(f"masks have shape {array.shape}; expected ({len(runs)}, y, x)")
        masks = dict(zip(runs, array, strict=True))
    given = {int(run): np.asarray(mask, np.bool_) for run, mask in masks.items()}
    shape = recording.spec.sample_shape[-2:]
    unknown = sorted(set(given) - set(runs))
    if unknown:
        raise InputError(f"there are masks of runs {unknown[:5]}, which were not recorded")
    at = {run: at_sample(mask, shape, run) for run, mask in given.items() if mask.any()}
    return Plan(at)


def at_sample(mask: NDArray[np.bool_], shape: tuple[int, ...], run: int) -> NDArray[np.bool_]:
    """A mask of the picture's size at the sample's: a cell is in where any of its pixels is.

    Raises
    ------
    InputError
        Where the mask's size is no whole number of times the sample's.
    """
    times, rest = np.divmod(mask.shape, shape) if mask.ndim == 2 else (np.zeros(2), np.ones(2))
    if rest.any() or not times.all():
        raise InputError(
            f"the mask of run {run} has shape {mask.shape}; expected {shape}, or a whole number "
            "of times that, as the decoded picture has"
        )
    cells = mask.reshape(shape[0], times[0], shape[1], times[1])
    return np.asarray(cells.any(axis=(1, 3)), np.bool_)
