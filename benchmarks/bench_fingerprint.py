"""What knowing a model again costs: the hash of all weights, and the look before each call.

The hash is compared with reading the same memory once (a sum of its 64-bit words, by as many
threads as torch has), in interleaved pairs; the look with sampling one batch of the embedded model.

    python benchmarks/bench_fingerprint.py --gigabytes 5
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np


def seconds(work: Callable[[], Any]) -> float:
    """Wall time of one call."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def hashing(gigabytes: float, pairs: int) -> dict[str, Any]:
    """Speed of the hash and of reading, in GB a second, and their ratio."""
    import torch

    from asced_recorders.pipelines.devices import default_device
    from asced_recorders.pipelines.weight_hash import block_hashes

    device = default_device()
    weights = torch.randint(0, 1 << 15, (int(gigabytes * 1e9) // 2,), dtype=torch.int16)
    weights = weights.to(device)

    def read() -> None:
        weights.view(torch.int64).sum().item()

    block_hashes(weights[: 1 << 20])  # compile
    found = np.array(
        [(seconds(lambda: block_hashes(weights)), seconds(read)) for _ in range(pairs)]
    )
    hashed, scanned = gigabytes / np.median(found, axis=0)
    return {
        "device": device,
        "gigabytes": gigabytes,
        "hash_gb_per_s": round(float(hashed), 2),
        "read_gb_per_s": round(float(scanned), 2),
        "hash_to_read": round(float(np.median(found[:, 1] / found[:, 0])), 2),
    }


def looking(steps: int, batch_size: int, pairs: int) -> dict[str, Any]:
    """The look at a model before a call, as a share of sampling one batch."""
    import torch

    from asced_recorders.pipelines.fingerprint import ModelWatch
    from asced_recorders.pipelines.loading import load_pipeline
    from asced_recorders.pipelines.sampling import initial_noise, sample_unconditional

    pipe = load_pipeline("fashion")
    pipe.scheduler.set_timesteps(steps)
    watch, noise = ModelWatch(pipe), initial_noise(pipe, range(batch_size))

    def look() -> None:
        for _ in range(20):
            watch.check()

    def sample() -> None:
        sample_unconditional(pipe, x_init=noise, steps=steps)

    look()
    found = np.array([(seconds(look) / 20, seconds(sample)) for _ in range(pairs)])
    check, sampling = np.median(found, axis=0)
    return {
        "modules": sum(1 for _ in pipe.unet.modules()),
        "threads": torch.get_num_threads(),
        "check_ms": round(1e3 * float(check), 3),
        "sampling_s": round(float(sampling), 3),
        "percent": round(100 * float(np.median(found[:, 0] / found[:, 1])), 3),
    }


def main() -> None:
    """Run the bench and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--batch-size", type=int, default=16)
    options = parser.parse_args()
    found = {
        "hash": hashing(options.gigabytes, options.pairs),
        "look": looking(options.steps, options.batch_size, options.pairs),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
