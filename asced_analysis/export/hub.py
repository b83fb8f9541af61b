"""Thresholds and stores to the Hub and back, each with a card made from what it says of itself."""

from __future__ import annotations

import hashlib
import shutil
from os import PathLike
from pathlib import Path, PurePosixPath

from asced_analysis.export.cards import store_card, thresholds_card
from asced_analysis.thresholds.document import Thresholds
from asced_stores.errors import InputError
from asced_stores.files import STORE, check_out, whole
from asced_stores.hub import (
    HubReference,
    hub_folder,
    hub_paths,
    make_repository,
    upload_files,
    upload_store,
)
from asced_stores.store import TrajectoryStore

THRESHOLDS = "thresholds.json"
CARD = "README.md"


def push(
    path: str | PathLike[str], repository: str, *, public: bool = False, card: bool = True
) -> HubReference:
    """Put thresholds (`.json`) or a store (a folder) into a repository of the Hub.

    Parameters
    ----------
    path : path
        A thresholds file, with the weights beside it, or a store on a local disk.
    repository : str
        ``owner/name``, perhaps with ``/path`` and ``@revision``. Thresholds go to a model
        repository as ``thresholds.json``, a store to a dataset repository under its own name.
        One that is missing is made.
    public : bool
        Whether everybody may see a repository that is made.
    card : bool
        Whether to write the README.

    Returns
    -------
    HubReference
        Where it lies now.

    Raises
    ------
    InputError
        Where the path holds neither, or lies elsewhere.
    HubError
        Where the Hub refuses or does not answer; the same call again goes on.
    """
    text, wanted = str(path), HubReference.parse(repository)
    source = Path(text)
    if "://" in text:
        raise InputError(f"{text} is remote; expected a local path: copy it here first")
    if source.is_dir():
        store = TrajectoryStore.open(source)
        target = HubReference(wanted.repo, wanted.path or source.resolve().name, wanted.revision)
        make_repository(target, kind="dataset", public=public)
        upload_store(target, source, message=f"Runs of {store.attributes.get('pipeline')}")
        if card:
            page = store_card(store, target).encode()
            upload_files(target, [(CARD, page)], kind="dataset", message="Card")
        return target
    thresholds = Thresholds.load(source)
    target = HubReference(wanted.repo, wanted.path or THRESHOLDS, wanted.revision)
    files: list[tuple[str, Path | bytes]] = [(str(target.path), source)]
    if thresholds.weights is not None:
        beside = PurePosixPath(str(target.path)).with_name(thresholds.weights["name"])
        files.append((str(beside), thresholds.weights_bytes()))
    if card:
        files.append((CARD, thresholds_card(thresholds, target).encode()))
    make_repository(target, kind="model", public=public)
    upload_files(target, files, kind="model", message=f"Thresholds ({thresholds.variant})")
    return target


def pull(repository: str, out: str | PathLike[str], *, overwrite: bool = False) -> Path:
    """Bring thresholds, or a store, from a repository of the Hub.

    Parameters
    ----------
    repository : str
        ``owner/name``, perhaps with ``/path`` and ``@revision``.
    out : path
        Ends with ``.json`` for thresholds, with ``.zarr`` for a store.
    overwrite : bool

    Raises
    ------
    InputError
        Where `out` exists (or, for a store, is a folder but no store), or the repository holds
        several stores and none is named.
    HubError
        Where the Hub refuses or does not answer; the same call again goes on.
    """
    reference = HubReference.parse(repository)
    own = STORE if str(out).endswith(".zarr") else ()
    target = check_out(
        out, overwrite=overwrite, suffixes=(".json", ".zarr"), folder=bool(own), own=own
    )
    if target.suffix == ".json":
        return Thresholds.load(str(reference)).save(target, overwrite=overwrite)
    reference = _one_store(reference)
    of = hashlib.sha256(str(reference).encode()).hexdigest()[:12]  # goes on with its own alone
    kept = target.with_name(f".{target.name}.{of}.pull")
    kept.mkdir(parents=True, exist_ok=True)
    folder = hub_folder(reference, kept)
    TrajectoryStore.open(folder)
    with whole(target, overwrite=overwrite) as part:
        folder.rename(part)
    shutil.rmtree(kept)
    return target


def _one_store(reference: HubReference) -> HubReference:
    """The store that is named, or the only one."""
    paths = hub_paths(reference, kind="dataset")
    if f"{reference.path}/zarr.json" in paths:
        return reference
    found = [path.removesuffix("/zarr.json") for path in paths if path.endswith(".zarr/zarr.json")]
    if reference.path is None and len(found) == 1:
        return HubReference(reference.repo, found[0], reference.revision)
    named = f"no store {reference.path}" if reference.path else f"{len(found)} stores"
    here = f": {', '.join(found)}; name one, as in {reference.repo}/{found[0]}" if found else ""
    raise InputError(f"{HubReference(reference.repo)} holds {named}{here}")
