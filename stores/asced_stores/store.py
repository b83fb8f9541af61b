"""A trajectory store: creation, opening, and what has been committed."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from asced_stores.errors import (
    DamagedBatchError,
    DamagedStoreError,
    InputError,
    NewerFormatError,
    NotATrajectoryStoreError,
    StoreExistsError,
    StoreNotFoundError,
)
from asced_stores.layout import ArrayLayout, array_metadata
from asced_stores.markers import LIMIT, Marker, batch_of, parse_marker
from asced_stores.places import Place, open_place
from asced_stores.sealing import check_seal
from asced_stores.spec import RUN_SCALARS, STEP_COORDINATES, TrajectorySpec, VariableSpec

if TYPE_CHECKING:
    from asced_stores.index import RunIndex, Select
    from asced_stores.verifying import VerifyReport
    from asced_stores.writer import BatchWriter

FORMAT = "asced-trajectories"
FORMAT_VERSION = 1
UNPLANNED_BATCHES = 16384
"""Capacity of a store whose number of runs is not known beforehand; absent chunks cost nothing."""
MAX_BATCHES = 10_000_000
METADATA_LIMIT = 16 << 20
RESERVED_ATTRIBUTES = ("format", "format_version", "asced")

Path = str | os.PathLike[str]


class TrajectoryStore:
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

    def __init__(self, place: Place, metadata: Mapping[str, Any]) -> None:
        self._place = place
        self._metadata = metadata
        attributes = dict(metadata["attributes"])
        own = attributes["asced"]
        self.path = place.url
        user = {k: v for k, v in attributes.items() if k not in RESERVED_ATTRIBUTES}
        self.spec = TrajectorySpec.from_json(own["spec"], user)
        self.batch_size: int = own["batch_size"]
        self.planned_runs: int | None = own["planned_runs"]
        self.id: str = own["id"]
        self.capacity: int = own["capacity"]
        self.layouts = {
            variable.name: ArrayLayout(
                variable, self.batch_size, tuple(own["inner"][variable.name])
            )
            for variable in self.spec.variables
        }

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
        place = open_place(path, fsync=fsync, storage_options=storage_options)
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
        _make_room(place, overwrite=overwrite, known={f"{name}/zarr.json" for name in arrays})
        for name, array in arrays.items():
            place.replace(f"{name}/zarr.json", encode(array))
        for name, (_, values) in fixed.items():
            place.replace(f"{name}/c/0", plain_chunk(values))
        place.replace("commits/zarr.json", encode(group_metadata({}, None)))
        try:  # last: a store exists once its root does
            place.create("zarr.json", [encode(metadata)])
        except FileExistsError as error:
            raise StoreExistsError(f"{place.url} was made by someone else just now") from error
        place.make_durable(["zarr.json"])
        return cls(place, metadata)

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
        place = open_place(path, fsync=fsync, storage_options=storage_options)
        return cls(place, read_metadata(place))

    def reload(self) -> TrajectoryStore:
        """Open it again, to see whether it has been sealed since."""
        return TrajectoryStore(self._place, read_metadata(self._place))

    # --- facts ----------------------------------------------------------------------------------

    def __repr__(self) -> str:
        return f"<TrajectoryStore {self.path}: {self.spec.steps} steps of {self.spec.sample_shape}>"

    @property
    def attributes(self) -> dict[str, Any]:
        """Attributes of the store, the format's name and version among them."""
        own = {"format": FORMAT, "format_version": FORMAT_VERSION}
        return {**own, **self.spec.attributes}

    @cached_property
    def fingerprint(self) -> str:
        """Hash of what must agree for runs to be comparable."""
        return self.spec.fingerprint

    @property
    def sealed(self) -> Mapping[str, Any] | None:
        """Facts of the seal, None while the store is open for writing."""
        found: Mapping[str, Any] | None = self._metadata["attributes"]["asced"]["sealed"]
        return found

    def root_attributes(self) -> dict[str, Any]:
        """Attributes as they stand in the root, the store's own among them."""
        return dict(self._metadata["attributes"])

    @property
    def place(self) -> Place:
        """Where the bytes lie."""
        return self._place

    @property
    def batches(self) -> int:
        """Number of batches there can be."""
        return -(-self.capacity // self.batch_size)

    @cached_property
    def scalar_dtypes(self) -> dict[str, str]:
        """Dtypes of the numbers by run that lie in a marker."""
        standard = {k: v for k, v in RUN_SCALARS.items() if k not in ("rank", "batch")}
        return standard | {v.name: v.dtype for v in self.spec.scalars}

    @property
    def batch_nbytes(self) -> int:
        """Bytes of a whole batch: a writer holds one, and a recorder one more."""
        return self.batch_size * self.spec.run_nbytes

    def status_key(self, batch: int) -> str:
        """Key of the status chunk of a batch."""
        return f"status/c/{batch}"

    def shard_keys(self, batch: int) -> dict[str, str]:
        """Keys of everything that a batch consists of, except for its marker."""
        keys = {name: layout.key(batch) for name, layout in self.layouts.items()}
        return keys | {"status": self.status_key(batch)}

    # --- what is committed ----------------------------------------------------------------------

    def committed_batches(self) -> list[int]:
        """Numbers of the batches that are committed, rising."""
        found = (batch_of(name) for name in self._place.names("commits"))
        return sorted(batch for batch in found if batch is not None and batch < self.batches)

    def marker(self, batch: int) -> Marker:
        """Read the marker of a batch.

        Raises
        ------
        DamagedBatchError
            If it is absent, truncated or altered.
        """
        key = f"commits/{batch}.json"
        try:
            data = self._place.read(key, limit=LIMIT)
        except FileNotFoundError as error:
            raise DamagedBatchError(f"batch {batch} of {self.path} is not committed") from error
        return self.parse_marker(batch, data)

    def parse_marker(self, batch: int, data: bytes) -> Marker:
        """Check and decode the bytes of a marker of this store."""
        marker = parse_marker(
            data,
            batch=batch,
            fingerprint=self.fingerprint,
            dtypes=self.scalar_dtypes,
            where=f"commits/{batch}.json of {self.path}",
        )
        if marker.runs > self.batch_size or set(marker.shards) != set(self.shard_keys(batch)):
            raise DamagedBatchError(
                f"commits/{batch}.json of {self.path} names {marker.runs} runs of "
                f"{sorted(marker.shards)}: expected at most {self.batch_size} of "
                f"{sorted(self.shard_keys(batch))}"
            )
        return marker

    @cached_property
    def index(self) -> RunIndex:
        """Index of the runs that were committed when it was first asked for."""
        from asced_stores.index import load_index

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
        """Read a part of one variable into one array; see `asced_stores.reading.read`."""
        from asced_stores.reading import read

        return read(self, name, runs=runs, steps=steps, statuses=statuses, threads=threads)

    # --- what is done with it -------------------------------------------------------------------

    def writer(self, rank: int | None = None, world_size: int | None = None) -> BatchWriter:
        """Writer of the batches that fall to one of several processes.

        Parameters
        ----------
        rank, world_size : int, optional
            By default from RANK and WORLD_SIZE, or SLURM_PROCID and SLURM_NTASKS, else 0 of 1.
        """
        from asced_stores.writer import BatchWriter, placement

        return BatchWriter(self, *placement(rank, world_size))

    def verify(
        self,
        progress: Callable[[int, int], None] | None = None,
        *,
        drop: bool = False,
        threads: int = 2,
    ) -> VerifyReport:
        """Check every chunk of every committed batch; see `asced_stores.verifying.verify`."""
        from asced_stores.verifying import verify

        return verify(self, progress, drop=drop, threads=threads)

    def seal(self, *, allow_gaps: bool = False) -> TrajectoryStore:
        """Cut the store to its runs and index them; see `asced_stores.sealing.seal`."""
        from asced_stores.sealing import seal

        return seal(self, allow_gaps=allow_gaps)

    def reopen(self) -> TrajectoryStore:
        """Undo the seal, for further runs."""
        from asced_stores.sealing import reopen

        return reopen(self)


# --- metadata -----------------------------------------------------------------------------------


def encode(metadata: Mapping[str, Any]) -> bytes:
    """Strict JSON."""
    return json.dumps(metadata, indent=1, allow_nan=False).encode()


def plain_chunk(values: NDArray[Any]) -> bytes:
    """Bytes of an unsharded chunk: the values, then their CRC-32C."""
    from asced_stores.checksums import crc32c

    if values.dtype.kind == "O":  # vlen-utf8: count, then length and bytes of each
        texts = [str(text).encode() for text in values]
        pieces = [len(texts).to_bytes(4, "little")]
        for text in texts:
            pieces += [len(text).to_bytes(4, "little"), text]
        data = b"".join(pieces)
    else:
        data = values.astype(values.dtype.newbyteorder("<")).tobytes()
    return data + crc32c(data).to_bytes(4, "little")


def run_arrays(
    layouts: Mapping[str, ArrayLayout], batch_size: int, runs: int
) -> dict[str, dict[str, Any]]:
    """Metadata of the arrays that grow with the runs."""
    arrays = {name: layout.metadata(runs) for name, layout in layouts.items()}
    arrays["status"] = array_metadata(
        shape=(runs,), chunk_shape=(batch_size,), dtype="uint8", dims=("run",)
    )
    return arrays


def step_arrays(spec: TrajectorySpec) -> dict[str, tuple[dict[str, Any], NDArray[Any]]]:
    """Metadata and values of the coordinates that every run shares."""
    values: dict[str, tuple[str, NDArray[Any]]] = {
        name: ("step", np.asarray(getattr(spec, name), "float64")) for name in STEP_COORDINATES
    }
    values["step"] = ("step", np.arange(spec.steps, dtype="int64"))
    if spec.checkpoints:
        values["checkpoint"] = ("checkpoint", np.asarray(spec.checkpoints, "int64"))
    return {
        name: (
            array_metadata(
                shape=array.shape, chunk_shape=array.shape, dtype=str(array.dtype), dims=(dim,)
            ),
            array,
        )
        for name, (dim, array) in values.items()
    }


def group_metadata(
    attributes: Mapping[str, Any], arrays: Mapping[str, Any] | None
) -> dict[str, Any]:
    """``zarr.json`` of a group, with that of its arrays inlined, so that one read opens all."""
    metadata: dict[str, Any] = {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": dict(attributes),
    }
    if arrays is not None:
        metadata["consolidated_metadata"] = {
            "kind": "inline",
            "must_understand": False,
            "metadata": dict(arrays),
        }
    return metadata


def read_metadata(place: Place) -> dict[str, Any]:
    """Read and check the root of a store."""
    try:
        data = place.read("zarr.json", limit=METADATA_LIMIT)
    except (FileNotFoundError, NotADirectoryError) as error:
        if place.occupied():
            raise NotATrajectoryStoreError(
                f"{place.url} is no trajectory store: it has no zarr.json; "
                "give the folder that `asced record --out` made"
            ) from error
        raise StoreNotFoundError(
            f"there is no store at {place.url}: check the path, or record one with `asced record`"
        ) from error
    try:
        metadata = json.loads(data)
        attributes = metadata["attributes"]
        if not isinstance(attributes, dict):
            raise TypeError("attributes are no object")
    except (ValueError, RecursionError, TypeError, KeyError) as error:
        if isinstance(error, (ValueError, RecursionError)):
            raise DamagedStoreError(
                f"zarr.json of {place.url} is truncated or altered ({error}): restore it; "
                "the batches themselves are untouched"
            ) from error
        raise NotATrajectoryStoreError(f"{place.url} is no Zarr v3 group") from error
    if attributes.get("format") != FORMAT:
        raise NotATrajectoryStoreError(
            f"{place.url} is a Zarr store of another kind (format {attributes.get('format')!r}): "
            f"expected {FORMAT!r}, which `asced record` writes"
        )
    version = attributes.get("format_version")
    if not isinstance(version, int) or version < 1:
        raise DamagedStoreError(f"{place.url} has format version {version!r}: expected a number")
    if version > FORMAT_VERSION:
        raise NewerFormatError(
            f"{place.url} has format version {version}, this version reads up to "
            f"{FORMAT_VERSION}: upgrade asced-analysis"
        )
    _check_own(place, attributes)
    checked: dict[str, Any] = metadata
    return checked


def _check_own(place: Place, attributes: Mapping[str, Any]) -> None:
    """Refuse a root whose numbers cannot be, before anything is allocated by them."""
    try:
        own = attributes["asced"]
        user = {k: v for k, v in attributes.items() if k not in RESERVED_ATTRIBUTES}
        spec = TrajectorySpec.from_json(own["spec"], user)
        size, capacity, planned = own["batch_size"], own["capacity"], own["planned_runs"]
        if not all(type(n) is int for n in (size, capacity)) or type(own["id"]) is not str:
            raise TypeError("batch_size, capacity or id are of another type")
        if not (1 <= size <= 1 << 20 and 1 <= capacity <= size * MAX_BATCHES):
            raise ValueError(f"batch_size {size} and capacity {capacity}")
        if planned is not None and (type(planned) is not int or not 1 <= planned <= capacity):
            raise ValueError(f"{planned} planned runs")
        for variable in spec.variables:
            _check_inner(variable, size, tuple(own["inner"][variable.name]))
        if own["sealed"] is not None:
            check_seal(own["sealed"])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DamagedStoreError(
            f"zarr.json of {place.url} holds what cannot be ({type(error).__name__}: {error}): "
            "restore it; the batches themselves are untouched"
        ) from error


def _check_inner(variable: VariableSpec, batch_size: int, inner: tuple[int, ...]) -> None:
    shape = (batch_size, *variable.shape)
    fits = len(inner) == len(shape) and inner[2:] == shape[2:]
    if not fits or any(type(n) is not int or n < 1 for n in inner):
        raise ValueError(f"inner chunks {inner} of {variable.name}")
    if shape[0] % inner[0] or shape[1] % inner[1]:
        raise ValueError(f"inner chunks {inner} of {variable.name}")


def _make_room(place: Place, *, overwrite: bool, known: set[str]) -> None:
    """Make sure that nothing of anyone else's lies where the store is to be."""
    if place.exists("zarr.json"):
        if not overwrite:
            raise StoreExistsError(
                f"{place.url} exists: choose another --out, continue it with --resume, "
                "or replace it with --overwrite"
            )
        try:
            read_metadata(place)
        except NewerFormatError:
            pass
        except (NotATrajectoryStoreError, DamagedStoreError) as error:
            raise StoreExistsError(
                f"{place.url} is no trajectory store that could be replaced: remove it yourself"
            ) from error
        place.clear()
        return
    known = known | {"commits/zarr.json"}
    for key, _ in place.walk():
        mine = key in known or key.startswith("commits/.tmp/")
        if not mine and not (key.endswith("/c/0") and f"{key[:-4]}/zarr.json" in known):
            raise StoreExistsError(
                f"{place.url} is not empty and no trajectory store: choose another --out"
            )
