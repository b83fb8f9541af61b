"""Images drawn with each remedy that is a way to sample, kept in parts as they come.

python -m experiments.remedies.drawing fashion --runs 128
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asced_analysis.correction import normalised_noise
from asced_analysis.replay.other_settings import is_called, with_sampler
from asced_recorders.pipelines.sampling import (
    initial_noise,
    run_generators,
    sample_unconditional,
)
from asced_recorders.tap.tap import StepEvent, TapListener
from experiments.remedies.subjects import SUBJECTS, Subject

PART = 32
FIRST_SEED = 500_000
BUDGETS = (50, 25, 100)


@dataclass(frozen=True)
class Way:
    """A way to sample: a short name of a scheduler, options, and what is done to the noise."""

    title: str
    scheduler: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    normalised: bool = False
    renoised: bool = False
    guidance: float | None = None


WAYS = {
    "plain": Way("plain sampling in all steps"),
    "ancestral": Way("ancestral sampler (DDPM)", "ddpm"),
    "sde": Way("SDE sampler (DPM-Solver++ 2M)", "dpm++", {"algorithm_type": "sde-dpmsolver++"}),
    "normalised": Way("noise normalisation", normalised=True),
    "renoised": Way("all re-noised in the middle of sampling", renoised=True),
    "guidance-1": Way("no guidance, twice the steps", guidance=1.0),
    "guidance-2": Way("guidance 2", guidance=2.0),
    "guidance-7": Way("guidance 7", guidance=7.0),
}


class Renoising(TapListener):
    """Every run goes on from fresh noise around predicted x0 once, half-way through the steps."""

    def __init__(self, seeds: list[int]) -> None:
        self.generators = run_generators([seed + 10**9 for seed in seeds])

    def after_step(self, event: StepEvent, next_sample: Any) -> Any:
        """Give another next sample after the step before the middle."""
        import torch

        if event.step + 1 != event.steps // 2:
            return None
        noise = torch.stack(
            [torch.randn(next_sample.shape[1:], generator=one) for one in self.generators]
        )
        return event.next_alpha * event.x0 + event.next_sigma * noise.to(next_sample)


def drawn(subject: Subject, way: str, steps: int, runs: int) -> NDArray[np.float32] | None:
    """What was drawn so far, shape (n, channel, y, x); None where it is nothing yet."""
    parts = [path for path in _parts(subject, way, steps, runs) if path.exists()]
    return np.concatenate([np.load(path) for path in parts])[:runs] if parts else None


def draw(subject: Subject, way: str, steps: int, runs: int) -> None:
    """Draw what is missing."""
    for number, path in enumerate(_parts(subject, way, steps, runs)):
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            seeds = list(range(FIRST_SEED + number * PART, FIRST_SEED + (number + 1) * PART))
            ends = _sample(subject, WAYS[way], steps, seeds)
            part = path.with_suffix(".part.npy")
            np.save(part, ends)
            part.rename(path)
            print(f"{subject.name}: {way}, {steps} steps, {len(seeds) * (number + 1)}", flush=True)


def _parts(subject: Subject, way: str, steps: int, runs: int) -> Iterator[Path]:
    for number in range(-(-runs // PART)):
        yield subject.cache / "drawn" / f"{way}-{steps}-{number}.npy"


def _sample(subject: Subject, way: Way, steps: int, seeds: list[int]) -> NDArray[np.float32]:
    """Ends of one part."""
    import torch

    pipe = subject.pipe
    if way.guidance == 1:  # one evaluation a step, where other scales take two
        steps *= 2
    if way.scheduler is not None:
        pipe = with_sampler(pipe, way.scheduler, way.options)
    generators = run_generators(seeds)
    listener = Renoising(seeds) if way.renoised else None
    with normalised_noise(pipe) if way.normalised else nullcontext(), torch.no_grad():
        if is_called(pipe):
            return subject.call(pipe, steps, seeds, generators, listener, way.guidance)
        pipe.scheduler.set_timesteps(steps)
        ends = sample_unconditional(
            pipe,
            x_init=initial_noise(pipe, generators),
            steps=steps,
            generators=generators,
            listener=listener,
        )
    return np.asarray(ends.numpy(), np.float32)


def main() -> None:
    """Draw with every way at every budget."""
    import torch

    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("subject", choices=tuple(SUBJECTS))
    parser.add_argument("--runs", type=int, default=128)
    parser.add_argument("--steps", type=int, action="append", help="budgets, in this order")
    parser.add_argument("--way", choices=tuple(WAYS), action="append")
    arguments = parser.parse_args()
    subject = SUBJECTS[arguments.subject]()
    takes = [name for name, way in WAYS.items() if way.guidance is None or subject.classes]
    for steps in arguments.steps or BUDGETS:
        for way in arguments.way or takes:
            draw(subject, way, steps, arguments.runs)


if __name__ == "__main__":
    main()
