"""Results as files: Datasets as Zarr, frames as Parquet, phases as JSON; whole or not at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from asced_analysis.phases.segmentation import Phases
from asced_stores.errors import InputError

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
        Whether an existing file may be replaced. Wherever that is cut short, the old result or
        the new one is whole (the old one perhaps as ``.<name>.old``, as `load` then says).

    Returns
    -------
    pathlib.Path

    Raises
    ------
    InputError
        When the result is of another type, the file exists, or its name does not fit the type.
    """
    import xarray as xr

    target = check_target(path, _suffix(result), overwrite=overwrite)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        if isinstance(result, Phases):
            partial.write_text(result.to_json() + "\n", encoding="utf-8")
        elif isinstance(result, xr.Dataset):
            result.to_zarr(partial, mode="w", consolidated=False)
        else:
            result.to_parquet(partial)
        _put(partial, target)
    finally:
        _remove(partial)
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
    if not target.exists() and _aside(target).exists():
        raise InputError(
            f"{target} does not exist, but {_aside(target)} does: what a save that was cut short "
            f"was about to replace. Rename it to {target.name} to go on with it"
        )
    if not target.exists():
        raise InputError(f"{target} does not exist; write it with `asced stats` or `asced phases`")
    if target.suffix == ".json":
        return Phases.from_json(target.read_text(encoding="utf-8"))
    if target.suffix == ".parquet":
        return pd.read_parquet(target)
    if target.suffix == ".zarr":
        with xr.open_zarr(target, consolidated=False, chunks=None) as stored:
            return stored.load()
    raise InputError(f"{target} is no result; expected a name with .zarr, .parquet or .json")


def check_target(path: str | os.PathLike[str], suffix: str, *, overwrite: bool) -> Path:
    """Where a result will lie, or an error before any work is done.

    Parameters
    ----------
    path : path
        Wanted file.
    suffix : str
        What its name must end with.
    overwrite : bool
        Whether it may exist.

    Returns
    -------
    pathlib.Path
    """
    target = Path(path)
    if target.suffix != suffix:
        raise InputError(f"this result is written as *{suffix}; found the name {target.name!r}")
    if target.exists() and not overwrite:
        raise InputError(f"{target} exists; choose another name, or pass --overwrite")
    if not target.parent.is_dir():
        raise InputError(f"the folder {target.parent} does not exist; make it first")
    return target


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


def _put(partial: Path, target: Path) -> None:
    """Put a written result in its place; at every moment the old one or the new one is whole."""
    if not target.is_dir():
        partial.replace(target)
        return
    old = _aside(target)
    _remove(old)  # left where a save was cut short when its new result was in place
    target.rename(old)
    try:
        partial.rename(target)
    except BaseException:
        old.rename(target)
        raise
    _remove(old)


def _aside(target: Path) -> Path:
    """Where the old result lies for the moment in which a new one takes its place."""
    return target.with_name(f".{target.name}.old")


def _remove(path: Path) -> None:
    """Delete a file or a folder, if there is one."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
