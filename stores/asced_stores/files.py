"""Files that a program writes: checked before the work, written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from asced_stores.errors import InputError

PathLike = str | os.PathLike[str]
STORE = ("commits/zarr.json", "*")
"""Files of a store of runs, as `check_out` takes them."""
ZARR = ("zarr.json", "*/zarr.json", "*/c", "*/c/*")
"""Those of any other Zarr group."""


def check_out(
    path: PathLike,
    *,
    overwrite: bool = False,
    suffixes: Sequence[str] = (),
    folder: bool = False,
    own: Sequence[str] = (),
) -> Path:
    """Check that a file can be written, before any work is done for it.

    A folder that is missing on the way to it is made when the file is written.

    Parameters
    ----------
    path : path
        The file wanted.
    overwrite : bool, optional
        Whether it may exist.
    suffixes : sequence of str, optional
        What its name may end with, for example ``(".csv", ".npz")``.
    folder : bool, optional
        A folder is written, not a file; an empty one may be there.
    own : sequence of str, optional
        Of a folder that is replaced as a whole: one path in it that each of its kind has, then
        patterns of all others. No folder of another kind, or with other files, is replaced.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    InputError
        If it names a remote backend, exists, ends otherwise, is a store of runs or lies in one,
        holds what `own` does not name, or its folder cannot be written to.
    """
    text = os.fspath(path)
    if "://" in text:
        raise InputError(f"{text} is remote; expected a local path: write it here, then copy it")
    target = Path(text)
    if suffixes and target.suffix not in suffixes:
        raise InputError(
            f"{target} was given; expected a name that ends in {' or '.join(suffixes)}"
        )
    empty = folder and target.is_dir() and not any(target.iterdir())
    if target.exists() and not empty:
        if not overwrite:
            raise InputError(f"{target} exists; choose another name, or pass overwrite=True")
        if target.is_dir() and not folder:
            raise InputError(f"{target} is a folder; choose another name for the file")
        if folder and not target.is_dir():
            raise InputError(f"{target} is a file; choose another name for the folder")
    check_outside_stores(target, itself=own != STORE)
    if own and target.exists() and not empty:
        _check_own(target, own)
    check_folder(target.parent)
    return target


def _check_own(target: Path, own: Sequence[str]) -> None:
    """Refuse to replace a folder that is not an earlier one of its kind, or holds more."""
    found = None if (target / own[0]).exists() else f"has no {own[0]}"
    for path in target.rglob("*") if found is None else ():
        name = path.relative_to(target).as_posix()
        ours = any(fnmatchcase(name, pattern) for pattern in own)
        if not ours and (path.is_symlink() or not path.is_dir()):
            found = f"holds {name}"
            break
    if found is not None:
        raise InputError(
            f"{target} {found}; expected an earlier output of the same kind and nothing else, "
            "since the whole folder is replaced: choose another name for the folder"
        )


def check_outside_stores(path: Path, *, itself: bool = True) -> None:
    """Refuse a path in a store of runs: what is written there could damage it.

    Parameters
    ----------
    path : pathlib.Path
    itself : bool, optional
        Whether the path may be no store either.
    """
    # links on the way are followed, but one at the end is what is replaced
    here = Path(os.path.normpath(path.parent.resolve() / path.name))
    for folder in (here, *here.parents) if itself else here.parents:
        if (folder / "zarr.json").is_file() and (folder / "commits").is_dir():
            what = "is" if folder == here else "lies in"
            raise InputError(
                f"{path} {what} a store of runs, which nothing else may replace or change: "
                f"choose a path outside {folder.name}"
            )


def csv_separator(header: str) -> str:
    """What stands between the columns of a CSV file.

    Excel writes semicolons where numbers have decimal commas.

    Parameters
    ----------
    header : str
        Its first line, the names of its columns.

    Returns
    -------
    str
        A comma, or a semicolon where the header has one and no comma.
    """
    return ";" if ";" in header and "," not in header else ","


def check_folder(path: Path) -> None:
    """Check that files can be made in a folder, or the folder itself if it is missing.

    Raises
    ------
    InputError
        If something else lies there, or it cannot be written to.
    """
    there = path.absolute()
    while not there.exists():
        there = there.parent
    if not there.is_dir():
        raise InputError(f"{there} is a file; expected a folder to write in")
    try:  # the only question that read-only disks and permissions both answer
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"{there} cannot be written to ({reason}): choose another path") from error


@contextlib.contextmanager
def whole(path: PathLike, *, overwrite: bool = False) -> Iterator[Path]:
    """Write a file or a folder under another name, which becomes ``path`` once it is complete.

    Parameters
    ----------
    path : path
        Where it shall lie; missing folders are made.
    overwrite : bool, optional
        Whether it may exist. Wherever replacing a folder is cut short, the old one or the new one
        is whole (the old one perhaps as ``.<name>.old``).

    Yields
    ------
    pathlib.Path
        Where to write; its suffix is that of ``path``.
    """
    target = Path(path)
    if target.exists() and not overwrite:
        raise InputError(f"{target} exists; choose another name, or pass overwrite=True")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.stem}.{uuid.uuid4().hex[:12]}.part{target.suffix}")
    try:
        yield part
        _put(part, target)
    finally:
        _remove(part)


def write_whole(path: PathLike, content: str | bytes, *, overwrite: bool = False) -> Path:
    """Write text or bytes as a file, whole or not at all."""
    with whole(path, overwrite=overwrite) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
    return Path(path)


def write_json(path: PathLike, content: Any, *, overwrite: bool = False) -> Path:
    """Write strict JSON as a file, whole or not at all."""
    text = json.dumps(content, allow_nan=False, indent=1) + "\n"
    return write_whole(path, text, overwrite=overwrite)


def old_copy(target: Path) -> Path:
    """Where an old folder lies for the moment in which a new one takes its place."""
    return target.with_name(f".{target.name}.old")


def _put(part: Path, target: Path) -> None:
    """Give what was written its name; at every moment the old or the new one is whole."""
    if not target.is_dir():
        part.replace(target)
        return
    old = old_copy(target)
    _remove(old)  # left where a replacement was cut short when the new one was in place
    target.rename(old)
    try:
        part.rename(target)
    except BaseException:
        old.rename(target)
        raise
    _remove(old)


def _remove(path: Path) -> None:
    """Delete a file or a folder, if there is one."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
