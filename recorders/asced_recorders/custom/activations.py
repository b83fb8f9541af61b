"""Activations that a loop of one's own hands over with its steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asced_stores.errors import InputError


class GivenActivations:
    """Those of the batch that was begun.

    Attributes
    ----------
    values : int
        Numbers a run and step; 0 where none are given.
    modules : list of dict
        Which of them come from which module, where that is known.
    """

    def __init__(self) -> None:
        self.values = 0
        self.modules: list[dict[str, Any]] = []
        self._fixed = False
        self._by_step: list[NDArray[np.float32]] = []

    def check(self, step: int, given: Any, runs: int) -> None:
        """Refuse what does not fit the steps before.

        Raises
        ------
        InputError
        """
        if (given is None) != (self.values == 0) and (step or self._fixed):
            raise InputError(
                f"step {step} comes {'without' if given is None else 'with'} activations, unlike "
                "those before it: hand them over at every step, or at none"
            )
        if given is None:
            return
        shape = tuple(given.shape)
        if len(shape) != 2 or shape[0] != runs or (self.values or shape[1]) != shape[1]:
            wanted = f"({runs}, {self.values or 'value'})"
            raise InputError(f"activations have shape {shape}: expected {wanted}")

    def add(self, given: Any) -> None:
        """Take those of a step that fit."""
        if given is None:
            return
        if hasattr(given, "detach"):
            given = given.detach().float().cpu().numpy()
        self._by_step.append(np.array(given, np.float32))
        self.values = self._by_step[-1].shape[1]

    def arrays(self, kept: Sequence[int]) -> dict[str, NDArray[np.float32]]:
        """What is written of the batch, the run first."""
        if not self._by_step:
            return {}
        return {"activations": np.stack([self._by_step[step] for step in kept], axis=1)}

    def finish(self) -> None:
        """Hold the batches that follow to as many."""
        self._fixed, self._by_step = True, []

    def discard(self) -> None:
        """Let those of the batch go, and how many they were, unless a batch before has them."""
        self._by_step = []
        if not self._fixed:
            self.values = 0

    def facts(self) -> dict[str, Any]:
        """Say how many there are, as attributes of a store."""
        if not self.values:
            return {}
        whole = [{"module": "the loop's own", "values": self.values}]
        return {"activations": self.modules or whole}
