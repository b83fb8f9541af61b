"""What goes to the browser: a JSON header and arrays, as one run of bytes."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Answer:
    """Numbers and words in `header`, arrays in `arrays`.

    Attributes
    ----------
    header : dict
        JSON: no NaN, no infinity.
    arrays : dict of str to array
        ``uint8``, ``float32``, ``float64`` or ``int32``.
    """

    header: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, npt.NDArray[Any]] = field(default_factory=dict)

    def described(self) -> dict[str, Any]:
        """The header, with name, type and shape of every array."""
        shapes = [
            {"name": name, "dtype": array.dtype.name, "shape": list(array.shape)}
            for name, array in self.arrays.items()
        ]
        return {**self.header, "arrays": shapes}

    def body(self) -> bytes:
        """All arrays, one after another."""
        return b"".join(np.ascontiguousarray(array).tobytes() for array in self.arrays.values())

    def message(self) -> bytes:
        """Length of the header (4 bytes, little end first), header, arrays."""
        header = json.dumps(self.described(), allow_nan=False).encode()
        return struct.pack("<I", len(header)) + header + self.body()


def file_answer(name: str, media: str, content: bytes) -> Answer:
    """A file to be kept."""
    return Answer({"file": name, "media": media}, {"content": np.frombuffer(content, np.uint8)})
