"""State how good `fashion` is, and draw 100 of its samples: figures and card for its folder.

    python -m training.describe_fashion

Samples 2,000 runs at DDIM-25 and compares them with real test images in the features of the
judge; as many real training images of even number, which the judge never saw, give the scale.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image

from asced_analysis.realism import (
    features,
    frechet_distance,
    load_embedded,
    local_realism,
    precision_recall,
)
from asced_recorders import record
from asced_stores import open_runs
from training.fashion_mnist import load_fashion_mnist

ROOT = Path(__file__).resolve().parent.parent
MODEL_FOLDER = ROOT / "recorders" / "asced_recorders" / "models" / "fashion"
SEED = 1_000_000  # far from the seeds that anything is calibrated on
STEPS = 25


def figures(images: np.ndarray) -> dict[str, float]:
    """Frechet distance, precision, recall and mean local distance, as the judge sees images."""
    judge = load_embedded("judge")
    vectors = features(images, judge)
    precision, recall = precision_recall(vectors, judge.vectors)
    return {
        "frechet_distance": frechet_distance(vectors, judge.mean, judge.covariance),
        "precision": precision,
        "recall": recall,
        "local_distance": float(local_realism(images, judge).mean()),
    }


def main() -> None:
    """Sample, measure, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "describe.zarr")
    parser.add_argument("--grid", type=Path, default=ROOT / "docs" / "images" / "fashion.png")
    args = parser.parse_args()
    record(
        "fashion",
        args.work,
        runs=args.runs,
        steps=STEPS,
        batch_size=100,
        seed=SEED,
        fields=("sample", "image"),
        overwrite=True,
    )
    ds = open_runs(args.work)
    grid = ds["image"][:100, :, :, 0].values.reshape(5, 20, 32, 32)
    sheet = grid.transpose(0, 2, 1, 3).reshape(5 * 32, 20 * 32)
    args.grid.parent.mkdir(parents=True, exist_ok=True)
    large = Image.fromarray(sheet).resize((sheet.shape[1] * 2, sheet.shape[0] * 2), 0)
    large.save(args.grid, optimize=True)

    rng = np.random.default_rng(SEED)
    real = load_fashion_mnist("train")[0][::2]
    real = real[rng.choice(len(real), args.runs, replace=False)]
    measured = {
        "runs": args.runs,
        "sampler": f"DDIM, {STEPS} steps",
        "judge": load_embedded("judge").name,
        "samples": figures(np.clip(ds["sample"].values, -1, 1)),
        "real_training_images": figures(real),
    }
    training = json.loads((MODEL_FOLDER / "training.json").read_text())
    (MODEL_FOLDER / "README.md").write_text(card(training, measured))
    (MODEL_FOLDER / "quality.json").write_text(json.dumps(measured, indent=2) + "\n")
    print(json.dumps(measured, indent=2))


def card(training: dict, measured: dict) -> str:
    """Write the model card."""
    rows = "\n".join(
        f"| {name.replace('_', ' ')} | {measured['samples'][name]:.3f} | "
        f"{measured['real_training_images'][name]:.3f} |"
        for name in measured["samples"]
    )
    versions = ", ".join(f"{name} {number}" for name, number in training["versions"].items())
    return f"""# fashion

A small DDPM (`UNet2DModel`, {training["parameters"]:,} parameters) for 1x32x32 images in -1..1,
trained on the {training["images"]:,} training images of Fashion-MNIST (MIT licence, Zalando
Research), padded from 28x28. Linear betas, 1000 steps, epsilon prediction, EMA weights. A plain
diffusers folder: `DDIMPipeline.from_pretrained(...)` loads it. Some of its garments break; that is
what it is for.

Trained by `training/train_fashion.py`: {training["steps"]:,} steps of batch
{training["batch_size"]}, mean loss of the last 500 steps {training["loss"]:.5f}, seed
{training["seed"]}, {training["seconds"]:,} s on two shared cores, peak learning rate
{training["learning_rate"]}, EMA decay {training["ema"]}; {versions}.

{measured["runs"]:,} samples ({measured["sampler"]}) against real test images, in features of the
classifier `{measured["judge"]}`, beside as many real training images (the Frechet distance is in
this classifier's features: it is not FID and compares with no published figure). Written by
`training/describe_fashion.py`.

| | samples | real images |
|---|---|---|
{rows}
"""


if __name__ == "__main__":
    main()
