"""Several arrays in one object: a NumPy archive, without pickles, never unpacked beyond a limit."""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TEXTS = "texts:"


def pack_arrays(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Compressed bytes of arrays of numbers or strings (dtype object)."""
    plain: dict[str, NDArray[Any]] = {}
    for name, array in arrays.items():
        if array.dtype != object:
            plain[name] = array
            continue
        known: dict[str, int] = {}  # prompts repeat: each is kept once
        codes = [known.setdefault(str(text), len(known)) for text in array]
        plain[name] = np.array(codes, np.int64)
        plain[f"{_TEXTS}{name}"] = np.frombuffer(json.dumps(list(known)).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **plain)  # type: ignore[arg-type]
    return buffer.getvalue()


def unpack_arrays(data: bytes, *, limit: int) -> dict[str, NDArray[Any]]:
    """Inverse of `pack_arrays`.

    Raises
    ------
    ValueError, zipfile.BadZipFile, KeyError
        If the bytes are no such archive, or would unpack to more than ``limit`` bytes.
    """
    arrays = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if sum(member.file_size for member in archive.infolist()) > limit:
            raise ValueError(f"it unpacks to more than {limit} bytes")
        for member in archive.infolist():
            content = io.BytesIO(archive.read(member))  # checks the archive's own CRC-32
            if np.lib.format.read_magic(content) != (1, 0):
                raise ValueError(f"{member.filename} is of another version")
            shape, _, dtype = np.lib.format.read_array_header_1_0(content)
            if math.prod(shape) * dtype.itemsize != len(content.getbuffer()) - content.tell():
                raise ValueError(f"{member.filename} has not the length that its shape needs")
            content.seek(0)
            name = member.filename.removesuffix(".npy")
            arrays[name] = np.lib.format.read_array(content, allow_pickle=False)
    for name in [name for name in arrays if name.startswith(_TEXTS)]:
        texts = json.loads(arrays.pop(name).tobytes())
        own = name.removeprefix(_TEXTS)
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"{own} holds no strings")
        codes = arrays[own]
        if len(codes) and not 0 <= codes.min() <= codes.max() < len(texts):
            raise ValueError(f"{own} names strings that are not there")
        arrays[own] = np.array(texts, object)[codes]
    return arrays
