"""Between which values the data of a model of pixels lie, where that is not -1..1."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from asced_stores.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger("asced_recorders")

Range = tuple[float, float]
DIFFUSERS: Range = (-1.0, 1.0)
"""What diffusers' own pipelines of pixels sample."""
BEYOND = 1.25  # of data in -1..1, sampled without clipping, few values lie further out
FEW = 0.01


class DataRange:
    """The range of a recording's data: as given, as its store says, or as its first batch shows.

    Parameters
    ----------
    given : pair of float, optional
        Lowest and highest value.

    Raises
    ------
    InputError
        If it is not two numbers, the lower one first.
    """

    def __init__(self, given: Sequence[float] | None = None) -> None:
        self.given = None if given is None else check_range(given)
        self.known: Range | None = None

    def adopt(self, attributes: Mapping[str, Any]) -> bool:
        """Take the range of a store that is there; whether it is not the one known so far.

        Raises
        ------
        InputError
            If another one was given.
        """
        before, self.known = self.known, range_of(attributes)
        if self.given is not None and self.given != self.known:
            raise InputError(
                f"value_range is {self.given}, and the store's data lie in {self.known}: leave it "
                "out, or record to another store"
            )
        return before not in (None, self.known)

    def settle(self, ends: Tensor) -> Range:
        """The range, once the first batch's ends are there."""
        if self.known is None:
            self.known = self.given or measured_range(ends)
            if self.given is None and self.known != DIFFUSERS:
                logger.warning(
                    "the first batch ends between %.3g and %.3g, not in -1..1: images are scaled "
                    "to that range; where you know it, give value_range=(low, high), or "
                    "--value-range LOW HIGH",
                    *self.known,
                )
        return self.known

    def facts(self) -> dict[str, Any]:
        """What a store says of it; nothing where it is diffusers' own."""
        return {} if self.known in (None, DIFFUSERS) else {"value_range": list(self.known or ())}


def check_range(value_range: Sequence[float], /) -> Range:
    """Read a range of values.

    Raises
    ------
    InputError
        If it is not two numbers, the lower one first.
    """
    try:
        low, high = (float(value) for value in value_range)
    except (TypeError, ValueError) as error:
        raise InputError(f"value_range is {value_range!r}: give (lowest, highest)") from error
    if not low < high < float("inf") or low == -float("inf"):
        raise InputError(f"value_range is {low} to {high}: give the lower one first, both finite")
    return low, high


def range_of(attributes: Mapping[str, Any], /) -> Range:
    """The range that a store's attributes name, or diffusers' own."""
    return check_range(attributes.get("value_range") or DIFFUSERS)


def measured_range(sample: Tensor, /) -> Range:
    """Range of a batch's ends: -1..1 where nearly all values lie in it, or little beyond."""
    import torch

    finite = sample[torch.isfinite(sample)]
    if not finite.numel() or float((finite.abs() > BEYOND).float().mean()) <= FEW:
        return DIFFUSERS
    low, high = float(finite.min()), float(finite.max())
    return (low, high) if low < high else (min(low, 0.0), max(high, 0.0))  # one value shows none
