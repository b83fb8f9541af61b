"""Whose features every figure is measured in, and the real images they refer to."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asced_analysis.realism import RealismModel, patch_model
from asced_analysis.realism.judges import choose_judge
from asced_analysis.realism.real_images import read_real
from asced_analysis.replay.recording import Recording
from asced_stores import open_runs
from asced_stores.errors import InputError

REFERENCES = 1000


def judge_of(name: str | None, real: Path | None, store: Path) -> RealismModel:
    """Feature extractor of every figure.

    Parameters
    ----------
    name : {"judge", "teacher", "patches", "imagenet"}, "FILE.py:FUNCTION" or None
        None: the judge of `fashion` for `fashion`, else patches; of real images where they are
        given. A function takes the real images and returns a `RealismModel`, as
        `asced_analysis.realism.model_from_module` makes one of any torch module.
    real : Path, optional
        Real images: a folder, .npz, .npy or Zarr; cropped and scaled to the pictures' size.
    """
    own = name is not None and ":" in name
    if real is None:
        if own or name == "imagenet":
            raise InputError(f"features {name!r} need real images: give --real")
        seen = pictures_of(store)
        if name in (None, "patches") and seen.shape[1] != open_runs(store).sizes["channel"]:
            return patch_model(seen[:REFERENCES], name="patches of the population's own pictures")
        return choose_judge(name, Recording(store).dataset)
    shape = pictures_of(store, first=1).shape[1:]
    images = read_real(real, shape).images
    if own:
        return own_model(str(name), images)
    if name == "imagenet":
        from asced_analysis.realism.imagenet import imagenet_model

        return imagenet_model(images)
    if name in (None, "patches"):
        return patch_model(images, name=f"patches of {len(images)} real images")
    raise InputError(f"features {name!r} bring their own real images: leave out --real")


def own_model(place: str, images: NDArray[np.float32]) -> RealismModel:
    """A model by a function of a Python file, ``FILE.py:FUNCTION``."""
    path, _, function = place.rpartition(":")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    if spec is None or spec.loader is None or not Path(path).exists():
        raise InputError(f"{path} is no Python file: give --features FILE.py:FUNCTION")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, function):
        raise InputError(f"{path} has no function {function!r}")
    model = getattr(module, function)(images)
    if not isinstance(model, RealismModel):
        raise InputError(f"{place} returned {type(model).__name__}: expected a RealismModel")
    return model


def pictures_of(store: Path, first: int | None = None) -> NDArray[np.float32]:
    """What a judge looks at, (n, channel, y, x) in -1..1: pixels, or decoded latents."""
    ds = open_runs(store)
    ds = ds.isel(run=np.flatnonzero(ds["status"].values == 1)[:first])
    if ds.sizes["channel"] in (1, 3) and "frame" not in ds.sizes:
        return np.asarray(ds["sample"].values, np.float32)
    if "image" not in ds:
        raise InputError(f"{store} holds latents without their images: record them as well")
    shown = ds["image"].values.astype(np.float32) / 127.5 - 1
    return np.ascontiguousarray(np.moveaxis(shown, -1, 1))
