"""Does the judge know damage? Real images against samples, and damage done to real images."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import roc_auc_score

from asced_analysis.evaluation.intervals import mean_estimate
from asced_analysis.realism import load_embedded, local_realism, upsample
from experiments.datasets.committee import HALF, garments
from experiments.datasets.sets import Split, mean_distance
from experiments.detection.ranking import image_auroc, interval

COUNT = 1000


def damaged(
    images: NDArray[np.float32], kind: str, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Real images with a square of 6 to 10 pixels damaged inside, and the squares."""
    out, masks = images.copy(), np.zeros((len(images), *images.shape[2:]), np.bool_)
    for i in range(len(images)):
        size = int(rng.integers(6, 11))
        top, left = rng.integers(8, 24 - size + 1, 2)
        box = (slice(top, top + size), slice(left, left + size))
        part = images[i][(slice(None), *box)]
        if kind == "noise":
            part = np.clip(part + 0.5 * rng.standard_normal(part.shape), -1, 1)
        elif kind == "upside down":
            part = part[:, ::-1]
        elif kind == "hole":
            part = np.full_like(part, -1.0)
        else:  # a piece of another image
            part = images[(i + 1) % len(images)][(slice(None), *box)]
        out[i][(slice(None), *box)] = part
        masks[i][box] = True
    return out, masks


def check_judge(report: Split) -> dict[str, Any]:
    """AUROC of sample against real, of damaged against intact, of damaged places; agreement.

    `beyond_real`: share of samples less real than 90, 95 and 99 % of real images are; what exceeds
    10, 5 and 1 % is damage that the model does, the rest is content that is rare among real images
    too. `real_beyond_worst_quarter`: share of real images that the worst quarter's limit would call
    broken.
    """
    result: dict[str, Any] = {"images": COUNT}
    sampled = mean_distance(report.distance("judge"))
    for name in ("judge", "teacher"):
        model = load_embedded(name)
        real = garments(1 - HALF[name], COUNT)
        before = local_realism(real, model)
        limits = {q: float(np.quantile(mean_distance(before), q)) for q in (0.9, 0.95, 0.99)}
        ends = mean_distance(report.distance(name))
        values = np.concatenate([mean_distance(before), ends])
        labels = np.arange(len(values)) >= len(real)
        row: dict[str, Any] = {
            "sample_against_real": image_auroc(values, labels),
            "sample_against_real_interval": interval(
                lambda i, v=values, la=labels: image_auroc(v[i], la[i]), len(values)
            ),
            "beyond_real": {
                f"{q:g}": mean_estimate((ends > limit).astype(float)).to_dict()
                for q, limit in limits.items()
            },
            "real_beyond_worst_quarter": float(
                (mean_distance(before) > np.quantile(ends, 0.75)).mean()
            ),
        }
        for kind in ("noise", "upside down", "hole", "piece of another"):
            broken, masks = damaged(real, kind, np.random.default_rng(0))
            after = local_realism(broken, model)
            differ = np.abs(broken - real).max((1, 2, 3)) > 0.5
            row[kind] = {
                "images": int(differ.sum()),
                "worse_than_intact": float(
                    (mean_distance(after) > mean_distance(before))[differ].mean()
                ),
                "image_auroc": image_auroc(
                    np.concatenate([mean_distance(before)[differ], mean_distance(after)[differ]]),
                    np.arange(2 * int(differ.sum())) >= differ.sum(),
                ),
                "place_auroc": float(
                    roc_auc_score(
                        masks[differ].ravel(), upsample(after[differ], masks.shape[1:]).ravel()
                    )
                ),
            }
        result[name] = row
    other = mean_distance(report.distance("teacher"))
    result["rank_correlation_of_judge_and_teacher"] = float(
        stats.spearmanr(sampled, other).statistic
    )
    bad = [v > np.quantile(v, 0.75) for v in (sampled, other)]
    result["shared_worst_quarter"] = float((bad[0] & bad[1]).sum() / bad[0].sum())
    return result
