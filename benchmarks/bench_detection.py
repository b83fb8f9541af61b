"""What detection costs, as ratios: against plain SciPy offline, against bare sampling in the loop.

Rows: `released` and `calibrated` (streaming) against the released detector written with SciPy, one
image of 3 x 256 x 256 over 12 frames at a time; detection and correction of `fashion` against bare
sampling, the thresholds file read once beforehand; the learnt detector's verdict, once a run,
against one evaluation of `fashion`. Each ratio is the median of interleaved pairs with a bootstrap
interval of 95 %, CPU seconds beside it. Run ``python benchmarks/bench_detection.py`` (or ``--pairs
5``, ``--json``).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from pairs import compare

FRAMES, CHANNELS, SIDE = 12, 3, 256
DISTINCT = 8  # images drawn; larger batches repeat them
STEPS = 25
GOALS = {
    "released, times faster than SciPy": 5.0,
    "calibrated, times faster than SciPy": 20.0,
    "fashion with detection and correction": 1.03,
    "fashion with a learnt detector": 1.03,
    "the learnt verdict over one evaluation": 0.01,
    "the same for latents, over a UNet of 860 M": 0.01,
}
LATENT = (4, 64, 64)
TEXT = (77, 768)


def plain_scipy(x0: Any) -> Any:
    """The released detector, one image at a time (method.md section 3 with SciPy's functions)."""
    from scipy import ndimage

    frames = np.clip((x0 + np.float32(1)) * np.float32(127.5), 0, 255).astype(np.uint8)
    frames = np.moveaxis(frames, 1, -1).astype(np.float32)
    union = np.zeros(x0.shape[-2:], dtype=bool)
    for previous, current in pairwise(frames):
        change = ndimage.gaussian_filter(np.abs(current - previous), 2.0)
        median = np.median(change)
        mad = np.median(np.abs(change - median))
        union |= change.max(axis=-1) > median + 3.0 * 1.4826 * mad
    labels, count = ndimage.label(union)
    area = np.bincount(labels.ravel(), minlength=count + 1)
    keep = (area > 100) & (area < 10000)
    wide = np.zeros(count + 1, dtype=bool)
    wide[labels[ndimage.binary_erosion(union, np.ones((5, 5)))]] = True
    keep &= wide
    keep[0] = False
    return keep[labels]


def pictures(count: int) -> Any:
    """Predicted x0 that converge, with an episode in a region; (run, step, channel, y, x)."""
    from scipy import ndimage

    rng = np.random.default_rng(0)
    final = ndimage.gaussian_filter(rng.normal(size=(count, 1, CHANNELS, SIDE, SIDE)), 6) * 8
    noise = rng.normal(size=(count, FRAMES, CHANNELS, SIDE, SIDE))
    fade = np.linspace(0.5, 0.02, FRAMES)[:, None, None, None]
    x0 = final + ndimage.gaussian_filter(noise, (0, 0, 0, 2, 2)) * fade * 4
    x0[:, FRAMES // 2, :, 60:110, 80:140] += 0.8
    return x0.astype(np.float32)


def batch(count: int) -> Any:
    """As many pictures, some of them repeated."""
    few = pictures(min(count, DISTINCT))
    return np.resize(few, (count, *few.shape[1:]))


def synthetic_thresholds() -> tuple[Any, dict[str, Any]]:
    """Thresholds of the variant `calibrated` whose grid spans twelve steps, and the sampler."""
    from asced_analysis.calibration.fitting import UNCALIBRATED, default_parameters
    from asced_analysis.thresholds.document import Correction, Levels, Thresholds, Window
    from asced_analysis.thresholds.registries import VARIANTS

    log_snr = np.linspace(-6.0, 3.0, FRAMES).tolist()
    parameters, cleanup = default_parameters(VARIANTS.get("calibrated"), {})
    cells = (0.0,) * (FRAMES - 1)
    thresholds = Thresholds(
        "calibrated",
        parameters,
        Levels(tuple(log_snr), tuple(-3.0 for _ in cells), tuple(0.5 for _ in cells), 4.0),
        Window((log_snr[0], log_snr[-1]), (0.1, 0.5), (0, FRAMES - 1), FRAMES),
        cleanup,
        Correction("ttc", 3.0, 0.5),
        UNCALIBRATED,
        {"sample_shape": [CHANNELS, SIDE, SIDE]},
    )
    return thresholds, {"alpha": (*cells, 1.0), "sigma": (*cells, 1.0), "log_snr": log_snr}


def offline_rows(pairs: int, runs: int) -> list[dict[str, Any]]:
    """Offline detection against SciPy, on the same images."""
    from asced_analysis.detection import released
    from asced_analysis.detection.streaming import make_detector

    x0 = batch(runs)
    few = x0[:DISTINCT]
    agree = np.mean(released.artifact_mask(few) == np.stack([plain_scipy(run) for run in few]))
    if agree < 0.9999:
        raise RuntimeError(f"masks agree in {agree:.4%} only; the comparison means nothing")
    thresholds, sampler = synthetic_thresholds()
    detector = make_detector(thresholds, **sampler)

    def streaming() -> None:
        for run in few:  # one image at a time, as its frames come out of the sampler
            state = detector.start((1, CHANNELS, SIDE, SIDE))
            for step in range(FRAMES):
                state = detector.update(state, step, x0=run[step][None])
            detector.result(state)

    def scipy(some: Any) -> None:
        for run in some:
            plain_scipy(run)

    first, second = list(GOALS)[:2]
    found = compare(lambda: scipy(x0), lambda: released.artifact_mask(x0), pairs)
    streamed = compare(lambda: scipy(few), streaming, pairs)
    return [
        found.row(first, faster=True, goal=GOALS[first]),
        streamed.row(second, faster=True, goal=GOALS[second]),
    ]


def loop_rows(pairs: int, runs: int) -> list[dict[str, Any]]:
    """Sampling `fashion` with a corrector attached, against bare sampling."""
    import torch

    from asced_analysis.calibration import calibrate
    from asced_analysis.correction import Corrector
    from asced_recorders import load_pipeline, record
    from asced_recorders.pipelines.sampling import (
        initial_noise,
        run_generators,
        sample_unconditional,
    )

    torch.set_num_threads(1)
    pipe = load_pipeline("fashion", device="cpu")

    def sample(listener: Any = None) -> None:
        pipe.scheduler.set_timesteps(STEPS)
        generators = run_generators(list(range(runs)))
        sample_unconditional(
            pipe,
            x_init=initial_noise(pipe, generators),
            steps=STEPS,
            generators=generators,
            listener=listener,
        )

    found = []
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "runs.zarr"
        record(pipe, store, runs=128, steps=STEPS, batch_size=32)
        learnt = {"method": "outcome", "pipeline": pipe, "outcome": {"epochs": 2}}
        for name, options in (
            ("fashion with detection and correction", {}),
            ("fashion with a learnt detector", learnt),
        ):
            path = Path(folder) / f"{len(found)}.json"
            calibrate(store, false_alarm_rate=0.1, **options).save(path)
            corrector = Corrector.from_file(path)

            def corrected(corrector: Corrector = corrector) -> None:
                corrector.report.clear()
                sample(corrector)

            found.append(compare(sample, corrected, pairs).row(name, goal=GOALS[name]))
        found.append(verdict_row(list(GOALS)[4], pipe.unet, store, Path(folder) / "1.json", pairs))
    return found


def latent_row(pairs: int) -> dict[str, Any]:
    """The verdict on latents, against a network of Stable Diffusion 1.5's shape, random weights.

    What is learnt from is recorded with a tiny network: the verdict's cost depends on the shape of
    the sample alone.
    """
    import torch
    from diffusers import DDIMPipeline, DDIMScheduler, UNet2DConditionModel, UNet2DModel

    from asced_analysis.calibration import calibrate
    from asced_recorders import record

    torch.manual_seed(0)
    channels, side, _ = LATENT
    tiny = UNet2DModel(
        sample_size=side,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=(8, 8),
        layers_per_block=1,
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
        norm_num_groups=4,
    )
    pipe = DDIMPipeline(tiny, DDIMScheduler(clip_sample=False))
    large = UNet2DConditionModel(cross_attention_dim=TEXT[1]).eval()
    text = torch.randn(1, *TEXT)
    with tempfile.TemporaryDirectory() as folder:
        store, path = Path(folder) / "runs.zarr", Path(folder) / "learnt.json"
        record(pipe, store, runs=128, steps=STEPS, batch_size=16)
        teaching = {"method": "outcome", "pipeline": pipe, "outcome": {"epochs": 1}}
        calibrate(store, false_alarm_rate=0.1, **teaching).save(path)
        return verdict_row(
            list(GOALS)[5], lambda x, t: large(x, t, text), store, path, pairs, runs=1
        )


def verdict_row(
    name: str, network: Any, store: Path, path: Path, pairs: int, *, runs: int | None = None
) -> dict[str, Any]:
    """What the learnt detector does once a run, against one evaluation of the model."""
    import torch

    from asced_analysis.compute.source import open_source
    from asced_analysis.detection.scoring import detector_for
    from asced_analysis.thresholds.document import Thresholds

    source = open_source(store)
    detector = detector_for(source, Thresholds.load(path))
    some = next(source.batches(("eps", "x0")))
    arrays = {n: torch.from_numpy(values[:runs]).float() for n, values in some.arrays.items()}
    state = detector.start(tuple(arrays["x0"][:, 0].shape))
    for step in range(detector.last_step + 1):
        given = {n: values[:, step] for n, values in arrays.items()}
        state = detector.update(state, step, **given)
    samples = torch.randn_like(arrays["x0"][:, 0])

    @torch.inference_mode()
    def evaluate() -> None:
        network(samples, 500)

    @torch.inference_mode()
    def decide() -> None:
        detector.result(state)

    return compare(evaluate, decide, pairs).row(name, goal=GOALS[name])


def rows(pairs: int, images: int, runs: int) -> list[dict[str, Any]]:
    """All rows."""
    return [*offline_rows(pairs, images), *loop_rows(pairs, runs), latent_row(min(pairs, 5))]


def main() -> None:
    """Run the rows and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--images", type=int, default=64, help="Images a pair, offline.")
    parser.add_argument("--runs", type=int, default=32, help="Runs a batch, in the loop.")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", choices=["offline", "loop", "latent"])
    arguments = parser.parse_args()
    found: list[dict[str, Any]] = []
    if arguments.only in (None, "offline"):
        found += offline_rows(arguments.pairs, arguments.images)
    if arguments.only in (None, "loop"):
        found += loop_rows(arguments.pairs, arguments.runs)
    if arguments.only in (None, "latent"):
        found.append(latent_row(min(arguments.pairs, 5)))
    if arguments.json:
        print(json.dumps(found))
        return
    for row in found:
        low, high = row["interval"]
        print(
            f"{row['row']:<40} {row['ratio']:.3f} ({low:.3f} to {high:.3f}), goal {row['goal']}; "
            f"CPU {row['cpu_ratio']:.3f}, {row['cpu_s']} s against {row['plain_cpu_s']} s, "
            f"{row['pairs']} pairs"
        )


if __name__ == "__main__":
    main()
