"""What recording costs: the tap alone, and everything, against bare sampling of the same batches.

Pairs are interleaved and their order alternates, so that a busy machine burdens both sides alike.
Given are the median of the pairs' ratios with a bootstrap interval, and CPU seconds, which include
the writer's threads.

    python benchmarks/bench_recording.py --pairs 30
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from pairs import compare, timed


def run(
    pipeline: Any, pairs: int, steps: int, batch_size: int, folder: Path, shape: Any = None
) -> dict[str, Any]:
    """Both comparisons for one pipeline."""
    from asced_recorders.pipelines.loading import load_pipeline
    from asced_recorders.pipelines.options import RecordOptions
    from asced_recorders.pipelines.sampling import initial_noise, sample_unconditional
    from asced_recorders.pipelines.sources import UnconditionalSource
    from asced_recorders.tap.tap import TapListener
    from asced_recorders.writing.capture import Capture
    from asced_recorders.writing.session import Session

    pipe = load_pipeline(pipeline) if isinstance(pipeline, str) else pipeline
    pipe.scheduler.set_timesteps(steps)
    x_init = initial_noise(pipe, range(batch_size))
    options = RecordOptions(runs=1, steps=steps, checkpoints=(steps // 2,))
    source = UnconditionalSource(pipe, "bench", options)
    session = Session(str(folder / "bench.zarr"))
    session.ensure(source.known_spec(), batch_size)
    capture = Capture(session.background.take, settings=options, check=session.background.check)
    batches = session.pending(batch_size)

    def bare() -> None:
        sample_unconditional(pipe, x_init=x_init, steps=steps)

    def tapped() -> None:
        sample_unconditional(pipe, x_init=x_init, steps=steps, listener=TapListener())

    def recorded() -> None:
        sample_unconditional(pipe, x_init=x_init, steps=steps, listener=capture)
        batch = next(batches)
        runs = range(batch * batch_size, (batch + 1) * batch_size)
        session.submit(batch, capture.release(), runs, {"seed": list(range(batch_size))}, images())
        session.background.drain()  # the writing is counted, though in use it overlaps

    def images() -> Any:
        from asced_recorders.pipelines.decoding import has_image, to_image

        end = capture.end
        assert end is not None
        return to_image(pipe, end) if has_image(pipe, tuple(end.shape[1:])) else None

    found: dict[str, Any] = {
        "steps": steps,
        "batch_size": batch_size,
        "shape": list(x_init.shape[1:]),
        "device": str(x_init.device),
    }
    for name, loaded in (("tap", tapped), ("recording", recorded)):
        found[name] = compare(bare, loaded, pairs).row(name)
        print(json.dumps({name: found[name]}), file=sys.stderr, flush=True)
    session.close()
    return found


class Silent:
    """A network that costs nothing: what is left is the cost of the loop and of recording."""

    def __init__(self, unet: Any) -> None:
        self.config, self.dtype = unet.config, unet.dtype
        self.parameters = unet.parameters

    def __call__(self, sample: Any, *_: Any, **__: Any) -> tuple[Any]:
        """Predict the sample itself."""
        return (sample,)


def direct(pairs: int, steps: int, batch_size: int, folder: Path) -> dict[str, Any]:
    """CPU seconds that tap and recording add to a batch, found with a network that costs nothing.

    On a busy machine this resolves what a comparison against bare sampling cannot.
    """
    from asced_recorders.pipelines.decoding import to_image
    from asced_recorders.pipelines.loading import load_pipeline
    from asced_recorders.pipelines.options import RecordOptions
    from asced_recorders.pipelines.sampling import initial_noise, sample_unconditional
    from asced_recorders.pipelines.sources import UnconditionalSource
    from asced_recorders.tap.tap import TapListener
    from asced_recorders.writing.capture import Capture
    from asced_recorders.writing.session import Session

    pipe = load_pipeline("fashion", device="cpu")
    options = RecordOptions(runs=1, steps=steps, checkpoints=(steps // 2,))
    spec = UnconditionalSource(pipe, "bench", options).known_spec()
    x_init = initial_noise(pipe, range(batch_size))
    model = [timed(lambda: sample_unconditional(pipe, x_init=x_init, steps=2))[1] for _ in range(3)]
    session = Session(str(folder / "direct.zarr"))
    session.ensure(spec, batch_size)
    batches = session.pending(batch_size)
    capture = Capture(session.background.take, settings=options, check=session.background.check)
    silent = type("Pipe", (), {"unet": Silent(pipe.unet), "scheduler": pipe.scheduler})()

    def sample(listener: Any) -> None:
        sample_unconditional(silent, x_init=x_init, steps=steps, listener=listener)

    def recorded() -> None:
        sample(capture)
        assert capture.end is not None
        batch = next(batches)
        runs = range(batch * batch_size, (batch + 1) * batch_size)
        session.submit(batch, capture.release(), runs, {}, to_image(pipe, capture.end))
        session.background.drain()

    bare = np.array([timed(lambda: sample(None)) for _ in range(pairs)])
    tapped = np.array([timed(lambda: sample(TapListener())) for _ in range(pairs)])
    whole = np.array([timed(recorded) for _ in range(pairs)])
    session.close()
    model_seconds = float(np.median(model)) / 2 * steps
    tap = float(np.median(tapped[:, 1]) - np.median(bare[:, 1]))
    recording = float(np.median(whole[:, 1]) - np.median(bare[:, 1]))
    return {
        "steps": steps,
        "batch_size": batch_size,
        "repetitions": pairs,
        "bare_cpu_seconds": round(model_seconds, 3),
        "tap_cpu_seconds": round(tap, 5),
        "tap_percent": round(100 * tap / model_seconds, 3),
        "recording_cpu_seconds": round(recording, 4),
        "recording_percent": round(100 * recording / model_seconds, 2),
    }


def large_unet(size: int, channels: int) -> Any:
    """A UNet of real size with random weights, for a GPU."""
    import diffusers
    import torch

    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        sample_size=size,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=(128, 256, 384, 512),
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    ).eval()
    return diffusers.DDIMPipeline(unet, diffusers.DDIMScheduler(clip_sample=False)).to("cuda")


def memory(folder: Path, runs: tuple[int, ...]) -> dict[str, int]:
    """Peak memory in bytes of recordings of different length, each in a process of its own."""
    import subprocess

    program = (
        "import sys, resource; from asced_recorders import record;"
        "record('fashion', sys.argv[1], runs=int(sys.argv[2]), steps=2, batch_size=16);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)"
    )
    found = {}
    for count in runs:
        command = [sys.executable, "-c", program, str(folder / f"{count}.zarr"), str(count)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found[str(count)] = int(output.split()[-1])
    return found


def main() -> None:
    """Run the bench and print JSON."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--direct", action="store_true", help="CPU seconds without the model.")
    parser.add_argument("--memory", action="store_true", help="Measure peak memory instead.")
    parser.add_argument("--folder", help="On the disk that is to be measured.")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="asced-bench-", dir=options.folder))
    try:
        if options.direct:
            found = direct(options.pairs, options.steps, options.batch_size, folder)
            print(json.dumps({"direct": found}))
            return
        if options.memory:
            print(json.dumps({"peak_bytes_by_runs": memory(folder, (32, 128, 512))}))
            return
        found = run("fashion", options.pairs, options.steps, options.batch_size, folder)
        print(json.dumps({"fashion": found, "threads": torch.get_num_threads()}))
        if torch.accelerator.is_available():
            for size, channels, batch in ((64, 4, 16), (256, 3, 4)):
                shutil.rmtree(folder / "bench.zarr", ignore_errors=True)
                pipe = large_unet(size, channels)
                found = run(pipe, options.pairs, options.steps, batch, folder)
                print(json.dumps({f"{channels}x{size}x{size}": found}))
        else:
            print(json.dumps({"accelerator": "none: its path is not measured"}))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
