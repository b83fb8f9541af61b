"""Kinds of features by name, one file each; other distributions bring theirs by entry point.

An entry point of the group ``asced.judges`` names an object like those in `KINDS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from asced_analysis.realism.claims import Reference
from asced_analysis.realism.local import RealismModel
from asced_stores.errors import InputError

GROUP = "asced.judges"


class FeatureKind(Protocol):
    """All there is to know of one kind of features.

    Attributes
    ----------
    name : str
        As people give it, or the form of what they give, such as ``FILE.py:FUNCTION``.
    summary : str
        One line, for help and tables.
    brings_reference : bool
        Whether it has real images of its own.
    """

    name: str
    summary: str
    brings_reference: bool

    def takes(self, given: str) -> bool:
        """Whether this kind is meant."""

    def belongs_to(self, attributes: Mapping[str, Any], role: str) -> bool:
        """Whether it was made for the model of these runs, as their ``judge`` or ``teacher``."""

    def build(
        self,
        given: str,
        images: NDArray[np.float32] | None,
        of: Reference | None,
        runs: NDArray[np.integer[Any]] | None,
    ) -> RealismModel:
        """Make a model.

        Parameters
        ----------
        given : str
            What was asked for.
        images : float32 array, shape (n, channel, y, x), or None
            The reference, in -1..1; None for kinds that bring their own.
        of : Reference or None
            What the images are.
        runs : int array, shape (n,), or None
            The runs they are of, where they are recorded ones.
        """


@cache
def kinds() -> tuple[FeatureKind, ...]:
    """Every kind that is installed; the first that takes a name is meant.

    Examples
    --------
    >>> from asced_analysis.realism.registry import kinds
    >>> kinds()[0].name
    'patches'
    """
    from importlib.metadata import entry_points

    from asced_analysis.realism.embedded import COMMITTEE, JUDGE, TEACHER
    from asced_analysis.realism.functions import FUNCTION
    from asced_analysis.realism.imagenet import IMAGENET
    from asced_analysis.realism.patches import PATCH_KIND
    from asced_analysis.realism.vision_models import VISION_MODEL

    brought = [entry.load() for entry in entry_points(group=GROUP)]
    return (PATCH_KIND, IMAGENET, JUDGE, TEACHER, COMMITTEE, FUNCTION, *brought, VISION_MODEL)


def kind_of(given: str) -> FeatureKind:
    """The kind that a name means.

    Raises
    ------
    InputError
        Where there is none; the message lists them.
    """
    for kind in kinds():
        if kind.takes(given):
            return kind
    known = ", ".join(kind.name for kind in kinds())
    raise InputError(f"no features are called {given!r}; expected one of: {known}")
