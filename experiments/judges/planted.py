"""Breakage that is independent of content, on images whose size varies fivefold: what is learnt.

    python -m experiments.judges.planted --runs 600

Textured discs of 20 to 100 pixels on 16 x 16, each with a texture of its own, so that a larger disc
is further from any other picture; in a third of them 3 x 3 pixels of noise of the texture's
strength, drawn apart from the size. The loop's model smooths; the noise appears in the middle of
sampling. Outcome learning by several teachers, on one half; of the other half, for the teacher's
own outcome and for the learnt score: AUROC against the planted truth, over all and within matched
size, and rank correlation with size.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from asced_analysis import calibrate, open_runs
from asced_analysis.calibration.labelling import choose_teacher
from asced_analysis.compute.source import open_source
from asced_analysis.detection.apply import detect
from asced_analysis.realism import features, local_realism, patch_model
from asced_analysis.realism.content import (
    auroc,
    content_of,
    explained_by,
    matched_auroc,
    neighbour_means,
    rank_correlations,
)
from asced_recorders import Recorder
from experiments.judges.writing import tell

SIDE, STEPS, APPEARS = 16, 12, 4
TEXTURE, NOISE = 0.35, 0.8


def smooth(sample: Any, alpha: float, sigma: float) -> Any:
    """The model: knows smooth textures, not noise."""
    wide = torch.nn.functional.pad(sample / max(alpha, 1e-3), (1, 1, 1, 1), mode="replicate")
    return torch.nn.functional.avg_pool2d(wide, 3, 1).clamp(-1, 1)


def planted(count: int, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_]]:
    """Ends (n, 1, 16, 16), areas and whether they are broken."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    areas, broken = rng.uniform(20, 100, count), rng.random(count) < 1 / 3
    texture = gaussian_filter(rng.standard_normal((count, SIDE, SIDE)), (0, 1, 1))
    bodies = 0.35 + TEXTURE * texture / texture.std()
    images = np.full((count, 1, SIDE, SIDE), -1.0, np.float32)
    for image, body, area, bad in zip(images[:, 0], bodies, areas, broken, strict=True):
        y, x = rng.uniform(6.5, 8.5, 2)
        away = np.hypot(rows - y, columns - x) - np.sqrt(area / np.pi)
        inside = (1 - np.tanh(away)) / 2
        if bad:
            top, left = (
                int(at + shift) for at, shift in zip((y, x), rng.integers(-3, 1, 2), strict=True)
            )
            body[top : top + 3, left : left + 3] += NOISE * rng.choice([-1.0, 1.0], (3, 3))
        image[:] = np.clip(inside * body - (1 - inside), -1, 1)
    return images, areas, broken


def record_runs(path: Path, count: int, seed: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Trajectories that end in these images: smoothed ones first, the square from step 4 on."""
    images, areas, broken = planted(count, seed)
    ends = torch.from_numpy(images)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(ends.shape, generator=generator)
    with Recorder.custom(path, (1, SIDE, SIDE), STEPS) as recorder:
        for step in range(STEPS):
            now, then = 1 - step / STEPS, 1 - (step + 1) / STEPS
            share = min(1.0, max(0.0, (step - APPEARS) / 4))
            x0 = share * ends + (1 - share) * smooth(ends, 1.0, 0.0)
            x0 = x0 + 0.05 * now * torch.randn(ends.shape, generator=generator)
            eps = (x - (1 - now) * x0) / now
            recorder.step(
                sample=x, model_output=eps, alpha=1 - now, sigma=now, prediction_type="epsilon"
            )
            x = (1 - then) * x0 + then * eps
        recorder.end(ends)
    return areas, broken


def rows(runs: int, epochs: int) -> Iterator[dict[str, Any]]:
    """One row a teacher."""
    with tempfile.TemporaryDirectory() as folder:
        known, fresh = Path(folder) / "known.zarr", Path(folder) / "fresh.zarr"
        record_runs(known, runs, 1)
        areas, broken = record_runs(fresh, runs, 2)
        for name, given in {
            "self-consistency": {"network": smooth},
            "self-consistency, as it is": {"network": smooth},
            "patches of the population": {"teacher": "patches"},
            "patches of the population, as it is": {"teacher": "patches"},
        }.items():
            options = {"epochs": epochs}
            if name.endswith("as it is"):
                options["within_content"] = False
            learnt = calibrate(
                known,
                method="outcome",
                false_alarm_rate=0.1,
                window=(0.2, 0.6),
                outcome=options,
                **given,
            )
            score = detect(open_runs(fresh), learnt)["score"].values
            taught = learnt.teacher
            assert taught is not None
            source = open_source(str(fresh))
            labeller = choose_teacher(source, np.ones(runs, bool), **given)
            outcome = labeller.outcomes(source, np.arange(runs), (SIDE, SIDE))[1]
            row = {
                "teacher": name,
                "outcome": agreement(outcome, broken, areas),
                "learnt": agreement(score, broken, areas),
                "explained": taught["content"]["explained"],
            }
            yield row


def left_over(runs: int) -> Iterator[dict[str, Any]]:
    """What is left of the population-patch outcome, by what counts as content.

    Nearest others in whitened patches see the noise as well, and take it off with the content.
    """
    images, areas, broken = planted(runs, 2)
    model = patch_model(images)
    outcome = np.log(local_realism(images, model).mean((1, 2)))
    named = content_of(images)
    nearest = {"nearest in patches": neighbour_means(outcome, features(images, model))}
    for name, content in (
        ("nothing", {}),
        ("area, brightness, contrast", named),
        ("and nearest in patches", {**named, **nearest}),
    ):
        share, predicted = explained_by(outcome, content)
        rest = agreement(outcome - predicted, broken, areas)
        yield {"taken off patches of the population": name, "explained": share, "left": rest}


def agreement(
    score: NDArray[Any], broken: NDArray[np.bool_], areas: NDArray[Any]
) -> dict[str, float | None]:
    """Figures of one score."""
    return {
        "auroc": auroc(score, broken),
        "auroc_matched": matched_auroc(score, broken, {"size": areas}),
        "correlation_with_size": rank_correlations(score, {"size": areas})["size"],
    }


def main() -> None:
    """Print one JSON line a teacher."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=600)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--out", help="File to write (*.jsonl).")
    args = parser.parse_args()
    tell(chain(rows(args.runs, args.epochs), left_over(args.runs)), args.out)


if __name__ == "__main__":
    main()
