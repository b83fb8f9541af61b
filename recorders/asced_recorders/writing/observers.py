"""What watches runs while they are recorded: a protocol, without any statistics of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from asced_stores.format.observations import SparseCounts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from asced_stores import TrajectorySpec


@dataclass(frozen=True)
class ObservedBatch:
    """A batch that was just sampled, in the recorded precision.

    Attributes
    ----------
    arrays : mapping of str to ndarray, shape (run, ...)
        The variables of the store.
    runs : sequence of int
        Numbers of the runs.
    spec : TrajectorySpec
        Noise levels and attributes.
    scalars : mapping of str to sequence
        What the runs are: `seed`, `prompt`, `label`, `guidance_scale`, as far as is known.
    """

    arrays: Mapping[str, NDArray[Any]]
    runs: Sequence[int]
    spec: TrajectorySpec
    scalars: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Observation:
    """What an observer has to say about a batch.

    Attributes
    ----------
    features : mapping of str to ndarray, shape (run,)
        One number a run; kept for every run, recorded in full or not.
    counts : mapping of str to SparseCounts
        Of the whole batch; they add up over batches.
    keep : ndarray of bool, shape (run,), optional
        Runs whose full trajectory should be kept.
    """

    features: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    counts: Mapping[str, SparseCounts] = field(default_factory=dict)
    keep: NDArray[np.bool_] | None = None


class RunObserver(Protocol):
    """Is shown each batch, in the writer's thread: sampling goes on meanwhile.

    One that needs activations names their modules in an attribute ``activations``.
    """

    def observe(self, batch: ObservedBatch) -> Observation:
        """Conclude what to keep of a batch."""
