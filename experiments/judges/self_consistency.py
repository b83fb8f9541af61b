"""Self-consistency by level, draws and slope, against exact and counted truths and a judge.

    python -m experiments.judges.self_consistency --only grid
    python -m experiments.judges.self_consistency --only shapes --runs 256
    python -m experiments.judges.self_consistency --only fashion --store runs.zarr --runs 384

Truths: points of the grid over 5 standard deviations from every mode (exact; dials .02 and .05);
rules that shapes break (counted); the worst quarter by the embedded judge (`fashion`).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asced_analysis.realism.content import auroc
from asced_analysis.realism.self_consistency import (
    LOG_SNR,
    content_energy,
    content_slope,
    mean_residual,
    self_consistency,
)

DRAWS = (1, 2, 4, 8)
LEVELS = (-2.0, -1.0, LOG_SNR, 0.5, 1.5, 3.0, 5.0)
Row = dict[str, Any]


def figures(residual: NDArray[Any], ends: NDArray[Any], broken: NDArray[np.bool_]) -> Row:
    """AUROC with the slope that the population gives, and without."""
    energy = content_energy(ends)
    slope = content_slope(residual.mean((1, 2)), energy)
    return {
        "auroc": auroc(self_consistency(residual, energy, slope)[1], broken),
        "auroc_without_slope": auroc(self_consistency(residual, energy, 0.0)[1], broken),
        "slope": slope,
        "recovered": float(1 - residual.mean() / ends.var(0).mean()),
        "broken": float(broken.mean()),
        "runs": len(broken),
    }


def on_grid(
    dials: Iterable[float] = (0.02, 0.05),
    points: int = 1500,
    levels: Iterable[float] = LEVELS,
    draws: Iterable[int] = DRAWS,
) -> Iterator[Row]:
    """Every level and number of draws, with the smoothed model's own exact prediction."""
    from experiments.datasets.gaussian_grid import away_from_modes, predicted_noise, sample

    for dial in dials:
        ends, _, _ = sample(points, dial)
        broken = away_from_modes(ends)
        samples = ends.astype(np.float32)[:, :, None, None]
        for log_snr in levels:
            alpha = float(1 / np.sqrt(1 + np.exp(-log_snr)))
            sigma = float(np.sqrt(1 - alpha**2))

            def predict(
                noised: NDArray[Any],
                _: Any,
                alpha: float = alpha,
                sigma: float = sigma,
                dial: float = dial,
            ) -> Any:
                flat = noised[..., 0, 0].astype(np.float64)
                eps = predicted_noise(flat, alpha, sigma, dial)
                return ((flat - sigma * eps) / alpha)[..., None, None]

            for count in draws:
                found = mean_residual(samples, predict, alpha=alpha, sigma=sigma, draws=count)
                yield {
                    "data": f"grid {dial}",
                    "log_snr": log_snr,
                    "draws": count,
                    **figures(found, samples, broken),
                }


def on_pipeline(
    pipe: Any,
    ends: NDArray[np.float32],
    broken: NDArray[np.bool_],
    data: str,
    levels: Iterable[float] = LEVELS,
    draws: Iterable[int] = DRAWS,
) -> Iterator[Row]:
    """The same with an unconditional pipeline."""
    import torch

    from asced_stores.format.noise_levels import eps_and_x0

    kind = str(pipe.scheduler.config.prediction_type)
    abar = pipe.scheduler.alphas_cumprod.numpy()
    snr = np.log(abar / (1 - abar))
    for wanted in levels:
        timestep = int(np.argmin(np.abs(snr - wanted)))
        alpha, sigma = float(np.sqrt(abar[timestep])), float(np.sqrt(1 - abar[timestep]))

        def predict(
            noised: NDArray[Any],
            _: Any,
            timestep: int = timestep,
            alpha: float = alpha,
            sigma: float = sigma,
        ) -> Any:
            out = []
            for begin in range(0, len(noised), 64):
                some = torch.from_numpy(noised[begin : begin + 64])
                with torch.inference_mode():
                    said = pipe.unet(some, timestep, return_dict=False)[0]
                x0 = eps_and_x0(some, said, alpha=alpha, sigma=sigma, prediction_type=kind)[1]
                out.append(x0.numpy())
            return np.concatenate(out)

        for count in draws:
            found = mean_residual(ends, predict, alpha=alpha, sigma=sigma, draws=count)
            yield {"data": data, "log_snr": wanted, "draws": count, **figures(found, ends, broken)}


def main() -> None:
    """Print one JSON line a setting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=["grid", "shapes", "fashion"], required=True)
    parser.add_argument("--store", help="Runs of fashion or shapes.")
    parser.add_argument("--runs", type=int, default=256)
    parser.add_argument("--levels", type=float, nargs="+", default=list(LEVELS))
    parser.add_argument("--draws", type=int, nargs="+", default=list(DRAWS))
    args = parser.parse_args()
    if args.only == "grid":
        for row in on_grid(levels=args.levels, draws=args.draws):
            print(json.dumps(row), flush=True)
        return
    from asced_analysis import open_runs
    from asced_recorders import load_pipeline

    ends = open_runs(args.store)["sample"].values[: args.runs].astype(np.float32)
    if args.only == "fashion":
        from asced_analysis.realism import load_embedded, local_realism

        pipe = load_pipeline("fashion", device="cpu")
        distance = local_realism(ends, load_embedded("judge")).mean((1, 2))
        broken = distance > np.quantile(distance, 0.75)
    else:
        from pathlib import Path

        from experiments.datasets.shapes import judge, unfold

        pipe = load_pipeline(Path(__file__).parents[1] / "models" / "shapes", device="cpu")
        broken = judge(unfold(ends)).broken
    for row in on_pipeline(pipe, ends, broken, args.only, args.levels, args.draws):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
