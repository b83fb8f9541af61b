"""Numbers and texts by run, which lie in commit markers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asced_stores.errors import InputError


def cast_scalar(name: str, value: ArrayLike, dtype: str, count: int) -> NDArray[Any]:
    """One value a run, or one for all of them, in the store's type.

    Parameters
    ----------
    name : str
    value : array_like
    dtype : str
        A NumPy name, or ``str``.
    count : int
        Runs.

    Raises
    ------
    InputError
        Where they do not fit.
    """
    array: NDArray[Any]
    if dtype == "str":
        texts = [value] * count if isinstance(value, str) else list(np.asarray(value, object))
        if len(texts) != count or not all(isinstance(text, str) for text in texts):
            raise InputError(f"{name} must be {count} strings")
        array = np.array(texts, dtype=object)
        return array
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "biuf":
            raise TypeError(f"they are of type {array.dtype}")
        with np.errstate(all="ignore"):
            cast = np.broadcast_to(array, (count,)).astype(dtype)
        wide = cast.dtype.kind == "f"
        if not wide and not np.array_equal(cast, np.broadcast_to(array, (count,))):
            raise ValueError(f"some do not fit {dtype}")
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{name} must be {count} values of {dtype}: {error}") from error
    return cast
