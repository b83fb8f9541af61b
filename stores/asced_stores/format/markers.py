"""Commit markers: a batch exists once its marker exists.

A marker is one JSON object. It carries the CRC-32C of itself, taken with the eight digits of its
own field ``crc32c`` set to zero, so that a flipped bit anywhere in it is found.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asced_stores.errors import DamagedBatchError, NewerFormatError
from asced_stores.format.checksums import crc32c

FORMAT = "asced-commit"
VERSION = 1
LIMIT = 64 << 20
"""No marker is longer, in bytes."""

_ZEROS = '"crc32c":"00000000"}'
_NAME = re.compile(r"(0|[1-9][0-9]{0,9})\.json")
_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


@dataclass(frozen=True)
class ShardRecord:
    """Length and CRC-32C of a whole shard."""

    nbytes: int
    crc32c: int


@dataclass(frozen=True)
class Marker:
    """What a committed batch consists of.

    Parameters
    ----------
    batch : int
        Its number.
    fingerprint : str
        Of the store's specification.
    scalars : mapping of str to ndarray, shape (n,)
        ``run``, ``seed``, ``prompt``, ``label``, ``guidance_scale``, ``status`` and the store's
        own numbers by run.
    shards : mapping of str to ShardRecord
        One a variable, and one for ``status``.
    rank, world_size : int
        Who wrote it.
    token : str
        A name that no other writer has.
    time : str
        When, ISO 8601, UTC.
    """

    batch: int
    fingerprint: str
    scalars: Mapping[str, NDArray[Any]]
    shards: Mapping[str, ShardRecord]
    rank: int = 0
    world_size: int = 1
    token: str = ""
    time: str = ""

    @property
    def runs(self) -> int:
        """Number of runs."""
        return len(self.scalars["run"])

    @property
    def nbytes(self) -> int:
        """Bytes of its shards."""
        return sum(shard.nbytes for shard in self.shards.values())

    def to_bytes(self) -> bytes:
        """Canonical JSON with its own checksum."""
        body = {
            "format": FORMAT,
            "format_version": VERSION,
            "batch": self.batch,
            "fingerprint": self.fingerprint,
            "writer": {
                "rank": self.rank,
                "world_size": self.world_size,
                "token": self.token,
                "time": self.time,
            },
            "scalars": {name: _to_list(values) for name, values in self.scalars.items()},
            "shards": {
                name: {"nbytes": shard.nbytes, "crc32c": f"{shard.crc32c:08x}"}
                for name, shard in self.shards.items()
            },
        }
        text = json.dumps(body, separators=(",", ":"), allow_nan=False)
        return seal_text(text)


def seal_text(text: str) -> bytes:
    """Append a JSON object's own CRC-32C to it, as the last field ``crc32c``."""
    data = (text[:-1] + "," + _ZEROS).encode()
    return data[:-10] + f'{crc32c(data):08x}"}}'.encode()


def open_text(data: bytes, where: str) -> dict[str, Any]:
    """Inverse of `seal_text`.

    Raises
    ------
    DamagedBatchError
        If it is truncated or altered.
    """
    zeroed = data[:-10] + b'00000000"}'
    tail = len(_ZEROS)
    if zeroed[-tail:] != _ZEROS.encode() or data[-10:] != f'{crc32c(zeroed):08x}"}}'.encode():
        raise DamagedBatchError(
            f"{where} does not match its checksum: it is truncated or altered; "
            "drop the batch with `asced verify --drop` and record it again with --resume"
        )
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DamagedBatchError(f"{where} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise DamagedBatchError(f"{where} is not a JSON object")
    return value


def parse_marker(
    data: bytes, *, batch: int, fingerprint: str, dtypes: Mapping[str, str], where: str
) -> Marker:
    """Read a marker.

    Parameters
    ----------
    data : bytes
        What lies in the file.
    batch : int
        The number in its name.
    fingerprint : str
        That of the store.
    dtypes : mapping of str to str
        Of the numbers by run.
    where : str
        For messages.

    Raises
    ------
    DamagedBatchError
        If it is truncated, altered, of another store or of another batch.
    NewerFormatError
        If a newer version wrote it.
    """
    value = open_text(data, where)
    if value.get("format") == FORMAT and value.get("format_version", 0) > VERSION:
        raise NewerFormatError(
            f"{where} has format version {value['format_version']}, this version reads "
            f"{VERSION}: upgrade asced-analysis"
        )
    found = (value.get("format"), value.get("batch"), value.get("fingerprint"))
    if found != (FORMAT, batch, fingerprint):
        raise DamagedBatchError(
            f"{where} is the marker of batch {found[1]} of a store with fingerprint {found[2]}: "
            f"expected batch {batch} and {fingerprint}"
        )
    try:
        scalars = {
            name: _from_list(value["scalars"][name], dtype) for name, dtype in dtypes.items()
        }
        if len({len(values) for values in scalars.values()}) != 1 or not len(scalars["run"]):
            raise ValueError("numbers by run of unequal length")
        shards = {
            str(name): ShardRecord(int(shard["nbytes"]), int(shard["crc32c"], 16))
            for name, shard in value["shards"].items()
        }
        writer = value["writer"]
        return Marker(
            batch=batch,
            fingerprint=fingerprint,
            scalars=scalars,
            shards=shards,
            rank=int(writer["rank"]),
            world_size=int(writer["world_size"]),
            token=str(writer["token"]),
            time=str(writer["time"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DamagedBatchError(f"{where} lacks something or holds it wrongly: {error}") from error


def batch_of(name: str) -> int | None:
    """Batch number of a marker's file name; None for any other name."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


def _to_list(values: NDArray[Any]) -> list[Any]:
    """Plain values; floats that JSON lacks are the strings that Zarr uses for them."""
    if values.dtype.kind != "f":
        return [str(v) if values.dtype.kind in "OUT" else v for v in values.tolist()]
    return [
        v if math.isfinite(v) else "NaN" if v != v else "Infinity" if v > 0 else "-Infinity"
        for v in values.tolist()
    ]


def _from_list(values: list[Any], dtype: str) -> NDArray[Any]:
    if dtype == "str":
        if not all(isinstance(v, str) for v in values):
            raise TypeError("a string was expected")
        return np.array(values, dtype=object)
    if dtype.startswith("float"):
        values = [_NON_FINITE[v] if isinstance(v, str) else v for v in values]
    return np.array(values, dtype=dtype)
