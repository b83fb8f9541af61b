"""Masks and pictures as a folder that tools for labelling open."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from asced_analysis.detection.coco import coco_of
from asced_analysis.realism.pictures import read_pictures
from asced_stores.errors import InputError
from asced_stores.files import check_out, whole, write_json

if TYPE_CHECKING:
    import xarray as xr

Mask = npt.NDArray[np.bool_]
FORMATS = {
    "coco": ("labels.json", "data/*.png"),
    "png": ("masks", "masks/*.png", "data/*.png"),
}
"""What each writes, as `check_out` takes it."""


def export_masks(
    ds: xr.Dataset,
    out: str | PathLike[str],
    *,
    form: Literal["coco", "png"] = "coco",
    masks: Mapping[int, Mask] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the runs' pictures, and masks of broken places, for FiftyOne, CVAT or Label Studio.

    Parameters
    ----------
    ds : xarray.Dataset
        Runs, of `asced_analysis.open_runs`.
    out : path
        A folder: ``data/17.png`` and ``labels.json`` (COCO), or ``masks/17.png`` (white is broken).
    form : {"coco", "png"}
    masks : mapping of run to bool array (y, x), optional
        By default those that the runs hold (of a replay). Smaller than the pictures, as latents'
        are, they are enlarged.
    overwrite : bool
        Whether an earlier folder of this form may be replaced; one that holds more never is.

    Raises
    ------
    InputError
        Where there are no masks, the folder exists, or masks are of other runs or of a shape that
        does not fit.

    Examples
    --------
    >>> from asced_analysis import open_runs
    >>> from asced_analysis.export import export_masks
    >>> folder = export_masks(open_runs("corrected.zarr"), "labelling")
    >>> sorted(path.name for path in folder.iterdir())
    ['data', 'labels.json']
    """
    from PIL import Image

    if form not in FORMATS:
        raise InputError(f"form is {form!r}; expected one of {', '.join(FORMATS)}")
    target = check_out(out, overwrite=overwrite, folder=True, own=FORMATS[form])
    given = masks_of(ds) if masks is None else masks
    runs = [int(run) for run in ds["run"].values]
    unknown = sorted(set(given) - set(runs))
    if unknown:
        raise InputError(f"there are masks of runs {unknown[:5]}, which are not among these runs")
    rows = [row for row, run in enumerate(runs) if run in given]
    found: dict[int, Mask] = {}
    with whole(target, overwrite=overwrite) as part:
        (part / "data").mkdir(parents=True)
        for row in rows:
            picture = picture_of(ds, row)
            found[runs[row]] = enlarged(given[runs[row]], picture.shape[:2])
            Image.fromarray(picture).save(part / "data" / f"{runs[row]}.png")
        if form == "coco":
            write_json(part / "labels.json", coco_of(found))
        else:
            (part / "masks").mkdir()
            for run, mask in found.items():
                white = Image.fromarray(mask.astype(np.uint8) * 255)
                white.save(part / "masks" / f"{run}.png")
    return target


def picture_of(ds: xr.Dataset, row: int) -> npt.NDArray[np.uint8]:
    """One run's picture as it is looked at: the recorded one, else the sample.

    Returns
    -------
    uint8 array, shape (y, x) or (y, x, 3)

    Raises
    ------
    InputError
        Where only latents were recorded.
    """
    if "image" in ds:
        picture = np.asarray(ds["image"].isel(run=row).transpose("row", "column", "colour").values)
    else:
        channels = int(ds.sizes.get("channel", 0)) if "sample" in ds else 0
        if channels not in (1, 3) or "frame" in ds["sample"].dims:
            raise InputError("these runs hold no picture: record them with their images")
        values = read_pictures(ds, np.array([row]))[0].transpose(1, 2, 0)
        picture = np.clip(np.rint((values + 1) * 127.5), 0, 255).astype(np.uint8)
    return picture[..., 0] if picture.shape[-1] == 1 else picture


def enlarged(mask: Mask, shape: tuple[int, ...], /) -> Mask:
    """A mask at the resolution of a picture, a whole number of times its own.

    Raises
    ------
    InputError
    """
    times, rest = np.divmod(shape, mask.shape)
    if rest.any() or not times.all():
        raise InputError(f"a mask has shape {mask.shape}, its picture {tuple(shape)}")
    return np.kron(mask, np.ones(tuple(times), bool)).astype(bool)


def masks_of(ds: Any) -> dict[int, Mask]:
    """The masks that runs hold."""
    if "mask" not in ds:
        raise InputError("these runs hold no masks; give some, or thresholds that find them")
    pairs = zip(ds["run"].values, ds["mask"].values, strict=True)
    return {int(run): np.asarray(mask, np.bool_) for run, mask in pairs}
