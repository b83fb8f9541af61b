"""Arguments of a pipeline's call as the command line gives them: values, and files behind an @."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from asced_stores.errors import InputError

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".npy")


def call_arguments(options: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a pipeline; what begins with @ is read.

    Parameters
    ----------
    options : dict
        ``NAME=VALUE`` as `settings_option` reads them. ``@FILE`` is one image, or an array
        (``.npy``) that becomes a tensor; ``@FOLDER`` has one of them a run, ``<run>.png`` or
        ``<run>.npy``, and becomes a function of the batch.

    Raises
    ------
    InputError
        For a file that is not there, or is neither.
    """
    return {
        name: _read(name, value[1:]) if isinstance(value, str) and value.startswith("@") else value
        for name, value in options.items()
    }


def _read(name: str, path: str) -> Any:
    place = Path(path).expanduser()
    if not place.is_dir():
        return _read_file(place)
    if not any(file.suffix in ENDINGS for file in place.glob("[0-9]*")):
        raise InputError(f"{place} has no <run>.png or <run>.npy for {name}, one a run")
    return _by_run(place)


def _by_run(folder: Path) -> Callable[[Any], Any]:
    """A function of a batch: what lies in a folder for its runs."""

    def of(batch: Any) -> Any:
        rows = [_read_file(_file_of(folder, int(run))) for run in batch.runs]
        if not hasattr(rows[0], "detach"):
            return rows
        import torch

        return torch.stack(rows)

    return of


def _file_of(folder: Path, run: int) -> Path:
    for ending in ENDINGS:
        if (found := folder / f"{run}{ending}").exists():
            return found
    raise InputError(f"{folder} has no {run}.png or {run}.npy, for run {run}")


def _read_file(file: Path) -> Any:
    """An image as PIL has it, or an array as a tensor."""
    if file.suffix == ".npy":
        return _read_array(file)
    from PIL import Image

    try:
        with Image.open(file) as image:
            return image.convert("L" if image.mode in ("1", "L") else "RGB")
    except OSError as error:
        raise InputError(f"{file} can't be read as an image: {error}") from error


def _read_array(file: Path) -> Any:
    import numpy as np
    import torch

    try:
        return torch.from_numpy(np.load(file, allow_pickle=False))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{file} can't be read as an array: {error}") from error
