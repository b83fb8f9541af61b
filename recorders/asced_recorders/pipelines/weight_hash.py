"""Hash the bytes of tensors where they lie, at the speed of memory.

Each block of 8 KB is brought down to 64 bits by NH (Black et al., UMAC, CRYPTO 1999): half of its
32-bit words, plus keys, times the other half, plus keys. Sums modulo 2**64 do not depend on the
order, so that a processor and an accelerator find the same numbers, and only those (a thousandth of
the weights) leave the device. SHA-256 goes over them. A change inside one block escapes with a
probability of 2**-32; this is no defence against forgery.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

WORDS = 2048  # of a block, 32 bits each
HALF = WORDS // 2
BLOCK_BYTES = 4 * WORDS
DEVICE_BLOCKS = 1 << 12  # 32 MB at a time on a device: what its own cache holds
HOST_BLOCKS = 1 << 13  # 64 MB a task; two threads
_MASK = 0xFFFFFFFF


def block_hashes(tensor: Tensor, /) -> NDArray[np.uint64]:
    """NH of each block of a tensor's bytes, the last one filled up with zeros.

    Parameters
    ----------
    tensor : Tensor
        Of any dtype, on any device; read in its logical order, whatever its strides.

    Returns
    -------
    ndarray, shape (block,), uint64
    """
    import torch

    flat = tensor.detach().contiguous().reshape(-1)
    if not flat.numel():
        return np.empty(0, np.uint64)
    data = flat.view(torch.uint8)
    whole = data.numel() // BLOCK_BYTES
    found = []
    if whole:
        blocks = data[: whole * BLOCK_BYTES]
        if blocks.storage_offset() % 4:
            blocks = blocks.clone()
        found.append(_hash_blocks(blocks.view(torch.int32).view(whole, WORDS)))
    rest = data[whole * BLOCK_BYTES :]
    if rest.numel():
        last = torch.zeros(BLOCK_BYTES, dtype=torch.uint8)
        last[: rest.numel()] = rest.to("cpu")
        found.append(_hash_blocks(last.view(torch.int32).view(1, WORDS)))
    return np.concatenate(found)


def _hash_blocks(words: Tensor) -> NDArray[np.uint64]:
    return host_hashes(words) if words.device.type == "cpu" else device_hashes(words)


def host_hashes(words: Tensor) -> NDArray[np.uint64]:
    """NH of blocks on the host, shape (block, WORDS), int32: a compiled loop, two threads."""
    loop, own = _host_loop(), _keys()
    array = words.numpy().view(np.uint32)
    out = np.empty(len(array), np.uint64)
    starts = range(0, len(array), HOST_BLOCKS)
    if len(starts) == 1:
        loop(array, own, out)
        return out
    with ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(loop, array[at : at + HOST_BLOCKS], own, out[at : at + HOST_BLOCKS])
            for at in starts
        ]
        for job in jobs:
            job.result()
    return out


def device_hashes(words: Tensor) -> NDArray[np.uint64]:
    """NH of blocks by torch's own operations, on whatever device they lie."""
    import torch

    own = torch.from_numpy(_keys().astype(np.int64)).to(words.device)
    found = []
    for at in range(0, len(words), DEVICE_BLOCKS):
        wide = words[at : at + DEVICE_BLOCKS].to(torch.int64)
        wide = wide.add_(own).bitwise_and_(_MASK)  # a negative word is itself plus 2**32
        found.append((wide[:, :HALF] * wide[:, HALF:]).sum(1))
    return torch.cat(found).to("cpu").numpy().view(np.uint64)


@cache
def _keys() -> NDArray[np.uint32]:
    """Keys by SplitMix64 from 0: the same for everybody, for ever."""
    at = np.arange(1, WORDS + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    at = (at ^ (at >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    at = (at ^ (at >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (at ^ (at >> np.uint64(31))).astype(np.uint32)


@cache
def _host_loop() -> Any:
    """Compile the loop, once a machine where there is a place to keep it."""
    from numba import njit

    def loop(words: Any, keys: Any, out: Any) -> None:
        for row in range(words.shape[0]):
            total = np.uint64(0)
            for i in range(HALF):
                left = np.uint32(words[row, i] + keys[i])
                right = np.uint32(words[row, i + HALF] + keys[i + HALF])
                total += np.uint64(left) * np.uint64(right)
            out[row] = total

    try:
        return njit(nogil=True, cache=True)(loop)
    except RuntimeError:  # installed read-only, and no cache folder for the user
        return njit(nogil=True)(loop)
