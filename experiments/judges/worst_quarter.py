"""Fresh runs beyond the limit of the recorded runs' worst quarter: 25 % is right.

    python -m experiments.judges.worst_quarter --model ddpm
    python -m experiments.judges.worst_quarter --model sd
    python -m experiments.judges.worst_quarter --model smooth --runs 200 --seeds 300
    python -m experiments.judges.worst_quarter --store runs.zarr
    python -m experiments.judges.worst_quarter --model ddpm --renoise
    python -m experiments.judges.worst_quarter --model sd --splits 20

A tiny DDPM and a tiny Stable Diffusion of random weights, five seeds each, smooth random images, or
blocks of a recorded store; the mean has a 95 % interval over seeds. Chance alone leaves one seed of
n recorded and n fresh runs a standard error of sqrt(.375 / n): .061 of 100, .031 of 400. `--splits`
divides each recording again and again at random within its prompts, which shows the mechanism apart
from that.
`--renoise` replays every run with its noise renewed everywhere at step 1: the change of local
distance should hold 0, and as many runs should fall into the worst quarter as leave it.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from scipy.ndimage import gaussian_filter

from asced_analysis import open_runs
from asced_analysis.evaluation.intervals import mean_estimate
from asced_analysis.evaluation.judges import AFTER, BEFORE, RealismJudge
from asced_analysis.evaluation.outcome_rates import worst_quarter_limit
from asced_analysis.realism.judges import choose_judge
from experiments.judges.writing import tell


def ddpm() -> Any:
    """A colour DDPM of random weights, 3 x 16 x 16."""
    import torch
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=16,
        layers_per_block=1,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
        add_attention=False,
    ).eval()
    scheduler = DDPMScheduler(clip_sample=False, prediction_type="v_prediction")
    return DDPMPipeline(unet, scheduler)


def stable_diffusion() -> Any:
    """A Stable Diffusion of random weights: latents of 4 x 8 x 8, a prompt of letters."""
    import sys

    import torch

    sys.path.insert(0, str(Path(__file__).parents[2]))
    from tests.recorders.conftest import stable_diffusion as build

    torch.manual_seed(0)
    return build()


def smooth(count: int, seed: int) -> xr.Dataset:
    """Smooth random images, as runs: no model, so that many populations cost little."""
    field = np.random.default_rng(seed).standard_normal((count, 3, 16, 16))
    images = np.clip(3 * gaussian_filter(field, (0, 0, 2, 2)), -1, 1).astype(np.float32)
    coordinates = {"run": np.arange(count)}
    return xr.Dataset({"sample": (("run", "channel", "y", "x"), images)}, coordinates)


def shares(dataset: Any, recorded: int) -> float:
    """Share of the runs behind the first `recorded` that lie beyond the limit of these."""
    before, after = (
        dataset.isel(run=slice(0, recorded)),
        dataset.isel(run=slice(recorded, None)),
    )
    assessor = RealismJudge(choose_judge("patches", before), before)
    was = assessor.assess(before, np.arange(before.sizes["run"]), BEFORE, paired=True).distance
    now = assessor.assess(after, np.arange(after.sizes["run"]), AFTER, paired=False).distance
    return float(np.mean(now > worst_quarter_limit(was)))


def split_again(dataset: Any, splits: int) -> list[float]:
    """Shares after random divisions in two, each prompt halved alike."""
    rng = np.random.default_rng(0)
    prompts = (
        dataset["prompt"].values.astype(str)
        if "prompt" in dataset.coords
        else np.zeros(dataset.sizes["run"], "U1")
    )
    loaded = dataset[[name for name in ("sample", "image") if name in dataset]].load()
    found = []
    for _ in range(splits):
        first, second = [], []
        for prompt in np.unique(prompts):
            own = rng.permutation(np.flatnonzero(prompts == prompt))
            first += own[: len(own) // 2].tolist()
            second += own[len(own) // 2 : len(own) // 2 * 2].tolist()
        found.append(shares(loaded.isel(run=first + second), len(first)))
    return found


def main() -> None:
    """Print one JSON line a seed, and the mean."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=["ddpm", "sd", "smooth"])
    parser.add_argument("--store")
    parser.add_argument("--runs", type=int, default=800, help="Half of them are recorded ones.")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="Number of the first seed.")
    parser.add_argument("--prompts", type=int, default=26, help="Of the Stable Diffusion, to 26.")
    parser.add_argument("--renoise", action="store_true")
    parser.add_argument("--splits", type=int, help="Random divisions of each recording.")
    parser.add_argument("--out", help="File to write (*.jsonl).")
    args = parser.parse_args()
    tell(rows(args), args.out)


def rows(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row a seed, and their mean."""
    found: list[Any] = []
    if args.store:
        every = open_runs(args.store)
        size = every.sizes["run"] // args.seeds
        for seed in range(args.seeds):
            part = every.isel(run=slice(seed * size, (seed + 1) * size))
            if args.splits:
                found.append(float(np.mean(split_again(part, args.splits))))
            else:
                found.append(shares(part, size // 2))
            yield {"seed": seed, "found": found[-1]}
    elif args.model == "smooth":
        seeds = range(args.first, args.first + args.seeds)
        found += [shares(smooth(args.runs, seed), args.runs // 2) for seed in seeds]
    else:
        from asced_recorders import record

        pipe = ddpm() if args.model == "ddpm" else stable_diffusion()
        pipe.set_progress_bar_config(disable=True)
        prompts = (
            None if args.model == "ddpm" else [f"a {chr(97 + i)}" for i in range(args.prompts)]
        )
        for seed in range(args.first, args.first + args.seeds):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "runs.zarr"
                given: dict[str, Any] = {} if prompts is None else {"prompts": prompts}
                record(
                    pipe, path, runs=args.runs, steps=5, batch_size=50, seed=1000 * seed, **given
                )
                if args.renoise:
                    found.append(_renoised(path, pipe, folder))
                elif args.splits:
                    found.append(float(np.mean(split_again(open_runs(path), args.splits))))
                else:
                    found.append(shares(open_runs(path), args.runs // 2))
            yield {"seed": seed, "found": found[-1]}
    if not args.renoise:
        yield {**mean_estimate(np.array(found)).to_dict(), "each": found}


def _renoised(path: Path, pipe: Any, folder: str) -> dict[str, Any]:
    """Evaluate a replay with everything renewed at step 1."""
    from asced_analysis.evaluation import evaluate
    from asced_analysis.replay import replay

    runs = open_runs(path)["run"].values
    side = open_runs(path).sizes["y"]
    masks = {int(run): np.ones((side, side), bool) for run in runs}
    replayed = replay(
        path,
        Path(folder) / "again.zarr",
        masks=masks,
        strategy="renoise",
        where="everywhere",
        step=1,
        pipeline=pipe,
    )
    flagged = evaluate(path, replayed, controls=False).flagged_runs
    return {
        "change": flagged.effect.all.to_dict(),
        "harmed_of_good": flagged.endings.harmed_of_flagged_good.to_dict(),
        "repaired": flagged.endings.repaired.to_dict(),
        "chance": flagged.endings.chance,
        "change_of_share": flagged.endings.worst_quarter.change.to_dict(),
    }


if __name__ == "__main__":
    main()
