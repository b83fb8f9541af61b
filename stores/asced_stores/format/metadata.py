"""Metadata of a store: what is laid out, and what is checked when it is opened."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asced_stores.backends.backend import TEMPORARY, Backend
from asced_stores.errors import (
    DamagedStoreError,
    NewerFormatError,
    NotATrajectoryStoreError,
    StoreExistsError,
    StoreNotFoundError,
)
from asced_stores.format.layout import ArrayLayout, array_metadata
from asced_stores.format.spec import STEP_COORDINATES, TrajectorySpec, VariableSpec

FORMAT = "asced-trajectories"
FORMAT_VERSION = 1
MAX_BATCHES = 10_000_000
METADATA_LIMIT = 16 << 20
RESERVED_ATTRIBUTES = ("format", "format_version", "asced")


def encode(metadata: Mapping[str, Any]) -> bytes:
    """Strict JSON."""
    return json.dumps(metadata, indent=1, allow_nan=False).encode()


def plain_chunk(values: NDArray[Any]) -> bytes:
    """Bytes of an unsharded chunk: the values, then their CRC-32C."""
    from asced_stores.format.checksums import crc32c

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
    values["step"] = ("step", np.asarray(spec.step_numbers, "int64"))
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


def read_metadata(backend: Backend) -> dict[str, Any]:
    """Read and check the root of a store."""
    try:
        data = backend.read("zarr.json", limit=METADATA_LIMIT)
    except (FileNotFoundError, NotADirectoryError) as error:
        if backend.occupied():
            raise NotATrajectoryStoreError(
                f"{backend.url} is no trajectory store: it has no zarr.json; "
                "give the folder that `asced record --out` made"
            ) from error
        raise StoreNotFoundError(
            f"there is no store at {backend.url}: check the path, or record one with `asced record`"
        ) from error
    try:
        metadata = json.loads(data)
        attributes = metadata["attributes"]
        if not isinstance(attributes, dict):
            raise TypeError("attributes are no object")
    except (ValueError, RecursionError, TypeError, KeyError) as error:
        if isinstance(error, (ValueError, RecursionError)):
            raise DamagedStoreError(
                f"zarr.json of {backend.url} is truncated or altered ({error}): restore it; "
                "the batches themselves are untouched"
            ) from error
        raise NotATrajectoryStoreError(f"{backend.url} is no Zarr v3 group") from error
    if attributes.get("format") != FORMAT:
        raise NotATrajectoryStoreError(
            f"{backend.url} is a Zarr store of another kind (format {attributes.get('format')!r}): "
            f"expected {FORMAT!r}, which `asced record` writes"
        )
    version = attributes.get("format_version")
    if not isinstance(version, int) or version < 1:
        raise DamagedStoreError(f"{backend.url} has format version {version!r}: expected a number")
    if version > FORMAT_VERSION:
        raise NewerFormatError(
            f"{backend.url} has format version {version}, this version reads up to "
            f"{FORMAT_VERSION}: upgrade asced-analysis"
        )
    _check_own(backend, attributes)
    checked: dict[str, Any] = metadata
    return checked


def _check_own(backend: Backend, attributes: Mapping[str, Any]) -> None:
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
            _check_seal(own["sealed"])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DamagedStoreError(
            f"zarr.json of {backend.url} holds what cannot be ({type(error).__name__}: {error}): "
            "restore it; the batches themselves are untouched"
        ) from error


def _check_inner(variable: VariableSpec, batch_size: int, inner: tuple[int, ...]) -> None:
    shape = (batch_size, *variable.shape)
    fits = len(inner) == len(shape) and inner[2:] == shape[2:]
    if not fits or any(type(n) is not int or n < 1 for n in inner):
        raise ValueError(f"inner chunks {inner} of {variable.name}")
    if shape[0] % inner[0] or shape[1] % inner[1]:
        raise ValueError(f"inner chunks {inner} of {variable.name}")


def make_room(backend: Backend, *, overwrite: bool, known: set[str]) -> None:
    """Make sure that nothing of anyone else's lies where the store is to be."""
    if backend.exists("zarr.json"):
        if not overwrite:
            raise StoreExistsError(
                f"{backend.url} exists: choose another --out, continue it with --resume, "
                "or replace it with --overwrite"
            )
        try:
            read_metadata(backend)
        except NewerFormatError:
            pass
        except (NotATrajectoryStoreError, DamagedStoreError) as error:
            raise StoreExistsError(
                f"{backend.url} is no trajectory store that could be replaced: remove it yourself"
            ) from error
        backend.clear()
        return
    if not begun_only(backend, known):
        raise StoreExistsError(
            f"{backend.url} is not empty and no trajectory store: choose another --out"
        )


def begun_only(backend: Backend, known: set[str] | None = None) -> bool:
    """Whether nothing lies there but what making a store begins with, of one that was killed.

    Parameters
    ----------
    backend : Backend
        Without a ``zarr.json`` of its own.
    known : set of str, optional
        Keys of the arrays' metadata; any array's by default.
    """
    for key, _ in backend.walk():
        if key == "commits/zarr.json" or key.startswith(f"{TEMPORARY}/"):
            continue
        name, _, rest = key.partition("/")
        if rest not in ("zarr.json", "c/0") or name == "commits":
            return False
        if known is not None and f"{name}/zarr.json" not in known:
            return False
    return True


def _check_seal(seal: Mapping[str, Any]) -> None:
    """Refuse a seal that names another file than an index."""
    name = seal["index"]
    plain = isinstance(name, str) and name.startswith("index-") and "/" not in name
    numbers = [seal[key] for key in ("runs", "slots", "batches", "crc32c")]
    if not plain or ".." in name or any(type(number) is not int for number in numbers):
        raise TypeError("the seal is of another type")
