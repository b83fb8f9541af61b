"""Steps of recorded runs given to what looks at them, a part of a large run at a time.

What a detector keeps between steps, and makes of one, is widened: fourteen times a step as it is
stored. Frames do not know of each other, so a large video is gone through several times, each time
for some of its frames, of which few are worked on at once. A large image is gone through likewise
by bands of rows, by what can put its parts together afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod
from typing import Any, TypeVar

from asced_analysis.compute.stepped import Stepped

State = TypeVar("State")
PASSES, IMAGE_PASSES = 3, 4
"""How often a large video is read, for a third of its frames each time; an image, for its rows."""
FRAME_VALUES = 1 << 16
"""Values of the frames that are worked on at once, if there are more than one."""
BAND_VALUES = 1 << 13
"""Values of the rows of an image that are worked on at once, if a cell of its map has no more."""


def feed(
    arrays: Mapping[str, Any],
    first_step: int,
    start: Callable[[Sequence[int]], State],
    update: Callable[..., State],
    *,
    whole: bool = False,
) -> Iterator[tuple[slice, State]]:
    """Give every step to what keeps a state.

    Parameters
    ----------
    arrays : mapping of str to array, shape (row, step, channel, y, x)
        In memory, or read step by step.
    first_step : int
        Of the arrays.
    start : callable
        ``start(shape)`` to a state, of samples of shape (row, channel, y, x).
    update : callable
        ``update(state, step, **arrays of that step)`` to the next state.
    whole : bool, optional
        All rows at once in any case: a network is asked, which takes batches.

    Yields
    ------
    slice
        Rows.
    State
        After the last step.
    """
    some = next(iter(arrays.values()))
    rows, steps, *shape = some.shape
    alike = {len(values) for values in arrays.values()} == {rows}  # activations are of whole runs
    split = isinstance(some, Stepped) and alike and not whole
    for groups in _passes(rows, prod(shape), split=split):
        states = [start((group.stop - group.start, *shape)) for group in groups]
        for offset in range(steps):
            given = {name: values[:, offset] for name, values in arrays.items()}
            for place, group in enumerate(groups):
                own = {name: values[group] for name, values in given.items()}
                states[place] = update(states[place], first_step + offset, **own)
            del given, own  # before the next step is read
        yield from zip(groups, states, strict=True)


def feed_stream(
    stream: Any, arrays: Mapping[str, Any], first_step: int, *, whole: bool = False
) -> Iterator[tuple[slice, Any]]:
    """Give every step to a variant's stream; of a large image by bands, where it can.

    Parameters
    ----------
    stream : asced_analysis.detection.variant.Stream
    arrays, first_step, whole
        As in `feed`.

    Yields
    ------
    slice
        Rows.
    object
        The stream's state after the last step.
    """
    by_bands = getattr(stream, "by_bands", None)
    if by_bands is not None and not whole and is_large_image(arrays):
        yield slice(0, 1), by_bands(arrays, first_step)
        return
    yield from feed(arrays, first_step, stream.start, stream.update, whole=whole)


def is_large_image(arrays: Mapping[str, Any]) -> bool:
    """Whether the arrays are those of one image that is read step by step.

    Parameters
    ----------
    arrays : mapping of str to array
        As in `feed`.
    """
    return all(isinstance(one, Stepped) and len(one) == 1 for one in arrays.values())


def feed_bands(
    arrays: Mapping[str, Any],
    first_step: int,
    height: int,
    start: Callable[[], State],
    update: Callable[..., State],
) -> Iterator[State]:
    """Give every step of a large image to what keeps a state for each band of its rows.

    Parameters
    ----------
    arrays : mapping of str to array, shape (1, step, channel, y, x)
        Read step by step.
    first_step : int
        Of the arrays.
    height : int
        Rows of a band; the last may have fewer.
    start : callable
        To a state.
    update : callable
        ``update(state, step, **bands of that step)`` to the next state; it may keep what it is
        given.

    Yields
    ------
    State
        After the last step; of each band, from the top.
    """
    _, steps, *_, rows, _ = next(iter(arrays.values())).shape
    bands = [slice(at, min(at + height, rows)) for at in range(0, rows, height)]
    each = -(-len(bands) // IMAGE_PASSES)
    for first in range(0, len(bands), each):
        some = bands[first : first + each]
        states = [start() for _ in some]
        for offset in range(steps):
            given = {name: values[:, offset] for name, values in arrays.items()}
            for place, band in enumerate(some):
                own = {name: values[..., band, :].copy() for name, values in given.items()}
                states[place] = update(states[place], first_step + offset, **own)
            del given, own  # before the next step is read
        yield from states


def _passes(rows: int, values: int, *, split: bool) -> list[list[slice]]:
    """Rows that are worked on together, by the time that the arrays are read."""
    if not split:
        return [[slice(0, rows)]]
    each = max(1, FRAME_VALUES // values)
    third = -(-rows // PASSES)
    return [
        [slice(at, min(at + each, stop)) for at in range(first, stop, each)]
        for first in range(0, rows, third)
        if (stop := min(first + third, rows))
    ]
