"""Where a strategy edits a flagged run: in its mask, everywhere, or where something is drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from asced_stores.errors import InputError

Finder = Callable[[NDArray[np.float32]], NDArray[np.bool_]]
Region = Literal["mask", "everywhere", "foreground"] | Finder
"""``mask``: the detector's, or one from outside. A function finds a place of your own."""

PLACES = ("mask", "everywhere", "foreground")


def check_region(where: Any) -> None:
    """Refuse what is no place.

    Raises
    ------
    InputError
    """
    if where not in PLACES and not callable(where):
        raise InputError(
            f"where is {where!r}; expected one of {', '.join(PLACES)}, or a function of predicted "
            "x0 (channel, y, x) that gives a mask (y, x)"
        )


def is_found(where: Region) -> bool:
    """Whether the place is looked for in predicted x0, at ``T_c``."""
    return where == "foreground" or callable(where)


def region_name(where: Region) -> str:
    """For stores and tables: a function's name."""
    return where if isinstance(where, str) else getattr(where, "__qualname__", repr(where))


def find_regions(where: Region, x0: NDArray[np.floating[Any]], flagged: NDArray[Any]) -> Any:
    """Look for the place of every flagged run in what the model predicts of it.

    Parameters
    ----------
    where : "foreground" or callable
        A function is given predicted x0 of one run, float32 of shape (channel, y, x) (of a video,
        frames and channels in one), and returns a bool array (y, x).
    x0 : array, shape (n, [frame,] channel, y, x)
        In the space that is sampled in: of latent models, latents.
    flagged : bool array, shape (n,)

    Returns
    -------
    bool array, shape (n, y, x)
        Empty in runs that are not flagged.

    Raises
    ------
    InputError
        Where a function gives something else than a mask.
    """
    if callable(where):
        find = where
    else:
        from asced_analysis.correction.controls import foreground as find
    masks = np.zeros((len(x0), *x0.shape[-2:]), np.bool_)
    for index in np.flatnonzero(flagged):
        picture = np.asarray(x0[index], np.float32).reshape(-1, *x0.shape[-2:])
        mask = np.asarray(find(picture))
        if mask.shape != masks.shape[1:]:
            raise InputError(
                f"{region_name(where)} gave a mask of shape {mask.shape} for predicted x0 of shape "
                f"{picture.shape}; expected {masks.shape[1:]}"
            )
        masks[index] = mask.astype(np.bool_)
    return masks
