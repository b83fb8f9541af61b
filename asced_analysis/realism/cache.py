"""Features of image sets on disk, by content: the second command does not look at them again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FOLDER = "ASCED_CACHE"
VERSION = "1"  # raise it where features of the same images and network would differ
Arrays = dict[str, NDArray[Any]]


def cache_folder() -> Path:
    """``$ASCED_CACHE``, else ``asced`` in the user's cache folder."""
    given = os.environ.get(FOLDER)
    if given:
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "asced"


def cached(images: NDArray[np.float32], version: str, make: Callable[[], Arrays]) -> Arrays:
    """What `make` gives for these images, made once for each content and version.

    Parameters
    ----------
    images : float32 array, shape (n, channel, y, x)
    version : str
        Of whoever looks at them: hash of weights, or of code.
    make : callable
    """
    content = hashlib.blake2b(digest_size=20)
    content.update(f"{VERSION} {version} {images.shape}".encode())
    content.update(np.ascontiguousarray(images).tobytes())
    path = cache_folder() / "features" / f"{content.hexdigest()}.npz"
    with suppress(OSError, ValueError, KeyError), np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}
    arrays = make()
    save: Any = np.savez
    with suppress(OSError):  # a disk that is full or not ours: work without
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        try:
            with part.open("wb") as file:
                save(file, **arrays)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    return arrays
