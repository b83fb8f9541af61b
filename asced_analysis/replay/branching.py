"""Counterfactuals: several corrections branch off one recorded run, with common random numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asced_analysis.correction.controls import Control
from asced_analysis.correction.corrector import Corrector
from asced_analysis.correction.detecting import Network
from asced_analysis.correction.loops import LoopSampler
from asced_analysis.correction.registry import make_strategy, parameters_of
from asced_analysis.correction.strategy import Strategy
from asced_analysis.replay.options import SamplerOptions
from asced_analysis.replay.planning import (
    Plan,
    controlled,
    detect_recorded,
    given_plan,
    lookahead_network,
)
from asced_analysis.replay.recording import Batch, Recording
from asced_analysis.replay.resuming import plan_fingerprint, replay_store
from asced_analysis.replay.sampling import earlier_x0, resample, resample_from, schedule_of
from asced_analysis.thresholds.document import Thresholds
from asced_recorders.pipelines.provenance import execution_device
from asced_recorders.tap.schedulers import StepTable
from asced_recorders.tap.tap import StepEvent, TapListener
from asced_stores import TrajectorySpec, TrajectoryStore, VariableSpec
from asced_stores.backends.opening import check_apart
from asced_stores.errors import InputError
from asced_stores.options import option, options, takes

AT_ONCE = 64


@dataclass(frozen=True)
class Branch:
    """One counterfactual.

    Attributes
    ----------
    step : int
        ``T_c``: where it leaves the recorded run.
    strategy : str
        One that edits once, at ``T_c``, or from there on.
    control : str or None
        Wrong places instead of the masks, or wrong runs, as in `replay`.
    seed : int
        Of the noise; the same seed means the same noise in every branch.
    grow : int or None
        Pixels by which masks are grown; the thresholds' fraction by default.
    soft : int
        Pixels over which the masks' edges fade.
    parameters : dict
        Of the strategy.

    Examples
    --------
    >>> from asced_analysis.replay import Branch
    >>> Branch(step=10).strategy, Branch(step=14, strategy="renoise").step
    ('ttc', 14)
    """

    step: int
    strategy: str = "ttc"
    control: Control | None = None
    seed: int = 0
    grow: int | None = None
    soft: int = 0
    parameters: Mapping[str, Any] = field(default_factory=dict)


@options
class BranchOptions(SamplerOptions):
    """Whom and where branches correct; a loop samples every branch from its start."""

    thresholds: Thresholds | None = option(None, "Whom and where to correct.")
    masks: Any = option(None, "Instead, as in `replay`.")
    overwrite: bool = option(False, "Replace an existing store.")
    resume: bool = option(False, "Go on with a store that was interrupted.")
    progress: Callable[[int, int], None] | None = option(
        None, "Called with batches done and batches in all."
    )


@takes(BranchOptions)
def branch(
    store: TrajectoryStore | str | Path,
    out: str | Path,
    branches: Sequence[Branch],
    options: BranchOptions,
) -> TrajectoryStore:
    """Sample every branch of every flagged run, each from where it leaves the recording.

    A branch pays only for the steps after its ``T_c``; the sample entering it comes from a recorded
    checkpoint, or from one uncorrected pass that all branches share.

    Parameters
    ----------
    store : TrajectoryStore or path
        The recording; its scheduler must be deterministic and without memory.
    out : path
        Of a store that holds flagged runs only.
    branches : sequence of Branch
    options : BranchOptions
        Each by keyword.

    Returns
    -------
    TrajectoryStore
        `sample` is the recorded end of each run; `branch_sample` (run, branch, channel, y, x) and
        `branch_mask` (run, branch, y, x) its counterfactuals. The attribute `branches` describes
        them.

    Raises
    ------
    InputError
        Without branches or masks; for an `out` that is the recording, or lies in it.

    Examples
    --------
    >>> import numpy as np
    >>> from asced_analysis import open_runs
    >>> from asced_analysis.replay import Branch, branch
    >>> mask = np.zeros((32, 32), bool)
    >>> mask[8:16, 8:16] = True
    >>> branches = [Branch(step=5), Branch(step=7)]
    >>> store = branch("runs.zarr", "branches.zarr", branches, masks={3: mask})
    >>> open_runs(store)["branch_sample"].dims
    ('run', 'branch', 'channel', 'y', 'x')
    """
    if not branches:
        raise InputError("no branch was given: say at which steps to branch off")
    recording = Recording(store)
    check_apart(out, [recording.store.backend])
    thresholds, masks, pipe = options.thresholds, options.masks, options.sampler(recording)
    with recording.threads():
        table = schedule_of(pipe, recording)
        _check(branches, table, whole=isinstance(pipe, LoopSampler))
        lookahead = lookahead_network(thresholds if masks is None else None, pipe, options.network)
        plans, strategies = _plans(branches, recording, thresholds, masks, lookahead)
        runs = np.array(sorted({run for plan in plans for run in plan.masks}), np.int64)
        if not len(runs):
            raise InputError(f"no run of {recording.store.path} is flagged: nothing to branch off")
        branched = replay_store(
            out,
            _spec(recording, branches, thresholds, plans),
            recording,
            runs=len(runs),
            batch_size=min(AT_ONCE, len(runs)),
            overwrite=options.overwrite,
            resume=options.resume,
        )
        with branched.writer(rank=0, world_size=1) as writer:
            total = -(-len(runs) // AT_ONCE)
            for number in writer.pending_batches():
                batch = recording.select(runs[number * AT_ONCE : (number + 1) * AT_ONCE])
                arrays = _sample(recording, batch, pipe, branches, strategies, plans, thresholds)
                writer.write_batch(number, arrays, runs=batch.runs, scalars=batch.scalars)
                if options.progress is not None:
                    options.progress(number + 1, total)
    return branched


def _check(branches: Sequence[Branch], table: StepTable, *, whole: bool) -> None:
    """Refuse what can't branch off; `whole` says that branches are sampled from their start."""
    if not table.resumable and not whole:
        raise InputError(
            f"{table.scheduler_class} keeps solver history or draws noise, which a branch off a "
            "sample does not have: replay each correction from init"
        )
    for one in branches:
        strategy = make_strategy(one.strategy, **one.parameters)
        if not strategy.in_loop or not strategy.from_checkpoint:
            raise InputError(
                f"{one.strategy} does not act from T_c on, once and in one pass: replay it from "
                "init"
            )
        if not 1 <= one.step < table.steps or not table.editable[one.step]:
            raise InputError(f"no sample entering step {one.step} can be edited here")
        strategy.check(table, one.step)


def _plans(
    branches: Sequence[Branch],
    recording: Recording,
    thresholds: Thresholds | None,
    masks: Any,
    network: Network | None,
) -> tuple[list[Plan], list[Strategy]]:
    """Masks of each branch, and what edits in them; what looks after every step is found apart."""
    if masks is None and thresholds is None:
        raise InputError("branches need thresholds or masks, which say what to correct")
    last = min(one.step for one in branches) - 1

    @cache
    def found(streamed: bool) -> Plan:
        if masks is not None:
            return given_plan(masks, recording)
        assert thresholds is not None
        return detect_recorded(
            recording, thresholds, last_step=last, streamed=streamed, network=network
        )

    plans, strategies = [], []
    for one in branches:
        strategy = make_strategy(one.strategy, **one.parameters)
        plan = found(strategy.streams_masks)
        if one.control is not None:
            plan, strategy = controlled(
                plan, strategy, one.control, recording, step=one.step, seed=one.seed
            )
        plans.append(plan)
        strategies.append(strategy)
    return plans, strategies


def _sample(
    recording: Recording,
    batch: Batch,
    pipe: Any,
    branches: Sequence[Branch],
    strategies: Sequence[Strategy],
    plans: Sequence[Plan],
    thresholds: Thresholds | None,
) -> dict[str, NDArray[Any]]:
    """Sample all branches of one batch: of pipelines that are called, call by call as recorded.

    An image that was given once for a call would not fit the runs of several; nor might memory.
    """
    calls = [np.arange(len(batch.runs))]
    if not (isinstance(pipe, LoopSampler) or recording.is_ours(pipe)):
        calls = recording.calls_of(batch.runs, AT_ONCE)
    found: dict[str, NDArray[Any]] = {}
    for places in calls:
        part = recording.select(batch.runs[places])
        for name, values in _sample_call(
            recording, part, pipe, branches, strategies, plans, thresholds
        ).items():
            shape = (len(batch.runs), *values.shape[1:])
            found.setdefault(name, np.empty(shape, values.dtype))[places] = values
    return found


def _sample_call(
    recording: Recording,
    batch: Batch,
    pipe: Any,
    branches: Sequence[Branch],
    strategies: Sequence[Strategy],
    plans: Sequence[Plan],
    thresholds: Thresholds | None,
) -> dict[str, NDArray[Any]]:
    """Sample all branches of runs that are sampled together."""
    shape = recording.spec.sample_shape[-2], recording.spec.sample_shape[-1]
    whole = isinstance(pipe, LoopSampler)
    steps = set() if whole else {one.step for one in branches}
    entering = entering_samples(recording, batch, pipe, steps)
    samples, masks = [], []
    for one, strategy, plan in zip(branches, strategies, plans, strict=True):
        corrector = Corrector(
            thresholds,
            strategy=strategy,
            seed=one.seed,
            step=one.step,
            grow=one.grow,
            soft=one.soft,
            dtype=recording.spec.dtype,
        )
        corrector.assign(
            batch.runs,
            **plan.assignment(batch, shape),
            x0={} if whole else earlier_x0(recording, batch, one.step, execution_device(pipe)),
        )
        samples.append(
            resample(recording, batch, pipe, corrector=corrector)
            if whole
            else resample_from(
                recording,
                batch,
                pipe,
                entering[one.step],
                one.step,
                corrector=corrector,
                listener=corrector,
            )
        )
        masks.append(np.stack([report.mask for report in corrector.report]))
    return {
        "sample": recording.read(batch, "sample"),
        "branch_sample": np.stack(samples, axis=1),
        "branch_mask": np.stack(masks, axis=1).astype(np.uint8),
    }


class _Capture(TapListener):
    """Keeps the samples that enter chosen steps."""

    def __init__(self, steps: set[int]) -> None:
        self.steps = steps
        self.found: dict[int, Tensor] = {}

    def before_step(self, event: StepEvent) -> None:
        """Keep the sample."""
        if event.step in self.steps:
            self.found[event.step] = event.sample.clone()


def entering_samples(
    recording: Recording, batch: Batch, pipe: Any, steps: set[int]
) -> dict[int, Tensor]:
    """Samples entering chosen steps: from checkpoints, else from one uncorrected pass."""
    recorded = set(recording.spec.checkpoints)
    found = {
        step: torch.from_numpy(recording.checkpoint(batch, step)).to(execution_device(pipe))
        for step in steps & recorded
    }
    missing = steps - recorded
    if missing:
        start = max((step for step in recorded if step <= min(missing)), default=0)
        capture = _Capture(missing)
        resample(recording, batch, pipe, start=start, listener=capture)
        found |= capture.found
    return found


def _described(one: Branch) -> dict[str, Any]:
    """A branch as its store keeps it: a function is named."""
    known = parameters_of(make_strategy(one.strategy, **one.parameters))
    return {**asdict(one), "parameters": {name: known[name] for name in one.parameters}}


def _spec(
    recording: Recording,
    branches: Sequence[Branch],
    thresholds: Thresholds | None,
    plans: Sequence[Plan],
) -> TrajectorySpec:
    """Layout of the store: a dimension ``branch`` after ``run``."""
    spec = recording.spec
    count = len(branches)
    rows, columns = spec.sample_shape[-2:]
    attributes = {
        name: value
        for name, value in spec.attributes.items()
        if name not in ("format", "format_version")
    }
    attributes |= {
        "replay_of": recording.store.fingerprint,
        "thresholds": None if thresholds is None else thresholds.to_dict(),
        "branches": [_described(one) for one in branches],
        "plan": ", ".join(str(plan_fingerprint(plan)) for plan in plans),
    }
    return TrajectorySpec(
        sample_shape=spec.sample_shape,
        timestep=spec.timestep,
        alpha=spec.alpha,
        sigma=spec.sigma,
        fields=("sample",),
        extra=(
            VariableSpec(
                "branch_sample",
                ("branch", *spec.sample_dims),
                (count, *spec.sample_shape),
                "float32",
            ),
            VariableSpec("branch_mask", ("branch", "y", "x"), (count, rows, columns), "uint8"),
        ),
        attributes=attributes,
    )
