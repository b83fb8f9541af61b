"""What watches a run while it is recorded: the protocol, without any statistics of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from asced_recorders.schedulers import StepTable


@dataclass(frozen=True)
class Observation:
    """What an observer has to say about a batch of runs.

    Attributes
    ----------
    scalars : mapping of str to ndarray, shape (run,)
        Features of each run; they are kept for every run, recorded in full or not.
    counts : mapping of str to ndarray of integers
        Counts of the whole batch, which add up over batches. They are stored sparsely.
    keep : ndarray of bool, shape (run,), optional
        Runs whose full trajectory should be kept.
    """

    scalars: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    counts: Mapping[str, NDArray[np.integer[Any]]] = field(default_factory=dict)
    keep: NDArray[np.bool_] | None = None


class RunObserver(Protocol):
    """Is told of each step of a batch, and asked at its end what it saw."""

    def start(self, table: StepTable, shape: tuple[int, ...]) -> None:
        """Begin a batch of runs of this shape (run, [frame,] channel, y, x)."""

    def step(self, step: int, eps: Tensor, x0: Tensor) -> None:
        """See one noise level: float32 tensors, shape (run, [frame,] channel, y, x)."""

    def finish(self, runs: Sequence[int], seeds: Sequence[int]) -> Observation:
        """Conclude the batch."""
