"""Runs that are chosen among several draws while they are sampled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from asced_recorders.pipelines.pruning import Pruning
from asced_recorders.tap.tap import StepEvent
from asced_recorders.writing.capture import Capture, RunBuffer
from asced_stores.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from asced_recorders.pipelines.run_source import RunSource


def check_pruning(pruning: Pruning, runs: int, batch_size: int) -> None:
    """Refuse batches that would cut a group of draws in two."""
    for name, value in (("runs", runs), ("batch_size", batch_size)):
        if value % pruning.finish:
            raise InputError(
                f"{name} is {value}, but {pruning.finish} runs of each {pruning.draw} draws are "
                f"finished together: give a multiple of {pruning.finish}"
            )


def pruning_facts(source: RunSource, pruning: Pruning, batch_size: int) -> dict[str, Any]:
    """What a store says of how its runs were chosen."""
    facts = {"draw": pruning.draw, "finish": pruning.finish, **pruning.facts()}
    if source.conditioned:
        return facts | {"within": "prompt or class"}
    return facts | {"within": "content", "batch_size": batch_size}


def sample_pruned(
    source: RunSource, pruning: Pruning, runs: Sequence[int], capture: Capture
) -> tuple[dict[str, Any], Any]:
    """Draw for a batch, choose, and show a capture the chosen runs from their first step.

    Runs are numbered by group: with 2 finished of 5, runs 0 and 1 come from draws 0 to 4. What was
    computed of a chosen run before the look is kept on the device and shown to the capture then.
    """
    import numpy as np

    groups = [run // pruning.finish for run in runs[:: pruning.finish]]
    conditions = np.repeat(groups, pruning.draw)
    seeds = source.seeds(groups, pruning.draw)
    draws = _Draws(len(seeds))
    scalars: dict[str, Any] = {}

    def call(rows: NDArray[np.int64], generators: list[torch.Generator]) -> Any:
        wanted = [int(run) for run in conditions[rows]]
        if not draws.events:
            return source.sample(wanted, draws, generators)
        capture.known = draws.of(rows)
        found, output = source.sample(wanted, capture, generators)
        scalars.update(found | {"seed": [seeds[row] for row in rows]})
        return output

    group = np.arange(len(seeds)) // pruning.draw if source.conditioned else None
    return scalars, pruning.prune(source.pipe, call, seeds, group).output


class _Draws(Capture):
    """Keeps what a capture is to be shown of some of the draws, once they are chosen."""

    def __init__(self, count: int) -> None:
        super().__init__(_no_buffer)
        self.count = count
        self.events: list[StepEvent] = []

    def before_step(self, event: StepEvent) -> None:
        """Keep the step."""
        self.events.append(event)

    def after_step(self, event: StepEvent, next_sample: Tensor) -> None:
        """None of these runs ends here."""

    def finish(self, sample: Tensor) -> None:
        """None of these runs ends here."""

    def of(self, rows: NDArray[np.int64]) -> dict[int, StepEvent]:
        """The steps of the chosen runs; the others are let go."""
        import torch

        index = torch.as_tensor(rows)
        known = {}
        for event in self.events:
            at = index.to(event.sample.device)  # twice where a pipeline doubles its batch
            chosen = torch.cat([at + part for part in range(0, len(event.sample), self.count)])
            known[event.step] = StepEvent(
                event.table,
                event.step,
                event.sample[chosen],
                event.model_output[chosen],
                event.scheduler,
                event.first_order,
            )
        self.events.clear()
        return known


def _no_buffer(*_: Any) -> RunBuffer:
    raise AssertionError("draws are not written")
