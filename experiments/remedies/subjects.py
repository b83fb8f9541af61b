"""The models on which remedies are tried: who says what is broken, and what real images are."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asced_analysis.realism import RealismModel, local_realism, patch_model
from asced_recorders import load_pipeline
from asced_stores.errors import InputError
from experiments.datasets import shapes
from experiments.datasets.sets import judge_of

MODELS = Path(__file__).resolve().parents[1] / "models"
CACHE = Path("build/remedies")
Images = NDArray[np.float32]


@dataclass(frozen=True)
class Subject:
    """One model.

    Attributes
    ----------
    name : str
    pipeline : str or Path
    truth : str
        Who says what is broken.
    judge : callable
        Makes the model of features that Frechet distance, precision and recall are measured with.
    counted : callable, optional
        From ends (n, channel, y, x) to whether each is broken; None: the judge's worst quarter of
        plain sampling.
    guidance : float
        For models of classes.
    seed : int
        Of the first recorded run.
    only : tuple of str
        Classes drawn: those whose name holds one of these words.
    recorded : mapping
        More options of `asced_recorders.record`.
    eyes : Path, optional
        Labels by eye (`experiments.remedies.blind`), which then are the truth.
    sampler : str, optional
        Short name of a scheduler, where it is not the pipeline's own.
    """

    name: str
    pipeline: str | Path
    truth: str
    judge: Callable[[], RealismModel]
    counted: Callable[[Images], NDArray[np.bool_]] | None = None
    guidance: float = 1.0
    seed: int = 0
    only: tuple[str, ...] = ("",)
    recorded: Mapping[str, Any] = field(default_factory=dict)
    eyes: Path | None = None
    sampler: str | None = None

    @property
    def classes(self) -> bool:
        """Whether the model is asked for a class."""
        return self.name == "emoji"

    @property
    def cache(self) -> Path:
        """Where stores and drawn images lie."""
        return CACHE / self.name / (self.sampler or "")

    @cached_property
    def pipe(self) -> Any:
        """The pipeline, ready to sample."""
        pipe = load_pipeline(self.pipeline, trust_remote_code=self.classes)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    @cached_property
    def model(self) -> RealismModel:
        """The judge."""
        return self.judge()

    def distances(self, ends: Images) -> NDArray[np.float64]:
        """Mean local distance to real images."""
        return np.asarray(local_realism(ends, self.model).mean((1, 2)), np.float64)

    def labels(self, seeds: Sequence[int]) -> list[int]:
        """Class of each run: by its seed, as frequent as in the training."""
        from experiments.models.emoji.sample import draw_labels

        return [draw_labels(1, seed, only=self.only)[0] for seed in seeds]

    def call(
        self,
        pipe: Any,
        steps: int,
        seeds: Sequence[int],
        generators: Any,
        listener: Any,
        guidance: float | None = None,
    ) -> Images:
        """Ends of a pipeline of classes."""
        from contextlib import nullcontext

        from asced_recorders.tap.tap import Tap

        with nullcontext() if listener is None else Tap(pipe, listener):
            found = pipe(
                class_labels=self.labels(seeds),
                guidance_scale=self.guidance if guidance is None else guidance,
                num_inference_steps=steps,
                generator=generators,
                output_type="latent",
            ).images
        return np.asarray(found, np.float32)


def seen_by_eye(labels: Path, name: str, count: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which of so many images of a set were called broken or whole for sure, and which broken.

    Parameters
    ----------
    labels : Path
        Written by `experiments.remedies.blind`.
    name : str
        The set.
    count : int
    """
    said = _labels_of(labels, name)
    words = np.array([said.get(run, "unsure") for run in range(count)])
    return words != "unsure", words == "broken"


def _labels_of(path: Path, name: str) -> dict[int, str]:
    """Label of each run of a set that was looked at, at the first look."""
    with path.open(newline="") as file:
        return {
            int(row["run"]): row["label"]
            for row in csv.DictReader(file)
            if row["set"] == name and row["pass"] == "0"
        }


def _fashion() -> Subject:
    truth = "the embedded judge's worst quarter of plain runs"
    return Subject("fashion", "fashion", truth, judge_of, seed=20_000)


def _shapes() -> Subject:
    return Subject(
        "shapes",
        MODELS / "shapes",
        "counting",
        lambda: patch_model(
            shapes.fold(shapes.draw_images(500, seed=2)), name="whitened patches of the data"
        ),
        lambda ends: shapes.judge(shapes.unfold(ends)).broken,
    )


def _emoji() -> Subject:
    folder = MODELS / "emoji"
    if not list(folder.glob("unet/*.safetensors")):
        raise InputError(f"{folder} holds no weights yet: python -m experiments.models.emoji.train")
    from experiments.models.emoji.fetch import PACKED

    with np.load(PACKED) as packed:
        held_out = packed["images"][packed["held_out"]][::2]
    real = np.moveaxis(held_out, -1, 1).astype(np.float32) / 127.5 - 1
    return Subject(
        "emoji",
        folder,
        "labels by eye",
        lambda: patch_model(real, name="whitened patches of held-out emoji"),
        guidance=4.0,
        seed=700_000,
        only=("face", "hand"),
        recorded={
            "fields": ("eps", "x0", "x_init", "checkpoint_sample", "sample", "image"),
            "checkpoints": (8, 12),
            "activations": ("mid_block",),
        },
        eyes=folder / "graded-labels.csv",
    )


SUBJECTS: dict[str, Callable[[], Subject]] = {
    "fashion": _fashion,
    "shapes": _shapes,
    "emoji": _emoji,
}
