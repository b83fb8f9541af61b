"""Opening a backend by the scheme of a URL.

A backend is one file with a `Backend` and ``BACKEND``, which names its schemes and opens it.
Another distribution names its own through an entry point of the group ``asced.backends``.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asced_stores.backends.backend import GIVEN, OBJECTS, Backend
from asced_stores.errors import BackendError, InputError, StoreExistsError
from asced_stores.files import check_folder, check_outside_stores
from asced_stores.registry import Registry


@dataclass(frozen=True)
class BackendEntry:
    """What a backend says of itself.

    Attributes
    ----------
    schemes : tuple of str
        Of the URLs that it opens; ``file`` also stands for plain paths.
    open : callable
        ``open(url, fsync=, storage_options=)`` gives a `Backend`.
    """

    schemes: tuple[str, ...]
    open: Callable[..., Backend]


BACKENDS: Registry[BackendEntry] = Registry(
    "store backend",
    group="asced.backends",
    package="asced_stores.backends",
    modules=("local", "object_storage"),
    attribute="BACKEND",
)


def open_backend(
    path: str | os.PathLike[str],
    *,
    fsync: bool = True,
    storage_options: Mapping[str, Any] | None = None,
) -> Backend:
    """Open a local path, ``memory://name``, ``s3://bucket/prefix``, or an obstore store object.

    Raises
    ------
    InputError
        For another scheme.
    """
    url = url_of(path)
    scheme, separator, _ = url.partition("://")
    for name in BACKENDS:
        backend = BACKENDS.get(name)
        if (scheme if separator else "file") in backend.schemes:
            return backend.open(url, fsync=fsync, storage_options=storage_options)
    known = [one for name in BACKENDS for one in BACKENDS.get(name).schemes]
    raise InputError(
        f"{url!r} is of kind {scheme!r}: expected a local path, or one of "
        f"{', '.join(f'{one}://' for one in known)}"
    )


def check_store_out(
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    resume: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> None:
    """Check that a store can be made, before any work is done for it.

    Parameters
    ----------
    path : path or str
        Where; nothing is changed there.
    overwrite, resume : bool, optional
        Whether a store may lie there.
    storage_options : mapping, optional
        Of that backend.

    Raises
    ------
    InputError
        If something lies there, or nothing can be written or reached there.
    """
    backend = open_backend(path, storage_options=storage_options)
    try:
        taken = backend.exists("zarr.json")
        backend.names("commits")  # an absent bucket answers the first as an absent store does
    except BackendError as error:
        raise InputError(str(error)) from error
    if taken and not (overwrite or resume):
        raise StoreExistsError(
            f"{backend.url} exists: choose another path, go on with it by resume=True, or replace "
            "it by overwrite=True"
        )
    if "://" not in url_of(path):
        folder = Path(backend.address)
        if folder.is_file():
            raise InputError(f"{folder} is a file: choose another path for the store")
        check_outside_stores(folder.resolve(), itself=False)  # a link is written through
        check_folder(folder)


def url_of(path: Any, /) -> str:
    """Path or URL as text; of an obstore store object, a URL by which this process knows it."""
    if isinstance(path, (str, os.PathLike)):
        return str(os.fspath(path))
    if hasattr(path, "put") and hasattr(path, "get_ranges"):
        known = (name for name, one in OBJECTS.items() if one is path)
        name = next(known, None) or uuid.uuid4().hex[:12]
        OBJECTS[name] = path
        return f"{GIVEN}://{name}"
    raise InputError(
        f"a {type(path).__name__} is no place for a store: give a path, a URL or an obstore store"
    )


def check_apart(
    out: str | os.PathLike[str],
    sources: Iterable[Backend],
    *,
    storage_options: Mapping[str, Any] | None = None,
) -> None:
    """Make sure that what is about to be written touches nothing that it is made from.

    Parameters
    ----------
    out : path or str
        Where the new store shall be made; nothing is touched there.
    sources : iterable of Backend
        Where the stores lie that are read.
    storage_options : mapping, optional
        Of the backend that holds ``out``.

    Raises
    ------
    InputError
        If ``out`` is one of the sources, lies in one, or holds one; links and relative paths are
        followed first.
    """
    target = open_backend(out, storage_options=storage_options).position
    for source in sources:
        own = source.position
        if target == own:
            relation = "is the store that is read"
        elif target[: len(own)] == own:
            relation = f"lies inside {source.url}, the store that is read"
        elif own[: len(target)] == target:
            relation = f"holds {source.url}, the store that is read"
        else:
            continue
        raise InputError(f"{url_of(out)} {relation}: choose an --out of its own")
