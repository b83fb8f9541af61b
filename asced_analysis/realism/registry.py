"""Kinds of features by name, one file each; other distributions bring theirs by entry point.

An entry point of the group ``asced.judges`` names an object like the ``KIND`` of those files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from asced_stores.errors import InputError
from asced_stores.registry import Registry

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from asced_analysis.realism.claims import Reference
    from asced_analysis.realism.local import RealismModel


class FeatureKind:
    """All there is to know of one kind of features; the defaults are those of most kinds.

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
    brings_reference: bool = False

    def takes(self, given: str) -> bool:
        """Whether this kind is meant."""
        return given == self.name

    def made_for(self, attributes: Mapping[str, Any], role: str) -> str | None:
        """Its features that were made for the model of these runs, as ``judge`` or ``teacher``."""
        return None

    def check_role(self, given: str, role: str) -> None:
        """Refuse features that must not teach, or not judge."""

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
        raise NotImplementedError


DESCRIBED = ("patches", "imagenet", "vision_models", "functions", "embedded")
"""Kinds that texts of help describe in words; the names of all others are listed after them."""

FEATURES: Registry[FeatureKind] = Registry(
    "kind of features",
    group="asced.judges",
    package="asced_analysis.realism",
    modules=(*DESCRIBED,),
    attribute="KIND",
)


def further_names() -> tuple[str, ...]:
    """Names of kinds beside the `DESCRIBED`: built in, brought by others, or registered by hand."""
    return tuple(name for name in FEATURES if name not in DESCRIBED)


def kinds() -> tuple[FeatureKind, ...]:
    """Every kind that is installed.

    Examples
    --------
    >>> from asced_analysis.realism.registry import kinds
    >>> kinds()[0].name
    'patches'
    """
    return tuple(FEATURES.get(name) for name in FEATURES)


def kind_of(given: str) -> FeatureKind:
    """The kind that a name means: the last that takes it, so that brought ones come first.

    Raises
    ------
    InputError
        Where there is none; the message lists them.
    """
    for kind in reversed(kinds()):
        if kind.takes(given):
            return kind
    known = ", ".join(kind.name for kind in kinds())
    raise InputError(f"no features are called {given!r}; expected one of: {known}")
