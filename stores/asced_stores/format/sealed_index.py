"""The index of a sealed store, as it is read."""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from asced_stores.errors import DamagedStoreError
from asced_stores.format.archives import unpack_arrays
from asced_stores.format.checksums import crc32c
from asced_stores.format.spec import RUN_SCALARS

if TYPE_CHECKING:
    from asced_stores.format.opened import OpenedStore

LIMIT = 4 << 30
SEAL_MARK = "commits/seal.json"


def read_columns(store: OpenedStore) -> dict[str, NDArray[Any]]:
    """Columns of a sealed store's index, by one read.

    Raises
    ------
    DamagedStoreError
        If it is absent or altered; sealing again rebuilds it from the markers.
    """
    assert store.sealed is not None
    name = store.sealed["index"]
    where = f"commits/{name} of {store.path}"
    remedy = f"rebuild it with `asced seal {store.path}`"
    try:
        data = store.backend.read(f"commits/{name}", limit=LIMIT)
    except FileNotFoundError as error:
        raise DamagedStoreError(f"{where} is missing: {remedy}") from error
    if crc32c(data) != store.sealed["crc32c"]:
        raise DamagedStoreError(f"{where} does not match its checksum: {remedy}")
    dtypes = index_dtypes(store)
    try:
        # Different run numbers do not compress to nothing: what claims to is not unpacked.
        found = unpack_arrays(data, limit=min(LIMIT, 256 * len(data) + (1 << 20)))
        columns = {name: _column(name, found[name], dtype) for name, dtype in dtypes.items()}
        if {len(values) for values in columns.values()} != {store.sealed["runs"]}:
            raise ValueError(f"it does not hold the {store.sealed['runs']} runs that were sealed")
    except (ValueError, KeyError, TypeError, BadZipFile, zlib.error) as error:
        raise DamagedStoreError(f"{where} is no index of this store ({error}): {remedy}") from error
    batches, slots = columns["batch"], columns["slot"]
    inside = (batches >= 0) & (batches < store.batches) & (slots >= 0)
    if not (inside & (slots < store.batch_size)).all():
        raise DamagedStoreError(f"{where} names batches that cannot be: {remedy}")
    return columns


def _column(name: str, values: NDArray[Any], dtype: str) -> NDArray[Any]:
    """One column, of the type that it must have."""
    wanted = np.dtype(object if dtype == "str" else dtype)
    if values.ndim != 1 or values.dtype != wanted:
        raise ValueError(f"{name} is {values.dtype} of {values.shape}")
    return values


def sealed_batches(store: OpenedStore) -> set[int]:
    """Batches that a seal holds, or will hold: all committed ones while it is not finished."""
    try:
        state = json.loads(store.backend.read(SEAL_MARK)).get("state")
    except (FileNotFoundError, ValueError):
        state = None
    current = store.reload()
    if state != "sealed" or current.sealed is None:
        return set(store.committed_batches())
    return set(read_columns(current)["batch"].tolist())


def index_dtypes(store: OpenedStore) -> dict[str, str]:
    """Columns of a sealed store's index and their dtypes."""
    own = {variable.name: variable.dtype for variable in store.spec.scalars}
    return {**RUN_SCALARS, **own, "slot": "int64"}
