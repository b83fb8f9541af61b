"""A trajectory store: creation, opening, and what is done with it."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from asced_stores.backends.opening import open_backend
from asced_stores.errors import InputError, StoreExistsError
from asced_stores.format.layout import ArrayLayout
from asced_stores.format.metadata import (
    FORMAT,
    FORMAT_VERSION,
    MAX_BATCHES,
    RESERVED_ATTRIBUTES,
    encode,
    group_metadata,
    make_room,
    plain_chunk,
    read_metadata,
    run_arrays,
    step_arrays,
)
from asced_stores.format.opened import OpenedStore
from asced_stores.format.spec import TrajectorySpec

if TYPE_CHECKING:
    from asced_stores.format.index import RunIndex, Select
    from asced_stores.maintenance.verifying import VerifyReport
    from asced_stores.writing.writer import BatchWriter

UNPLANNED_BATCHES = 16384
"""Capacity of a store whose number of runs is not known beforehand; absent chunks cost nothing."""

Path = str | os.PathLike[str]


class TrajectoryStore(OpenedStore):
    """Trajectories of many runs, in batches that are either wholly there or not at all.

    Made by `create` or `open`.

    Attributes
    ----------
    path : str
        Where it lies, as it was given.
    spec : TrajectorySpec
        What every run consists of.
    batch_size : int
        Runs in a batch.
    planned_runs : int or None
        How many runs there shall be.

    Examples
    --------
    >>> import numpy as np
    >>> from asced_stores import TrajectorySpec, TrajectoryStore
    >>> spec = TrajectorySpec(
    ...     (1, 8, 8), timestep=[999, 500], alpha=[0.1, 0.7], sigma=[0.99, 0.71], fields=("eps",)
    ... )
    >>> store = TrajectoryStore.create("own.zarr", spec, runs=4, batch_size=4)
    >>> with store.writer() as writer:
    ...     for batch in writer.pending_batches():
    ...         eps = np.zeros((4, 2, 1, 8, 8), np.float16)
    ...         marker = writer.write_batch(batch, {"eps": eps}, scalars={"seed": [0, 1, 2, 3]})
    >>> store.verify().ok
    True
    >>> TrajectoryStore.open("own.zarr").seal().committed_batches()
    [0]
    """

    # --- making and opening ---------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        path: Path,
        spec: TrajectorySpec,
        *,
        runs: int | None = None,
        batch_size: int,
        overwrite: bool = False,
        fsync: bool = True,
        storage_options: Mapping[str, Any] | None = None,
        chunk_bytes: int | None = None,
        slots: int | None = None,
        inner: Mapping[str, tuple[int, ...]] | None = None,
    ) -> TrajectoryStore:
        """Lay out a new, empty store.

        Parameters
        ----------
        path : path or str
            A local path, ``memory://name`` or ``s3://bucket/prefix``.
        spec : TrajectorySpec
            What every run consists of.
        runs : int, optional
            Number of runs planned; where it is not known, capacity is generous.
        batch_size : int
            Runs in a batch, which is what one writer commits at once.
        overwrite : bool
            Remove a store that lies there. Anything else that lies there is left alone.
        fsync : bool
            Wait for the disk before a batch counts as committed.
        storage_options : mapping, optional
            ``endpoint``, ``region`` and others, for object storage.
        chunk_bytes : int, optional
            Limit of the inner chunks; the default was chosen by measurement.
        slots : int, optional
            Room for runs, where short batches need more than ``runs``.
        inner : mapping of str to tuple, optional
            Shapes of the inner chunks, for stores that must agree.

        Raises
        ------
        StoreExistsError
            If something lies there.
        InputError
            If a number is absurd.
        """
        if isinstance(batch_size, bool) or not 1 <= batch_size <= 1 << 20:
            raise InputError(f"batch_size is {batch_size}: expected 1 to {1 << 20}")
        if runs is not None and not 1 <= runs <= batch_size * MAX_BATCHES:
            raise InputError(f"runs is {runs}: expected at least 1, or None where it is not known")
        taken = sorted(set(RESERVED_ATTRIBUTES) & set(spec.attributes))
        if taken:
            raise InputError(f"attributes {', '.join(taken)} are the store's own: rename them")
        backend = open_backend(path, fsync=fsync, storage_options=storage_options)
        capacity = slots or runs or UNPLANNED_BATCHES * batch_size
        options = {} if chunk_bytes is None else {"chunk_bytes": chunk_bytes}
        layouts = {v.name: ArrayLayout.choose(v, batch_size, **options) for v in spec.variables}
        if inner is not None:
            layouts = {v.name: ArrayLayout(v, batch_size, inner[v.name]) for v in spec.variables}
        attributes = {
            **spec.attributes,
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "asced": {
                "id": uuid.uuid4().hex,
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "batch_size": batch_size,
                "planned_runs": runs,
                "capacity": capacity,
                "inner": {name: list(layout.inner) for name, layout in layouts.items()},
                "spec": spec.to_json(),
                "sealed": None,
            },
        }
        arrays = run_arrays(layouts, batch_size, capacity)
        fixed = step_arrays(spec)
        arrays |= {name: array[0] for name, array in fixed.items()}
        metadata = group_metadata(attributes, arrays)
        make_room(backend, overwrite=overwrite, known={f"{name}/zarr.json" for name in arrays})
        backend.sweep("")  # of one that was killed while it did the same
        for name, array in arrays.items():
            backend.replace(f"{name}/zarr.json", encode(array))
        for name, (_, values) in fixed.items():
            backend.replace(f"{name}/c/0", plain_chunk(values))
        backend.replace("commits/zarr.json", encode(group_metadata({}, None)))
        backend.make_durable(f"{name}/zarr.json" for name in arrays)
        try:  # last: a store exists once its root does
            backend.create("zarr.json", [encode(metadata)])
        except FileExistsError as error:
            raise StoreExistsError(f"{backend.url} was made by someone else just now") from error
        backend.make_durable(["zarr.json"])
        return cls(backend, metadata)

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        fsync: bool = True,
        storage_options: Mapping[str, Any] | None = None,
    ) -> TrajectoryStore:
        """Open a store, with one read.

        Raises
        ------
        StoreNotFoundError, NotATrajectoryStoreError, NewerFormatError, DamagedStoreError
            Each says what was found and what to do.
        """
        backend = open_backend(path, fsync=fsync, storage_options=storage_options)
        return cls(backend, read_metadata(backend))

    def __repr__(self) -> str:
        return f"<TrajectoryStore {self.path}: {self.spec.steps} steps of {self.spec.sample_shape}>"

    def _repr_html_(self) -> str:
        """A short table for notebooks; it reads no runs."""
        from asced_stores.notebook import html_table

        shape = " x ".join(map(str, self.spec.sample_shape))
        rows = [
            ("pipeline", self.spec.attributes.get("pipeline", "not said")),
            ("steps", f"{self.spec.steps_told}, samples of {shape}"),
            ("variables", ", ".join(self.layouts)),
            ("state", "open for writing" if self.sealed is None else "sealed"),
        ]
        if self.planned_runs is not None:
            rows.insert(1, ("runs planned", f"{self.planned_runs:,}"))
        if self.sealed is not None:
            rows.insert(1, ("runs", f"{self.sealed['runs']:,}"))
        if "replay_of" in self.spec.attributes:
            rows.append(("replay of", self.spec.attributes["replay_of"]))
            rows.append(("strategy", self.spec.attributes.get("strategy", "not said")))
        note = "Open its runs with open_runs(store)."
        return html_table(f"Trajectory store {self.path}", ("", ""), rows, note)

    @cached_property
    def index(self) -> RunIndex:
        """Index of the runs that were committed when it was first asked for."""
        from asced_stores.format.index import load_index

        return load_index(self)

    def read(
        self,
        name: str,
        *,
        runs: Select | None = None,
        steps: slice | int | None = None,
        statuses: Sequence[str] = ("complete",),
        threads: int = 2,
    ) -> NDArray[Any]:
        """Read a part of one variable into one array; see `asced_stores.format.batches.read`."""
        from asced_stores.format.batches import read

        return read(
            self, self.index, name, runs=runs, steps=steps, statuses=statuses, threads=threads
        )

    # --- what is done with it -------------------------------------------------------------------

    def writer(self, rank: int | None = None, world_size: int | None = None) -> BatchWriter:
        """Writer of the batches that fall to one of several processes.

        Parameters
        ----------
        rank, world_size : int, optional
            By default from RANK and WORLD_SIZE, or SLURM_PROCID and SLURM_NTASKS, else 0 of 1.
        """
        from asced_stores.writing.placement import placement
        from asced_stores.writing.writer import BatchWriter

        return BatchWriter(self, *placement(rank, world_size))

    def verify(
        self,
        progress: Callable[[int, int], None] | None = None,
        *,
        drop: bool = False,
        threads: int = 2,
    ) -> VerifyReport:
        """Check every chunk of every committed batch; see `asced_stores.maintenance.verify`."""
        from asced_stores.maintenance.verifying import verify

        return verify(self, progress, drop=drop, threads=threads)

    def seal(self, *, allow_gaps: bool = False) -> TrajectoryStore:
        """Cut the store to its runs and index them; see `asced_stores.maintenance.sealing.seal`."""
        from asced_stores.maintenance.sealing import seal

        return seal(self, allow_gaps=allow_gaps)

    def reopen(self) -> TrajectoryStore:
        """Undo the seal, for further runs."""
        from asced_stores.maintenance.sealing import reopen

        return reopen(self)
