"""The bytes of a shard (Zarr v3, ``sharding_indexed``): inner chunks, checksums, index.

A shard is its inner chunks in C order, each followed by its CRC-32C, then the index (offset and
length of each chunk as little-endian uint64, absent chunks all ones), then the index's CRC-32C.
zarr's own pipeline copies every chunk several times; here the pieces of the array itself go to
``writev``, and a chunk is read straight into the array it belongs to.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asced_stores.errors import DamagedBatchError
from asced_stores.format.checksums import combine, crc32c, extend
from asced_stores.format.layout import ArrayLayout
from asced_stores.format.steps_on_disk import StepsOnDisk

ABSENT = 2**64 - 1


class ShardEncoder:
    """Bytes of one shard, piece by piece, and the checksum of all of them.

    Parameters
    ----------
    array : ndarray, shape (n, ...)
        The runs of a batch, at most ``layout.batch_size``, C-contiguous, of the layout's dtype.
    layout : ArrayLayout
        Where they go.
    """

    def __init__(self, array: NDArray[Any] | StepsOnDisk, layout: ArrayLayout) -> None:
        self._array = array
        self._layout = layout
        self.checksum = 0
        self.nbytes = 0

    def parts(self) -> Iterator[memoryview | bytes]:
        """Yield the pieces in order; afterwards `checksum` and `nbytes` hold for the whole."""
        layout = self._layout
        length = layout.chunk_nbytes
        index = np.full((layout.chunks, 2), ABSENT, "<u8")
        self.checksum = self.nbytes = 0
        for number, chunk in enumerate(_chunks(self._array, layout)):
            if chunk is None:
                continue
            checksum = crc32c(chunk)
            tail = struct.pack("<I", checksum)
            index[number] = self.nbytes, length + 4
            self.checksum = extend(combine(self.checksum, checksum, length), tail)
            self.nbytes += length + 4
            yield chunk.data
            yield tail
        end = index.tobytes()
        end += struct.pack("<I", crc32c(end))
        self.checksum = extend(self.checksum, end)
        self.nbytes += len(end)
        yield end


def _chunks(
    array: NDArray[Any] | StepsOnDisk, layout: ArrayLayout
) -> Iterator[NDArray[np.uint8] | None]:
    """Inner chunks in C order of the grid as bytes; None where no run of the batch lies in one."""
    runs, steps = layout.inner[:2]
    if isinstance(array, StepsOnDisk):
        yield from _chunks_from_disk(array, layout)
        return
    for row in range(layout.grid[0]):
        block = array[row * runs : (row + 1) * runs]
        if 0 < len(block) < runs:  # only the last chunk of a short batch is ever copied
            fill = np.nan if array.dtype.kind == "f" else 0
            whole = np.full((runs, *array.shape[1:]), fill, array.dtype)
            whole[: len(block)] = block
            block = whole
        for column in range(layout.grid[1]):
            if not len(block):
                yield None
                continue
            chunk = block[:, column * steps : (column + 1) * steps]
            yield np.ascontiguousarray(chunk).reshape(-1).view(np.uint8)


def _chunks_from_disk(
    array: StepsOnDisk, layout: ArrayLayout
) -> Iterator[NDArray[np.uint8] | None]:
    """The same, chunk by chunk from a file."""
    runs, steps = layout.inner[:2]
    for row, column in np.ndindex(*layout.grid):
        members = range(row * runs, min(len(array), (row + 1) * runs))
        if not members:
            yield None
            continue
        chunk = np.full(layout.inner, np.nan, array.dtype)
        for place, run in enumerate(members):
            chunk[place] = array.read(run, slice(column * steps, (column + 1) * steps))
        yield chunk.reshape(-1).view(np.uint8)


def read_index(data: bytes, layout: ArrayLayout, where: str) -> NDArray[np.uint64]:
    """Check and decode a shard's index.

    Returns
    -------
    ndarray of uint64, shape (runs, steps, 2)
        Offset and length of each inner chunk; all ones where it is absent.

    Raises
    ------
    DamagedBatchError
        If it is too short, fails its checksum, or names an offset that no chunk can have.
    """
    if len(data) != layout.index_nbytes:
        raise DamagedBatchError(
            f"{where} is truncated: its index has {len(data)} bytes of {layout.index_nbytes}"
        )
    if crc32c(data[:-4]) != struct.unpack("<I", data[-4:])[0]:
        raise DamagedBatchError(f"the index of {where} does not match its checksum")
    index = np.frombuffer(data, "<u8", 2 * layout.chunks).reshape(*layout.grid, 2)
    offsets, lengths = index[..., 0], index[..., 1]
    absent = offsets == ABSENT
    if not (absent | (lengths == layout.chunk_nbytes + 4)).all():
        raise DamagedBatchError(f"the index of {where} names chunks of a wrong length")
    if not (absent | (offsets <= 1 << 62)).all():
        raise DamagedBatchError(f"the index of {where} names an offset beyond its end")
    return index


def check_chunk(data: Any, checksum: bytes | bytearray, where: str) -> None:
    """Compare a chunk with its CRC-32C (four little-endian bytes).

    Raises
    ------
    DamagedBatchError
        If they differ.
    """
    if crc32c(data) != int.from_bytes(checksum, "little"):
        raise DamagedBatchError(f"a chunk of {where} does not match its checksum")
