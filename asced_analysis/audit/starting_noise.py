"""The standard normal numbers that torch draws on the host for a seed, without torch.

A recorded start can so be compared with the noise of its own seed: the factor between the two is
exact, where the energy of 64 starts of 32 x 32 pixels is known to half a percent.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from asced_analysis.counts.changes import parts_of

_BLOCK = 16  # numbers that torch's Box-Muller transform turns at once
_FRACTION = 24  # bits of a float32 between 0 and 1


def seeded_noise(seed: int, shape: Sequence[int]) -> npt.NDArray[np.float32]:
    """``torch.randn(shape, generator=torch.Generator().manual_seed(seed))``, to rounding.

    Parameters
    ----------
    seed : int
        Of the generator; at least 0.
    shape : sequence of int
        Of the tensor, with at least 16 numbers: torch draws fewer in another way.
    """
    count = int(np.prod(shape))
    if count < _BLOCK:
        raise ValueError(f"{count} numbers; expected at least {_BLOCK}")
    generator = np.random.RandomState(seed & 0xFFFFFFFF)  # Mersenne Twister, as torch seeds it
    rest = _BLOCK if count % _BLOCK else 0
    draws = _uniform(generator, count + rest)
    noise, whole = draws[:count], count - count % _BLOCK
    for part in parts_of(whole):  # a whole number of blocks
        noise[part] = _box_muller(noise[part])
    if rest:  # the last block is drawn anew, over numbers that are there already
        noise[-_BLOCK:] = _box_muller(draws[count:])
    return noise.reshape(tuple(shape))


def _uniform(generator: np.random.RandomState, count: int) -> npt.NDArray[np.float32]:
    """Numbers in [0, 1), of the generator's low bits."""
    found = np.empty(count, np.float32)
    for part in parts_of(count):
        size = part.stop - part.start
        bits = generator.randint(0, 1 << 32, size=size, dtype=np.uint64)
        found[part] = bits & ((1 << _FRACTION) - 1)
    found *= np.float32(2.0**-_FRACTION)
    return found


def _box_muller(uniform: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Two normal numbers of two uniform ones, half a block apart."""
    half = uniform.reshape(-1, 2, _BLOCK // 2)
    radius = np.sqrt(-2 * np.log1p(-half[:, 0]))
    angle = np.float32(2 * np.pi) * half[:, 1]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).reshape(-1)
