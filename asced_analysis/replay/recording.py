"""What was recorded, batch by batch, as a replay needs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from asced_recorders.pipelines.sampling import is_unconditional
from asced_stores import TrajectoryStore, open_runs
from asced_stores.errors import InputError

if TYPE_CHECKING:
    from asced_analysis.correction.strategy import Strategy
    from asced_analysis.thresholds.document import Thresholds

OF_CALLS = ("eta", "use_clipped_model_output")
"""Arguments of unconditional pipelines that our own loop does not have."""

SCALARS = ("seed", "prompt", "label", "guidance_scale", "arguments")


Call = Callable[[Any, "Batch"], Any]
"""``call(pipe, batch)`` repeats the recorded call of a batch."""


@dataclass(frozen=True)
class Batch:
    """Runs that were sampled together.

    Attributes
    ----------
    number : int
        Of the batch in its store.
    runs, seeds : int64 arrays, shape (n,)
    positions : int array, shape (n,)
        Where they lie in the dataset.
    scalars : dict
        What is passed on to a replayed store.
    """

    number: int
    runs: NDArray[np.int64]
    seeds: NDArray[np.int64]
    positions: NDArray[np.intp]
    scalars: dict[str, Any]

    def groups(self, thresholds: Thresholds | None) -> NDArray[Any] | None:
        """Group of each run, where thresholds have levels by it."""
        if thresholds is None or not thresholds.groups:
            return None
        return self.scalars.get(str(thresholds.grouped_by))


class Recording:
    """A recorded store, read one batch at a time: memory does not grow with the runs.

    Attributes
    ----------
    call : callable or None
        ``call(pipe, batch)`` repeats the recorded call of a pipeline that is called; None: it is
        made from what the store knows (`asced_analysis.replay.calls`).
    call_options : mapping
        Arguments that are added to what the store knows.
    own_decoding : bool
        Whether the pipeline decodes in a way of its own: it is then asked for what the recorded
        calls were asked for, and not for latents, which some such pipelines cannot hand over.
    """

    call: Call | None = None
    call_options: Mapping[str, Any] = MappingProxyType({})
    own_decoding: bool = False

    def __init__(self, store: TrajectoryStore | str | Path) -> None:
        if not isinstance(store, TrajectoryStore):
            store = TrajectoryStore.open(store)
        self.store = store
        self.attributes = store.attributes
        self.spec = store.spec
        if self.spec.sampled_steps != self.spec.steps:
            raise InputError(
                f"{store.path} keeps {self.spec.steps} of {self.spec.sampled_steps} steps, and a "
                "replay needs every one: record without every and window"
            )
        self.dataset = open_runs(store.path, statuses=("complete", "failed"))
        if not self.dataset.sizes.get("run"):
            raise InputError(f"{store.path} holds no complete run: record some first")
        if "x_init" not in self.dataset or "sample" not in self.dataset:
            raise InputError(
                f"{store.path} does not hold x_init and sample, which a replay starts from and is "
                "compared with; record with these fields"
            )

    def pipeline(self, given: Any = None) -> Any:
        """The recorded pipeline, loaded or checked (`environment.matching_pipeline`)."""
        from asced_recorders.pipelines.environment import matching_pipeline

        return matching_pipeline(self.attributes, given)

    def threads(self, threads: int | None = None) -> AbstractContextManager[None]:
        """As many torch threads as the recording had (`environment.recorded_threads`)."""
        from asced_recorders.pipelines.environment import recorded_threads

        return recorded_threads(self.attributes, threads)

    def is_ours(self, pipe: Any) -> bool:
        """Whether our own loop samples these runs again, and not a call of the pipeline.

        It fits unconditional models, unless they were called with what it does not do.
        """
        given = self.attributes.get("call") or {}
        plain = not any(given.get(name) for name in OF_CALLS)
        return plain and not (self.call or self.call_options) and is_unconditional(pipe)

    def check_uncorrected(self, strategy: Strategy) -> None:
        """Refuse to correct runs that were corrected while they were recorded.

        Raises
        ------
        InputError
        """
        before = self.attributes.get("correction")
        if before and strategy.edits:
            raise InputError(
                f"the runs of {self.store.path} were corrected by {before['strategy']} while they "
                "were sampled: replay them with strategy none, which gives them without it, and "
                "correct runs that were recorded without a corrector"
            )

    @property
    def steps(self) -> int:
        """Noise levels of a run."""
        return len(self.spec.alpha)

    @cached_property
    def has_trajectory(self) -> bool:
        """Whether predicted noise and x0 were recorded."""
        return "eps" in self.dataset and "x0" in self.dataset

    def batches(self) -> Iterator[Batch]:
        """Batches in order, with the runs each was sampled with."""
        numbers = np.asarray(self.dataset["batch"].values)
        for number in np.unique(numbers):
            positions = np.flatnonzero(numbers == number)
            yield self._batch(int(number), positions)

    def select(self, runs: Sequence[int] | NDArray[np.int64]) -> Batch:
        """Chosen runs as one batch of number -1."""
        order = {int(run): i for i, run in enumerate(self.dataset["run"].values)}
        missing = [int(run) for run in runs if int(run) not in order]
        if missing:
            raise InputError(f"{self.store.path} has no run {missing[0]}")
        return self._batch(-1, np.array([order[int(run)] for run in runs], np.intp))

    def calls_of(self, runs: NDArray[np.int64], at_once: int) -> list[NDArray[np.intp]]:
        """Places, among some runs, of those that share a recorded call: so many at most."""
        numbers = np.asarray(self.dataset["run"].values, np.int64).tolist()
        batch_of = dict(zip(numbers, self.dataset["batch"].values.tolist(), strict=True))
        calls = np.array([batch_of[int(run)] for run in runs])
        parts: list[NDArray[np.intp]] = []
        for number in np.unique(calls):
            places = np.flatnonzero(calls == number)
            parts += [places[at : at + at_once] for at in range(0, len(places), at_once)]
        return parts

    def _batch(self, number: int, positions: NDArray[np.intp]) -> Batch:
        coords = self.dataset.coords
        scalars = {name: coords[name].values[positions] for name in SCALARS if name in coords}
        return Batch(
            number=number,
            runs=np.asarray(self.dataset["run"].values[positions], np.int64),
            seeds=np.asarray(coords["seed"].values[positions], np.int64),
            positions=positions,
            scalars=scalars,
        )

    def read(self, batch: Batch, variable: str, **where: Any) -> NDArray[Any]:
        """One variable of a batch, with the leading run dimension; `where` selects by index."""
        part = self.dataset[variable].isel(run=batch.positions, **where)
        return np.asarray(part.values)

    def checkpoint(self, batch: Batch, step: int) -> NDArray[np.float32]:
        """Recorded sample entering a step, or an `InputError` that names the recorded ones."""
        steps = list(self.spec.checkpoints)
        if step not in steps or "checkpoint_sample" not in self.dataset:
            raise InputError(
                f"step {step} was not recorded as a checkpoint of {self.store.path} "
                f"(recorded: {', '.join(map(str, steps)) or 'none'}); start at one of these or at "
                "init, or record with --checkpoints"
            )
        return self.read(batch, "checkpoint_sample", checkpoint=steps.index(step))
