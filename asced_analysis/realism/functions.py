"""Features by a function of one's own, ``FILE.py:FUNCTION`` or ``module:function``."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from asced_analysis.realism.claims import Reference
from asced_analysis.realism.local import Array, Encoder, RealismModel
from asced_analysis.realism.modules import referred
from asced_analysis.realism.registry import FeatureKind
from asced_stores.errors import InputError
from asced_stores.named_functions import named_function


class FunctionKind(FeatureKind):
    """A function from images (n, channel, y, x) in -1..1 to local features (n, rows, columns, c).

    It may return a pair instead: local features, and one vector an image (n, d).
    """

    name = "FILE.py:FUNCTION"
    summary = "your own: images (n, channel, y, x) in -1..1 to features (n, rows, columns, c)"

    def takes(self, given: str) -> bool:
        """A file or module and the name of a function in it."""
        place, _, name = given.rpartition(":")
        return bool(place) and name.isidentifier()

    def build(self, given: str, images: Any, of: Reference | None, runs: Any) -> RealismModel:
        """Import it and look at the reference (see `registry.FeatureKind`)."""
        function, version = load_function(given)
        place, _, name = given.rpartition(":")
        called = f"{Path(place).name}:{name}"
        return referred(called, _encoder(function, called), images, of, runs, version=version)


KIND = FunctionKind()


def load_function(given: str) -> tuple[Callable[..., Any], str]:
    """A function by file or module, and a hash of its file.

    Parameters
    ----------
    given : str
        ``FILE.py:FUNCTION`` or ``module:function``.

    Raises
    ------
    InputError
        Where there is no such file, module or function.
    """
    function = named_function(given)
    place, _, name = given.rpartition(":")
    file = place if place.endswith(".py") else getattr(sys.modules[place], "__file__", None)
    content = Path(file).read_bytes() if file else place.encode()
    return function, hashlib.sha256(content + name.encode()).hexdigest()


def _encoder(function: Callable[..., Any], called: str) -> Encoder:
    """The function's answer, checked."""

    def encode(images: Array) -> tuple[Array, Array]:
        found = function(images)
        local, vectors = found if isinstance(found, tuple) else (found, None)
        local = _array(local)
        if local.ndim != 4 or len(local) != len(images):
            raise InputError(
                f"{called} gave features of shape {local.shape} for {len(images)} images; expected "
                "(n, rows, columns, c)"
            )
        whole = local.mean((1, 2)) if vectors is None else _array(vectors)
        if whole.ndim != 2 or len(whole) != len(images):
            raise InputError(f"{called} gave vectors of shape {whole.shape}; expected (n, d)")
        return local, whole

    return encode


def _array(values: Any) -> Array:
    """An array or tensor as float32."""
    if hasattr(values, "detach"):
        values = values.detach().float().cpu().numpy()
    return np.asarray(values, np.float32)
