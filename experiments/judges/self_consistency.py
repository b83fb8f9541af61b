"""Self-consistency by level, draws and slope, against exact and counted truths and a judge.

    python -m experiments.judges.self_consistency --only grid
    python -m experiments.judges.self_consistency --only latents
    python -m experiments.judges.self_consistency --only emoji --store emoji.zarr --runs 60
    python -m experiments.judges.self_consistency --only shapes --store shapes.zarr --runs 128
    python -m experiments.judges.self_consistency --only fashion --store runs.zarr --runs 384

Truths: points of the grid over 5 standard deviations from every mode (exact; dials .02 and .05);
rules that shapes break (counted); planted pieces of other patterns (latents under guidance) and of
other pictures (emoji, pretrained); the worst quarter by the embedded judge (`fashion`). The last
line of each says what a level that was chosen on one half of the runs gives on the other half.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from asced_analysis.realism.content import auroc
from asced_analysis.realism.self_consistency import (
    LOG_SNR,
    content_energy,
    content_slope,
    level_for,
    level_step,
    mean_residual,
    self_consistency,
)
from experiments.judges.writing import tell

DRAWS = (1, 2, 4, 8)
KINDS = ("grid", "latents", "emoji", "shapes", "fashion")
LEVELS = (-2.0, -1.0, LOG_SNR, 0.5, 1.5, 3.0, 5.0)
Row = dict[str, Any]


def figures(residual: NDArray[Any], ends: NDArray[Any], broken: NDArray[np.bool_]) -> Row:
    """AUROC with the slope that the population gives, and without; and of each half of the runs."""
    energy = content_energy(ends)
    slope = content_slope(residual.mean((1, 2)), energy)
    score = self_consistency(residual, energy, slope)[1]
    row = {
        "auroc": auroc(score, broken),
        "auroc_without_slope": auroc(self_consistency(residual, energy, 0.0)[1], broken),
        "slope": slope,
        "recovered": float(1 - residual.mean() / ends.var(0).mean()),
        "broken": float(broken.mean()),
        "runs": len(broken),
    }
    first = np.random.default_rng(0).permutation(len(broken)) < len(broken) // 2
    for name, half in (("first", first), ("second", ~first)):  # a slope of its own each
        own = content_slope(residual[half].mean((1, 2)), energy[half])
        row[name] = auroc(self_consistency(residual[half], energy[half], own)[1], broken[half])
    return row


def with_choice(rows: Iterable[Row], numbers: int) -> Iterator[Row]:
    """The rows, and at the end what a level chosen on one half of the runs gives on the other.

    Parameters
    ----------
    rows : iterable of dict
        Of one kind of data.
    numbers : int
        In a sample, for the level that the toolkit takes by itself.
    """
    seen = []
    for row in rows:
        seen.append(row)
        yield row
    for data in dict.fromkeys(row["data"] for row in seen):
        own = [row for row in seen if row["data"] == data and row["first"] is not None]
        best = max(own, key=lambda row: row["first"])
        usual = min(own, key=lambda row: (abs(row["log_snr"] - level_for(numbers)), -row["draws"]))
        yield {
            "data": data,
            "chosen on the first half": {key: best[key] for key in ("log_snr", "draws", "first")},
            "on the second half": best["second"],
            "nearest to the toolkit's own": {key: usual[key] for key in ("log_snr", "draws")},
            "its second half": usual["second"],
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


def on_latents(
    runs: int = 400,
    guidance: float = 3.0,
    levels: Iterable[float] = LEVELS,
    draws: Iterable[int] = DRAWS,
) -> Iterator[Row]:
    """Latents of 4 x 8 x 8 under guidance, with an exact conditional prediction.

    Two classes of eight smooth patterns each; the guided model extrapolates from all sixteen. Ends
    are patterns of the run's class with a smooth variation; in a third of them 3 x 3 places come
    from another pattern of the same class.
    """
    rng = np.random.default_rng(0)
    shape = (4, 8, 8)
    patterns = gaussian_filter(rng.standard_normal((16, *shape)), (0, 0, 1.5, 1.5))
    patterns /= patterns.std()
    which, broken = rng.integers(0, 16, runs), rng.random(runs) < 1 / 3
    varied = gaussian_filter(rng.standard_normal((runs, *shape)), (0, 0, 1.5, 1.5))
    spread = 0.3
    ends = patterns[which] + spread * varied / varied.std()
    for run in np.flatnonzero(broken):
        fellow = rng.choice([k for k in range(16) if k // 8 == which[run] // 8 and k != which[run]])
        top, left = rng.integers(0, 6, 2)
        place = (slice(None), slice(top, top + 3), slice(left, left + 3))
        ends[run][place] = patterns[fellow][place]
    ends = ends.astype(np.float32)
    labels = which // 8
    flat = patterns.reshape(16, -1)

    def mixture(noised: NDArray[Any], alpha: float, sigma: float, allowed: Any) -> Any:
        """Posterior mean of x0 under these patterns, each with a variance of its own."""
        total = (alpha * spread) ** 2 + sigma**2
        away = noised[:, None] - alpha * flat
        exponent = -0.5 * (away**2).sum(-1) / total
        exponent = np.where(allowed, exponent, -np.inf)
        weight = np.exp(exponent - exponent.max(1, keepdims=True))
        weight /= weight.sum(1, keepdims=True)
        each = flat + alpha * spread**2 / total * away
        return (weight[..., None] * each).sum(1)

    for log_snr in levels:
        alpha = float(1 / np.sqrt(1 + np.exp(-log_snr)))
        sigma = float(np.sqrt(1 - alpha**2))

        def predict(
            noised: NDArray[Any], _: Any, alpha: float = alpha, sigma: float = sigma
        ) -> Any:
            x = noised.reshape(runs, -1).astype(np.float64)
            own = np.arange(16)[None] // 8 == labels[:, None]
            conditional = mixture(x, alpha, sigma, own)
            free = mixture(x, alpha, sigma, np.ones((runs, 16), np.bool_))
            return (free + guidance * (conditional - free)).reshape(runs, *shape)

        for count in draws:
            found = mean_residual(ends, predict, alpha=alpha, sigma=sigma, draws=count)
            yield {
                "data": f"latents, guidance {guidance:g}",
                "log_snr": log_snr,
                "draws": count,
                **figures(found, ends, broken),
            }


PIECE = 10  # pixels a side


def on_emoji(
    store: str, runs: int, levels: Iterable[float] = LEVELS, draws: Iterable[int] = DRAWS
) -> Iterator[Row]:
    """Recorded emoji, in half of them a square of another one, asked as they were sampled."""
    from pathlib import Path

    from asced_analysis import open_runs
    from asced_analysis.replay.recorded_network import recorded_network
    from asced_recorders import load_pipeline

    dataset = open_runs(store).isel(run=slice(0, runs))
    ends = dataset["sample"].values.astype(np.float32)
    pipe = load_pipeline(Path(__file__).parents[1] / "models" / "emoji", trust_remote_code=True)
    rng = np.random.default_rng(1)
    broken = rng.permutation(len(ends)) < len(ends) // 2
    whole = ends.copy()
    for run in np.flatnonzero(broken):
        other = (run + rng.integers(1, len(ends))) % len(ends)
        (y, x), (top, left) = rng.integers(20, 36, (2, 2))
        piece = whole[other, :, top : top + PIECE, left : left + PIECE]
        ends[run, :, y : y + PIECE, x : x + PIECE] = piece
    numbers = dataset["run"].values
    for wanted in levels:
        step = level_step(dataset["log_snr"].values.tolist(), wanted)
        ask = recorded_network(store, pipe, step)
        for count in draws:
            found = mean_residual(
                ends,
                lambda noised, which, ask=ask: ask(noised, numbers[which]),
                alpha=float(dataset["alpha"][step]),
                sigma=float(dataset["sigma"][step]),
                draws=count,
            )
            row = {"data": "emoji", "log_snr": float(dataset["log_snr"][step]), "draws": count}
            yield {**row, **figures(found, ends, broken)}


def main() -> None:
    """Print one JSON line a setting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=KINDS, required=True)
    parser.add_argument("--store", help="Runs of fashion, shapes or emoji.")
    parser.add_argument("--runs", type=int, default=256)
    parser.add_argument("--levels", type=float, nargs="+", default=list(LEVELS))
    parser.add_argument("--draws", type=int, nargs="+", default=list(DRAWS))
    parser.add_argument("--out", help="File to write (*.jsonl).")
    args = parser.parse_args()
    if args.only == "grid":
        rows = on_grid(levels=args.levels, draws=args.draws)
        tell(with_choice(rows, 2), args.out)
        return
    if args.only == "latents":
        tell(with_choice(on_latents(levels=args.levels, draws=args.draws), 256), args.out)
        return
    if args.only == "emoji":
        rows = on_emoji(args.store, args.runs, args.levels, args.draws)
        tell(with_choice(rows, 3 * 64 * 64), args.out)
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
    rows = on_pipeline(pipe, ends, broken, args.only, args.levels, args.draws)
    tell(with_choice(rows, ends[0].size), args.out)


if __name__ == "__main__":
    main()
