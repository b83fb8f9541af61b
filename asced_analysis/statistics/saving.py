"""Results as files: Datasets as Zarr, frames as Parquet, phases as JSON; whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from asced_analysis.phases.segmentation import Phases
from asced_stores.errors import InputError, install_hint
from asced_stores.files import ZARR, check_out, old_copy, whole

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    Result: TypeAlias = xr.Dataset | pd.DataFrame | Phases


def save(result: Result, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write a result in the form of its type.

    Parameters
    ----------
    result : xarray.Dataset, pandas.DataFrame or Phases
        Statistics or maps (Zarr), tables (Parquet), phases (JSON).
    path : path
        Ends with ``.zarr``, ``.parquet`` or ``.json``, to fit the type.
    overwrite : bool, optional
        Whether an existing file may be replaced (of a folder, only a Zarr group). Wherever
        that is cut short, the old result or the new one is whole (the old one perhaps as
        ``.<name>.old``, as `load` then says).

    Returns
    -------
    pathlib.Path

    Raises
    ------
    InputError
        When the result is of another type, the file exists, or its name does not fit the type.
    """
    import xarray as xr

    suffix = _suffix(result)
    own = ZARR if suffix == ".zarr" else ()
    target = check_out(path, overwrite=overwrite, suffixes=(suffix,), folder=bool(own), own=own)
    with whole(target, overwrite=overwrite) as part:
        if isinstance(result, Phases):
            part.write_text(result.to_json() + "\n", encoding="utf-8")
        elif isinstance(result, xr.Dataset):
            result.to_zarr(part, mode="w", consolidated=False)
        else:
            with _parquet_explained():
                result.to_parquet(part)
    return target


def load(path: str | os.PathLike[str]) -> Any:
    """Read a result that `save` wrote.

    Parameters
    ----------
    path : path
        What kind it is follows from the ending.

    Returns
    -------
    xarray.Dataset, pandas.DataFrame or Phases
        A Dataset is loaded into memory.

    Raises
    ------
    InputError
        When there is no such file, or it is of no known kind.
    """
    import pandas as pd
    import xarray as xr

    target = Path(path)
    if not target.exists() and old_copy(target).exists():
        raise InputError(
            f"{target} does not exist, but {old_copy(target)} does: the earlier result, which an "
            f"interrupted save was replacing. Rename it to {target.name} to use it"
        )
    if not target.exists():
        raise InputError(f"{target} does not exist; write it with `asced stats` or `asced phases`")
    if target.suffix == ".json":
        return Phases.from_json(target.read_text(encoding="utf-8"))
    if target.suffix == ".parquet":
        with _parquet_explained():
            return pd.read_parquet(target)
    if target.suffix == ".zarr":
        with xr.open_zarr(target, consolidated=False, chunks=None) as stored:
            return stored.load()
    raise InputError(f"{target} is no result; expected a name with .zarr, .parquet or .json")


@contextmanager
def _parquet_explained() -> Iterator[None]:
    """Say what Parquet needs, where it is not installed."""
    try:
        yield
    except ImportError as error:
        raise InputError(
            f"Parquet files need pyarrow: {install_hint('tables')}, or write the table with to_csv"
        ) from error


def _suffix(result: object) -> str:
    """What the name of a result of this type ends with."""
    import pandas as pd
    import xarray as xr

    for kind, suffix in ((xr.Dataset, ".zarr"), (pd.DataFrame, ".parquet"), (Phases, ".json")):
        if isinstance(result, kind):
            return suffix
    advice = "; make it a Dataset with to_dataset(name=...)"
    raise InputError(
        f"a {type(result).__name__} found; expected a Dataset, a DataFrame or Phases"
        f"{advice if isinstance(result, xr.DataArray) else ''}"
    )
