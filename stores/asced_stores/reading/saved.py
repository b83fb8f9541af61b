"""Datasets of runs that xarray wrote, as netCDF or plain Zarr, and what they need to be written.

netCDF has neither float16 nor nested attributes: float16 becomes float32, which holds every value,
and an attribute that is no text or number becomes JSON, which `open_runs` reads back.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray

from asced_stores.format.metadata import FORMAT

JSON = "json:"


class RunsDataset(xarray.Dataset):  # type: ignore[no-untyped-call]
    """Runs as `open_runs` gives them; what is derived from them can be written by ``to_netcdf``."""

    __slots__ = ()

    def to_netcdf(self, path: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Write to netCDF; see `xarray.Dataset.to_netcdf`. `open_runs` reads it back."""
        plain = xarray.Dataset(self.data_vars, self.coords, attrs=_flat(self.attrs))
        encoding = {str(n): dict(e) for n, e in (kwargs.pop("encoding", None) or {}).items()}
        for name, variable in plain.variables.items():
            own = encoding.setdefault(str(name), {})
            if variable.dtype == np.float16:
                own.setdefault("dtype", "float32")
            elif variable.dtype == np.uint8:  # which netCDF-3 lacks
                own.setdefault("dtype", "int16")
        write: Any = plain.to_netcdf
        return write(path, *args, encoding=encoding, **kwargs)


def open_saved(path: Any) -> RunsDataset | None:
    """Open what xarray wrote of a dataset of runs; None where something else lies there.

    Parameters
    ----------
    path : path or str
        A netCDF file, or a folder of plain Zarr.
    """
    if not isinstance(path, (str, os.PathLike)) or "://" in str(path):
        return None
    folder = Path(path)
    if folder.is_file():
        try:
            found = xarray.open_dataset(folder, chunks={})
        except ValueError:
            return None
        restored = {
            name: found[name].dtype.type if found[name].dtype.kind != "i" else np.uint8
            for name in ("image", "status")
            if name in found.variables
        }
        found = found.assign({n: found[n].astype(kind) for n, kind in restored.items()})
        return RunsDataset(found.data_vars, found.coords, attrs=_nested(found.attrs))
    try:
        root = json.loads((folder / "zarr.json").read_text())
    except (OSError, ValueError):
        return None
    attributes = root.get("attributes", {})
    if attributes.get("format") != FORMAT or "asced" in attributes:
        return None
    found = xarray.open_zarr(folder)
    return RunsDataset(found.data_vars, found.coords, attrs=found.attrs)


def _flat(attributes: Mapping[Any, Any]) -> dict[Any, Any]:
    """Attributes as netCDF has them."""
    return {
        name: value
        if isinstance(value, (str, float)) or (isinstance(value, int) and value is not bool(value))
        else JSON + json.dumps(value)
        for name, value in attributes.items()
    }


def _nested(attributes: Mapping[Any, Any]) -> dict[Any, Any]:
    """Inverse of `_flat`."""
    return {
        name: json.loads(value.removeprefix(JSON))
        if isinstance(value, str) and value.startswith(JSON)
        else value.item()
        if isinstance(value, np.generic)
        else value
        for name, value in attributes.items()
    }
