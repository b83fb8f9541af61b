"""Where the bytes of an array lie: shards, inner chunks, keys, and the Zarr metadata that says so.

One shard holds one batch of runs, so that one writer owns it. Inside, chunks are runs by steps and
whole in the other dimensions, chosen such that every chunk is one contiguous piece of the batch
as it lies in memory: it is written without a copy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from asced_stores.format.spec import VariableSpec

CHUNK_BYTES = 1 << 19
"""Inner chunks stay below this where they can; docs/performance.md has the measurements."""

_SPLITTABLE = ("step", "checkpoint")
_LITTLE_ENDIAN = {"name": "bytes", "configuration": {"endian": "little"}}


def _largest_divisor(number: int, limit: float) -> int:
    return max(n for n in range(1, number + 1) if number % n == 0 and n <= max(limit, 1))


@dataclass(frozen=True)
class ArrayLayout:
    """One sharded array.

    Parameters
    ----------
    variable : VariableSpec
        What it holds.
    batch_size : int
        Runs in a shard.
    inner : tuple of int
        Shape of an inner chunk: runs, then the variable's own dimensions.
    """

    variable: VariableSpec
    batch_size: int
    inner: tuple[int, ...]

    @classmethod
    def choose(
        cls, variable: VariableSpec, batch_size: int, *, chunk_bytes: int = CHUNK_BYTES
    ) -> ArrayLayout:
        """Choose the inner chunks: whole steps first, then whole runs, below ``chunk_bytes``."""
        if variable.dims[0] in _SPLITTABLE:
            steps = variable.shape[0]
            inner_steps = _largest_divisor(steps, chunk_bytes // (variable.nbytes // steps))
            own = (inner_steps, *variable.shape[1:])
        else:
            inner_steps = steps = 1
            own = variable.shape
        runs = 1
        if inner_steps == steps:
            runs = _largest_divisor(batch_size, chunk_bytes // variable.nbytes)
        return cls(variable, batch_size, (runs, *own))

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type, little-endian."""
        return np.dtype(self.variable.dtype).newbyteorder("<")

    @property
    def shard_shape(self) -> tuple[int, ...]:
        """Shape of one shard."""
        return (self.batch_size, *self.variable.shape)

    @property
    def grid(self) -> tuple[int, int]:
        """Inner chunks of a shard, along runs and along the variable's first dimension."""
        return self.batch_size // self.inner[0], self.variable.shape[0] // self.inner[1]

    @property
    def chunks(self) -> int:
        """Number of inner chunks of a shard."""
        return math.prod(self.grid)

    @property
    def chunk_nbytes(self) -> int:
        """Bytes of an inner chunk without its checksum."""
        return math.prod(self.inner) * self.dtype.itemsize

    @property
    def index_nbytes(self) -> int:
        """Bytes of a shard's index with its checksum."""
        return 16 * self.chunks + 4

    def key(self, batch: int) -> str:
        """Key of a shard, relative to the store."""
        return "/".join([self.variable.name, "c", str(batch)] + ["0"] * len(self.variable.shape))

    def metadata(self, runs: int) -> dict[str, Any]:
        """``zarr.json`` of the array with ``runs`` slots."""
        codecs = [_LITTLE_ENDIAN, {"name": "crc32c"}]
        sharding = {
            "name": "sharding_indexed",
            "configuration": {
                "chunk_shape": list(self.inner),
                "codecs": codecs,
                "index_codecs": codecs,
                "index_location": "end",
            },
        }
        return array_metadata(
            shape=(runs, *self.variable.shape),
            chunk_shape=self.shard_shape,
            dtype=self.variable.dtype,
            dims=("run", *self.variable.dims),
            codecs=[sharding],
        )


def array_metadata(
    *,
    shape: tuple[int, ...],
    chunk_shape: tuple[int, ...],
    dtype: str,
    dims: tuple[str, ...],
    codecs: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """``zarr.json`` of an array (Zarr v3); by default plain little-endian bytes with crc32c."""
    fill: Any = 0
    if dtype.startswith("float"):
        fill = "NaN"
    elif dtype == "bool":
        fill = False
    elif dtype == "str":
        fill = ""
        codecs = [{"name": "vlen-utf8"}, {"name": "crc32c"}]
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": "string" if dtype == "str" else dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk_shape)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill,
        "codecs": codecs or [_LITTLE_ENDIAN, {"name": "crc32c"}],
        "attributes": {},
        "dimension_names": list(dims),
        "storage_transformers": [],
    }
