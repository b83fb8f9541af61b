"""What every experiment of the paper starts from: runs, detectors as printed, and a judge."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from asced_analysis.calibration.calibrate_runs import window_and_correction
from asced_analysis.calibration.fitting import fit_variant
from asced_analysis.calibration.source import open_source
from asced_analysis.evaluation.judges import choose_judge
from asced_analysis.realism import RealismModel, features, local_realism, patch_model
from asced_analysis.replay.recording import Recording
from asced_analysis.thresholds import Thresholds
from asced_stores import TrajectoryStore, open_runs
from asced_stores.copying import select_runs
from asced_stores.errors import InputError

T_D, T_C = 0.24, 0.48  # shares of sampling: the detector's window begins, the correction edits
LITERAL = {"released": 3.0, "paper": 1.0}  # MAD scale of the code, factor on tau of Eq. 4
GROWTH = {"released": 5 / 256, "paper": 0.0}
AT_ONCE = 256
FEATURES = ("judge", "teacher", "patches", "imagenet")


@dataclass(frozen=True)
class Setting:
    """Recorded runs and who judges them.

    Attributes
    ----------
    store : Path
    pipeline : DiffusionPipeline or str or None
        None: the one the store names.
    model : RealismModel
        Features of every figure; its name stands in the results.
    cache : Path
        Where corrected twins lie.
    """

    store: Path
    pipeline: Any
    model: RealismModel
    cache: Path

    @cached_property
    def recording(self) -> Recording:
        """The runs."""
        return Recording(self.store)

    @property
    def steps(self) -> int:
        """Of sampling."""
        return self.recording.steps

    def thresholds(self, variant: str, at: float = T_C) -> Thresholds:
        """A detector with its printed level, looking from T_d up to the edit at `at`."""
        source = open_source(open_runs(self.store))
        begin = min(T_D, max(0.0, at - 2 * T_D / 3))  # an early edit is looked at from before T_d
        window, correction = window_and_correction(source, (begin, at), "ttc")
        found, _ = fit_variant(
            source,
            variant,
            np.ones(source.runs, np.bool_),
            window=window,
            correction=replace(correction, grow=GROWTH[variant]),
            parameters={},
        )
        return replace(found, levels=replace(found.levels, level=LITERAL[variant]))

    def pictures(self, store: Path) -> NDArray[np.float32]:
        """What the judge looks at, (n, channel, y, x) in -1..1: pixels, or decoded latents."""
        ds = open_runs(store)
        ds = ds.isel(run=np.flatnonzero(ds["status"].values == 1))
        if ds.sizes["channel"] in (1, 3) and "frame" not in ds.sizes:
            return np.asarray(ds["sample"].values, np.float32)
        if "image" not in ds:
            raise InputError(f"{store} holds latents without their images: record them as well")
        shown = ds["image"].values.astype(np.float32) / 127.5 - 1
        return np.ascontiguousarray(np.moveaxis(shown, -1, 1))

    def seen(self, store: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Vectors (n, d) and maps of local distance (n, rows, columns) of a store's pictures."""
        images = self.pictures(store)
        return features(images, self.model), local_realism(images, self.model)

    @cached_property
    def original(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Vectors and maps of the uncorrected runs."""
        return self.seen(self.store)

    @cached_property
    def distance(self) -> NDArray[np.float64]:
        """Mean local distance of each run: how broken it ended."""
        return np.asarray(self.original[1].mean((1, 2), dtype=np.float64))


def runs_of(
    *, store: Path | None, pipeline: str, runs: int, steps: int, cache: Path, seed: int = 0
) -> Path:
    """Store of so many runs: the first of a given store, or recorded now, or found in the cache."""
    if store is not None:
        source = TrajectoryStore.open(store)
        found = open_runs(store).sizes["run"]
        if found < runs:
            raise InputError(f"{store} holds {found} runs, fewer than {runs}: give --runs {found}")
        if found == runs:
            return store
        part = cache / f"first-{runs}.zarr"
        select_runs(source, part, lambda index: np.arange(len(index)) < runs, resume=part.exists())
        return part
    from asced_recorders import record

    path = cache / f"runs-{runs}.zarr"
    record(
        pipeline,
        path,
        runs=runs,
        steps=steps,
        batch_size=64,
        seed=seed,
        checkpoints=tuple(sorted({round(share * steps) for share in (0.32, T_C, 0.64)})),
        resume=path.exists(),
    )
    return path


def judge_of(name: str | None, real: Path | None, store: Path) -> RealismModel:
    """Feature extractor of every figure.

    Parameters
    ----------
    name : {"judge", "teacher", "patches", "imagenet"} or None
        None: the judge of `fashion` for `fashion`, else patches; of real images where they are
        given.
    real : Path, optional
        Real images: a folder of pictures, or an array in .npy.
    """
    recording = Recording(store)
    if name in ("imagenet", "patches") or real is not None:
        if real is None and name == "imagenet":
            raise InputError("features of an ImageNet network need real images: give --real")
        if real is not None:
            images = real_images(real)
            if name == "imagenet":
                from asced_analysis.realism.imagenet import imagenet_model

                return imagenet_model(images)
            if name in (None, "patches"):
                return patch_model(images, name=f"patches of {len(images)} real images")
            raise InputError(f"features {name!r} bring their own real images: leave out --real")
    return choose_judge(name, recording)


def real_images(place: Path) -> NDArray[np.float32]:
    """Real images (n, channel, y, x) in -1..1, of a folder of pictures or of a .npy of 0..255."""
    if place.is_dir():
        from PIL import Image

        files = sorted(p for p in place.iterdir() if p.suffix.lower() in (".png", ".jpg", ".jpeg"))
        if not files:
            raise InputError(f"{place} holds no .png or .jpg")
        array = np.stack([np.asarray(Image.open(one)) for one in files])
    else:
        array = np.load(place, allow_pickle=False)
    if array.dtype != np.uint8 or array.ndim not in (3, 4):
        raise InputError(
            f"{place} holds {array.dtype} of shape {array.shape}: expected 0..255 as uint8, "
            "(n, y, x) or (n, y, x, colour)"
        )
    colour = array[..., None] if array.ndim == 3 else array
    scaled = torch.from_numpy(colour).permute(0, 3, 1, 2).float() / 127.5 - 1
    return scaled.contiguous().numpy()
