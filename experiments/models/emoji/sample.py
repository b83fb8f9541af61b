"""Draw a sheet of samples to look at.

``python -m experiments.models.emoji.sample build/emoji/sheet.png --guidance 2`` draws 100 images,
each class as often as in the training.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from experiments.models.emoji.network import FOLDER


def load(folder: Path = FOLDER) -> Any:
    """The pipeline, in float32, by diffusers alone."""
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw_labels(
    count: int, seed: int, folder: Path = FOLDER, only: Sequence[str] = ("",)
) -> list[int]:
    """Classes at random, as frequent as in the training; `only` those whose name holds a word."""
    classes = json.loads((folder / "classes.json").read_text())
    wanted = [any(word in one["name"] for word in only) for one in classes]
    shares = np.array([one["share"] for one in classes]) * wanted
    return [
        int(label)
        for label in np.random.default_rng(seed).choice(len(shares), count, p=shares / shares.sum())
    ]


def main() -> None:
    """Write one PNG."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--columns", type=int, default=10)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    pipe = load(arguments.folder)
    labels = draw_labels(arguments.count, arguments.seed, arguments.folder)
    drawn = []
    for start in range(0, arguments.count, 25):
        chosen = labels[start : start + 25]
        seeds = range(arguments.seed + start, arguments.seed + start + len(chosen))
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        output = pipe(
            class_labels=chosen,
            guidance_scale=arguments.guidance,
            num_inference_steps=arguments.steps,
            generator=generators,
        )
        drawn += output.images
    rows = -(-len(drawn) // arguments.columns)
    sheet = Image.new("RGB", (arguments.columns * 66, rows * 66), "grey")
    for number, image in enumerate(drawn):
        row, column = divmod(number, arguments.columns)
        sheet.paste(image, (column * 66 + 1, row * 66 + 1))
    sheet.save(arguments.out)


if __name__ == "__main__":
    main()
