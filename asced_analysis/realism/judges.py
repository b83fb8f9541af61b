"""Who looks at the images of some runs, by name, and what they are compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from asced_analysis.realism.claims import Reference
from asced_analysis.realism.local import RealismModel, cross_fitted
from asced_analysis.realism.membership import halves
from asced_analysis.realism.pictures import picture_shape, read_pictures, undecoded
from asced_analysis.realism.real_images import Real, RealImages, Role, read_real, without_runs
from asced_analysis.realism.registry import kind_of, kinds
from asced_stores.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

DEFAULT = "patches"
REFERENCES = 1000
FEWEST = 8
SELF = "self-consistency"


def choose_judge(
    judge: str | RealismModel | None,
    dataset: xr.Dataset,
    *,
    real: Real | RealImages | None = None,
    role: Role = "judge",
    others: Sequence[xr.Dataset] = (),
) -> RealismModel:
    """Make who judges runs.

    Parameters
    ----------
    judge : str, RealismModel or None
        A kind of features (`registry.kinds`) or a model that is ready. By default the one that was
        made for the runs' model, where there is one (`fashion`) and no real images are given;
        else ``patches``.
    dataset : xarray.Dataset
        The recorded runs, as `open_runs` gives them.
    real : path, array or RealImages, optional
        Real images to compare with; without them, the runs' own population.
    role : {"judge", "teacher"}
        Which half of the real images, or of the population, is the reference: the two never share
        an image.
    others : sequence of xarray.Dataset
        Other runs that it will judge: their pictures are no real images either.

    Raises
    ------
    InputError
        For unknown features, for real images beside features that bring their own, and where there
        are too few images.

    Examples
    --------
    >>> from asced_analysis import open_runs
    >>> from asced_analysis.realism.judges import choose_judge
    >>> choose_judge("patches", open_runs("runs.zarr")).reference.kind
    'population'
    """
    if isinstance(judge, RealismModel):
        if real is not None:
            raise InputError(f"{judge.name} has a reference already: leave out the real images")
        return judge
    given = judge or default_features(dataset.attrs, role, real is not None)
    if given == SELF:
        raise InputError(
            "self-consistency evaluates the model itself, so it cannot report on corrections by "
            "the same model: it teaches; choose another judge, such as patches with real images"
        )
    kind = kind_of(given)
    kind.check_role(given, role)
    if kind.brings_reference:
        if real is not None:
            raise InputError(
                f"{given} brings real images of its own; choose other features (patches, "
                "imagenet, ...) for yours"
            )
        return kind.build(given, None, None, None)
    seen = undecoded(dataset)
    known = real_images_of(real, dataset)
    if known is not None:
        images, of = known.half(role)
        images, of = without_runs(images, of, (dataset, *others))
        return kind.build(given, images, of, None)
    numbers = np.asarray(dataset["run"].values, np.int64)
    complete = np.arange(len(numbers))
    if "status" in dataset.coords:
        complete = np.flatnonzero(np.asarray(dataset["status"].values) == 1)
    some = np.sort(np.random.default_rng(0).permutation(complete)[: 2 * REFERENCES])
    if len(some) < FEWEST:
        raise InputError(
            f"there are {len(some)} complete runs; a population of at least {FEWEST} can be "
            "compared with itself: record more, or give real images"
        )
    pictures = read_pictures(dataset, some)
    own = halves(pictures)[role == "judge"]
    if len(own) < 4:
        raise InputError(
            f"most of these {len(some)} runs ended in one and the same image: there is nothing to "
            "compare them with"
        )
    source = f"the {role}'s half of the recorded runs"
    of = Reference("population", source if seen is None else f"{source} ({seen})", len(own))
    return cross_fitted(
        lambda images, runs: kind.build(given, images, of, runs), pictures[own], numbers[some][own]
    )


def real_images_of(real: Real | RealImages | None, dataset: xr.Dataset) -> RealImages | None:
    """Real images as the pictures of some runs are: read first, so that bad ones cost no work.

    Raises
    ------
    InputError
        Where there are too few, they cannot be read, or the runs have no decoded pictures.
    """
    if real is None:
        return None
    seen = undecoded(dataset)
    if seen is not None:
        raise InputError(
            f"the store holds {seen}, which real images cannot be compared with: record `image`"
            " as well, or judge without real images"
        )
    return read_real(real, picture_shape(dataset))


def default_features(attributes: Mapping[str, Any], role: Role, real: bool) -> str:
    """Features made for the runs' model, where there are some; else ``patches``."""
    if not real:
        for kind in kinds():
            if name := kind.made_for(attributes, role):
                return name
    return DEFAULT
