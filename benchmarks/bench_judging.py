"""What judging costs: one image of 3 x 64 x 64 against 1,000 references by patches, on one core.

*Raw* is the nearest of the same features by SciPy's `cdist`, features given. Each ratio is the
median of interleaved pairs with a bootstrap interval of 95 %; CPU seconds stand beside it. Goal: 3
ms an image. Run ``python benchmarks/bench_judging.py`` (or ``--pairs 5``, ``--json``), with
``OMP_NUM_THREADS=1`` for one core.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
from pairs import compare

REFERENCES, SHAPE = 1000, (3, 64, 64)
GOAL_S = 0.003
TIMES = 5  # a work of a few milliseconds is timed as so many


def rows(pairs: int) -> list[dict[str, Any]]:
    """One image at a time, and 64 at once."""
    from scipy.ndimage import gaussian_filter
    from scipy.spatial.distance import cdist

    from asced_analysis.realism import local_realism, patch_model
    from asced_analysis.realism.claims import Reference

    rng = np.random.default_rng(0)
    drawn = gaussian_filter(rng.standard_normal((REFERENCES + 64, *SHAPE)), (0, 0, 2, 2))
    images = np.clip(3 * drawn, -1, 1).astype(np.float32)
    model = patch_model(images[:REFERENCES], of=Reference(images=REFERENCES))
    found = []
    for name, count in (("one image at a time", 1), ("64 images at once", 64)):
        some = images[REFERENCES : REFERENCES + count]
        local, _ = model.encode(some)
        flat = local.reshape(-1, local.shape[-1])
        times = TIMES if count == 1 else 1

        def raw(flat: Any = flat, times: int = times) -> None:
            for _ in range(times):
                cdist(flat[:256], model.patches).min(1)

        def ours(some: Any = some, times: int = times) -> None:
            for _ in range(times):
                local_realism(some, model)

        measured = compare(raw, ours, pairs)
        cpu = float(np.median(measured.seconds[:, 1, 1])) / times / count
        row = measured.row(f"judge by patches, {name}", ms_an_image=round(1000 * cpu, 2), goal=3.0)
        found.append(row)
    return found


def main() -> None:
    """Run the rows and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = rows(arguments.pairs)
    if arguments.json:
        print(json.dumps(found))
        return
    for row in found:
        print(
            f"{row['row']:<40} {row['ms_an_image']} ms of CPU an image, goal {row['goal']}; "
            f"{row['pairs']} pairs"
        )


if __name__ == "__main__":
    main()
