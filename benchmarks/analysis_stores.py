"""Stores to measure the analysis on, of the shape of the embedded model's runs."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

STEPS, SIDE, BATCH = 25, 32, 50


def make_store(path: Path, runs: int) -> Path:
    """Write a synthetic store of `fashion`'s shape: four different batches, over and over."""
    from asced_stores import TrajectoryStore
    from asced_stores.testing.synthetic import synthetic_batch, synthetic_spec

    spec = synthetic_spec(steps=STEPS, shape=(1, SIDE, SIDE), fields=("eps", "x0"))
    store = TrajectoryStore.create(path, spec, runs=runs, batch_size=BATCH, fsync=False)
    pool = [synthetic_batch(spec, range(b * BATCH, (b + 1) * BATCH)) for b in range(4)]
    with store.writer(0, 1) as writer:
        for batch in writer.pending_batches():
            rows = min(BATCH, runs - batch * BATCH)
            writer.write_batch(batch, {name: a[:rows] for name, a in pool[batch % 4].items()})
    store.seal()
    return path


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options about stores that every bench of the analysis has."""
    parser.add_argument("--quick", action="store_true", help="fewer pairs and runs")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--store", help="a recorded store instead of a synthetic one")
    parser.add_argument("--folder", default=None, help="where the synthetic store is written")


@contextmanager
def chosen_store(options: argparse.Namespace) -> Iterator[Path]:
    """The store that was named, or a synthetic one for as long as it is needed."""
    if options.store:
        yield Path(options.store)
        return
    with TemporaryDirectory(dir=options.folder) as folder:
        yield make_store(Path(folder) / "runs.zarr", 2_000 if options.quick else 10_000)
