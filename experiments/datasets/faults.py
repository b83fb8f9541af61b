"""Faults planted while recorded runs are sampled again, with their pixel masks.

Change is not damage: a fault that the model works into a coherent picture is no artifact. So the
masks of change (against the undisturbed run) and of damage (less realistic than it) are both
kept, and results are reported for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asced_analysis.correction import Corrector
from asced_analysis.correction.registry import make_strategy
from asced_analysis.realism import RealismModel, local_realism, upsample
from asced_analysis.realism.pictures import as_pictures as pictures
from asced_analysis.replay.planning import given_plan
from asced_analysis.replay.recording import Batch, Recording
from asced_analysis.replay.sampling import resample
from asced_recorders.tap.tap import ListenerChain, StepEvent, TapListener
from asced_stores import TrajectorySpec, TrajectoryStore, VariableSpec
from asced_stores.format.noise_levels import model_output_from_eps

KINDS = ("score_trap", "foreign_patch", "impulse", "speckle", "scramble")
CHANGED = 0.1  # of a range of 2
BACK = 3  # a trap holds the eps of so many steps before it: neighbours hardly differ
WORSE = 0.5  # of the standard deviation of the undisturbed runs' local distance
LEAST_DAMAGE = 8  # pixels of a planted run that must be damaged for it to count as broken
CHECKPOINT = 18  # all faults are in by then


@dataclass(frozen=True)
class Fault:
    """One fault: what, where, when, how strong.

    Attributes
    ----------
    kind : str
        `score_trap`: the region keeps an earlier step's eps for `length` steps; `foreign_patch`: a
        patch of another run's predicted x0, re-noised; `impulse`: an additive bump; and two that
        come late enough to stay broken: `speckle`, white noise on the predicted x0, and `scramble`,
        its region turned upside down.
    mask : bool array, shape (y, x)
    step, length : int
    strength : float
    """

    kind: str
    mask: NDArray[np.bool_]
    step: int
    length: int
    strength: float


def draw_fault(run: int, shape: tuple[int, int], steps: int, *, seed: int = 0) -> Fault:
    """Fault of a run: kinds in turn, everything else by chance."""
    rng = np.random.default_rng([seed, run])
    kind = KINDS[run % len(KINDS)]
    size = int(rng.integers(shape[0] // 6, shape[0] // 3 + 1))
    top, left = (int(rng.integers(n // 6, n - n // 6 - size + 1)) for n in shape)
    mask = np.zeros(shape, np.bool_)
    mask[top : top + size, left : left + size] = True
    late = kind in ("speckle", "scramble")
    where = rng.uniform(0.55, 0.68) if late else rng.uniform(0.25, 0.45)
    return Fault(kind, mask, round(where * steps), 8, float(rng.uniform(0.5, 1.0)))


class Plant(TapListener):
    """Plants one fault in each run of a batch."""

    def __init__(self, faults: Sequence[Fault], runs: Sequence[int]) -> None:
        self.faults = faults
        self.runs = runs
        self.kept: dict[int, Tensor] = {}

    def before_step(self, event: StepEvent) -> Tensor | None:
        """Trap the score."""
        eps, trapped = event.eps, False
        new = eps.clone()
        for i, fault in enumerate(self.faults):
            if fault.kind != "score_trap":
                continue
            if event.step == fault.step - BACK:
                self.kept[i] = eps[i].clone()
            elif fault.step <= event.step < fault.step + fault.length:
                mask = torch.from_numpy(fault.mask)
                mixed = fault.strength * self.kept[i] + (1 - fault.strength) * eps[i]
                new[i] = torch.where(mask, mixed, eps[i])
                trapped = True
        if not trapped:
            return None
        return model_output_from_eps(
            new,
            event.sample.float(),
            alpha=event.alpha,
            sigma=event.sigma,
            prediction_type=event.prediction_type,
        )

    def after_step(self, event: StepEvent, next_sample: Tensor) -> Tensor | None:
        """Put in patches, bumps and noise."""
        out = next_sample.clone()
        for i, fault in enumerate(self.faults):
            if fault.step != event.step + 1 or fault.kind == "score_trap":
                continue
            generator = torch.Generator().manual_seed(900_000 + int(self.runs[i]))
            noise = torch.randn(out[i].shape, generator=generator)
            x0, alpha, sigma = event.x0, event.next_alpha, event.next_sigma
            if fault.kind == "foreign_patch":
                edited = alpha * x0[(i + 1) % len(x0)] + sigma * noise
            elif fault.kind == "impulse":
                edited = out[i] + 2 * fault.strength * alpha * (1 if noise.flatten()[0] > 0 else -1)
            elif fault.kind == "speckle":
                edited = out[i] + 1.5 * fault.strength * alpha * noise
            else:
                turned = x0[i].flip(-2).roll(int(np.argmax(fault.mask.any(1))), -2)
                edited = alpha * turned + sigma * noise
            out[i] = torch.where(torch.from_numpy(fault.mask), edited, out[i])
        return out


class Capture(TapListener):
    """Keeps predicted noise, x0 and the sample at the checkpoint as a recording does."""

    def __init__(self) -> None:
        self.eps: list[NDArray[np.float16]] = []
        self.x0: list[NDArray[np.float16]] = []
        self.x: list[NDArray[np.float32]] = []

    def before_step(self, event: StepEvent) -> None:
        """Keep one step."""
        if event.step == CHECKPOINT:
            self.x.append(event.sample.float().numpy())
        self.eps.append(event.eps.to(torch.float16).numpy())
        self.x0.append(event.x0.to(torch.float16).numpy())


def plant(store: Path, out: Path, judge: RealismModel, *, pipeline: Any = None) -> TrajectoryStore:
    """Write recorded runs with faults, with masks of the fault, of change and of damage.

    Scalars say what was done: kind, strength, onset (step), size (side of the region in pixels) and
    contrast (mean difference from the undisturbed run where the fault is, in the end).
    """
    recording = Recording(store)
    pipe = recording.pipeline(pipeline)
    spec = recording.spec
    shape = spec.sample_shape[-2], spec.sample_shape[-1]
    masks = tuple(
        VariableSpec(name, ("y", "x"), shape, "uint8") for name in ("fault", "change", "damage")
    )
    attributes = {
        name: value
        for name, value in spec.attributes.items()
        if name not in ("format", "format_version")
    }
    faulty = TrajectoryStore.create(
        out,
        TrajectorySpec(
            sample_shape=spec.sample_shape,
            timestep=spec.timestep,
            alpha=spec.alpha,
            sigma=spec.sigma,
            fields=("eps", "x0", "x_init", "checkpoint_sample", "sample"),
            checkpoints=(CHECKPOINT,),
            extra=(
                *masks,
                VariableSpec("kind", (), (), "int64"),
                VariableSpec("strength", (), (), "float64"),
                VariableSpec("onset", (), (), "int64"),
                VariableSpec("size", (), (), "int64"),
                VariableSpec("contrast", (), (), "float64"),
            ),
            attributes={**attributes, "planted_in": recording.store.fingerprint},
        ),
        runs=recording.store.planned_runs,
        batch_size=recording.store.batch_size,
        overwrite=True,
    )
    with recording.threads(), faulty.writer(rank=0, world_size=1) as writer:
        for batch in recording.batches():
            arrays, scalars = _faulted(recording, batch, pipe, judge, shape)
            writer.write_batch(
                batch.number, arrays, runs=batch.runs, scalars={**batch.scalars, **scalars}
            )
    return faulty


def damage_of(
    samples: NDArray[np.float32],
    intact: NDArray[np.float32],
    after: NDArray[np.float32],
    before: NDArray[np.float32],
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Pixels changed against the undisturbed intact, and those of them that are less real as well.

    Parameters
    ----------
    samples, intact : float32 arrays, shape (n, channel, y, x)
        Ends of one batch: its spread of local distance says what is less real.
    after, before : float32 arrays, shape (n, rows, columns)
        Their local distances.
    """
    change = np.abs(samples - intact).max(1) > CHANGED
    worse = upsample(after - before > WORSE * before.std(), change.shape[1:])
    return change, change & worse


def clipped(
    store: Path, masks: dict[int, NDArray[np.bool_]], step: int, pipe: Any
) -> NDArray[np.float32]:
    """Ends of planted runs whose weighted score is clipped, up to a step, inside masks.

    Clipping acts from the start on, so the faults are planted again while it does.
    """
    recording = Recording(store)
    shape = recording.spec.sample_shape[-2], recording.spec.sample_shape[-1]
    plan = given_plan(masks, recording)
    ends = []
    with recording.threads():
        for batch in recording.batches():
            corrector = Corrector(None, strategy=make_strategy("score_clipping"), step=step)
            corrector.assign(batch.runs, **plan.assignment(batch, shape))
            faults = [draw_fault(int(run), shape, recording.steps) for run in batch.runs]
            chain = ListenerChain(Plant(faults, batch.runs), corrector)
            ends.append(resample(recording, batch, pipe, corrector=corrector, listener=chain))
    return pictures(np.concatenate(ends))


def _faulted(
    recording: Recording, batch: Batch, pipe: Any, judge: RealismModel, shape: tuple[int, int]
) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """Sample one batch with its faults, and compare with the undisturbed run."""
    faults = [draw_fault(int(run), shape, recording.steps) for run in batch.runs]
    capture = Capture()
    chain = ListenerChain(Plant(faults, batch.runs), capture)
    samples = resample(recording, batch, pipe, listener=chain)
    intact = recording.read(batch, "sample")
    pair = pictures(samples), pictures(intact)
    change, damage = damage_of(*pair, *(local_realism(one, judge) for one in pair))
    arrays = {
        "eps": np.stack(capture.eps, 1),
        "x0": np.stack(capture.x0, 1),
        "x_init": recording.read(batch, "x_init"),
        "checkpoint_sample": np.stack(capture.x, 1),
        "sample": samples,
        "fault": np.stack([fault.mask for fault in faults]).astype(np.uint8),
        "change": change.astype(np.uint8),
        "damage": damage.astype(np.uint8),
    }
    scalars = {
        "kind": np.array([KINDS.index(fault.kind) for fault in faults]),
        "strength": np.array([fault.strength for fault in faults]),
        "onset": np.array([fault.step for fault in faults]),
        "size": np.array([round(fault.mask.sum() ** 0.5) for fault in faults]),
        "contrast": np.array(
            [
                float(np.abs(one - whole).mean(0)[fault.mask].mean())
                for one, whole, fault in zip(
                    pictures(samples), pictures(intact), faults, strict=True
                )
            ]
        ),
    }
    return arrays, scalars
