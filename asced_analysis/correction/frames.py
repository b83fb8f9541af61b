"""Video in detectors, which look at pictures: each frame is one, and its run sums them up."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def as_pictures(video: Any, /) -> Any:
    """Frames in a row, (run * frame, channel, y, x), of (run, [frame,] channel, y, x)."""
    return video.reshape(-1, *video.shape[-3:]) if video.ndim > 4 else video


def picture_shape(shape: tuple[int, ...], /) -> tuple[int, ...]:
    """Shape of `as_pictures` of samples of this shape."""
    return (int(np.prod(shape[:-3])), *shape[-3:])


def by_run(
    masks: NDArray[Any], flagged: NDArray[Any], scores: NDArray[Any], runs: int, /
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.float64]]:
    """Sum up what was found in pictures.

    A run is flagged where any of its frames is, its score is the largest, and its mask is the union
    of its flagged frames' masks: one place, edited in every frame, so that frames stay consistent.

    Parameters
    ----------
    masks, flagged, scores : arrays, shapes (run * frame, y, x), (run * frame,) and (run * frame,)
    runs : int

    Returns
    -------
    masks, flagged, scores : arrays, shapes (run, y, x), (run,) and (run,)
    """
    found, flags = np.asarray(masks).astype(np.bool_), np.asarray(flagged).astype(np.bool_)
    values = np.asarray(scores).astype(np.float64).reshape(runs, -1).max(1)
    if len(flags) == runs:
        return found, flags, values
    found = (found & flags[:, None, None]).reshape(runs, -1, *found.shape[1:])
    return np.asarray(found.any(1)), np.asarray(flags.reshape(runs, -1).any(1)), values
