"""A process that was thought dead writes on: each batch is recorded once, and nobody stops."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asced_recorders import record
from asced_stores import TrajectoryStore, open_runs
from asced_stores.errors import BatchTakenError
from asced_stores.writing.writer import BatchWriter


def test_batches_that_another_committed_are_left_to_it(
    make_tiny: Callable[..., Any],
    tiny_pipeline: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "runs.zarr"
    same = make_tiny("DDIM", 1, timestep_spacing="trailing")
    write = BatchWriter.write_batch
    mine: list[int] = []
    theirs: list[Any] = []

    def race(self: BatchWriter, batch: int, *arguments: Any, **options: Any) -> Any:
        mine.append(batch)
        if batch == 1:  # the other one was faster by a moment, and has batch 2 already
            monkeypatch.setattr(BatchWriter, "write_batch", write)
            record(
                same,
                out,
                runs=10,
                steps=4,
                batch_size=2,
                resume=True,
                progress=lambda event: theirs.append(event.get("batch")),
            )
            monkeypatch.setattr(BatchWriter, "write_batch", race)
        return write(self, batch, *arguments, **options)

    monkeypatch.setattr(BatchWriter, "write_batch", race)
    record(tiny_pipeline, out, runs=10, steps=4, batch_size=2)
    assert {1, 2, 3, 4} <= set(theirs)
    assert mine[:2] == [0, 1]
    store = TrajectoryStore.open(out)
    assert store.committed_batches() == [0, 1, 2, 3, 4]
    assert store.verify().ok
    again = record(tiny_pipeline, tmp_path / "alone.zarr", runs=10, steps=4, batch_size=2)
    assert (open_runs(store)["eps"].values == open_runs(again)["eps"].values).all()


def test_a_batch_taken_over_and_never_committed_is_said(
    tiny_pipeline: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = BatchWriter.write_batch

    def lost(self: BatchWriter, batch: int, *arguments: Any, **options: Any) -> Any:
        if batch == 1:
            raise BatchTakenError("batch 1 was taken over by another writer")
        return write(self, batch, *arguments, **options)

    monkeypatch.setattr(BatchWriter, "write_batch", lost)
    out = tmp_path / "runs.zarr"
    with pytest.raises(BatchTakenError, match=r"batches \[1\] .* --resume"):
        record(tiny_pipeline, out, runs=6, steps=4, batch_size=2)
    assert TrajectoryStore.open(out).committed_batches() == [0, 2]
