"""Thresholds in a repository of the Hub, as a file in its local cache."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from asced_analysis.thresholds.files import parse_file
from asced_analysis.thresholds.schema import read_content

NAME = "thresholds.json"


def local_file(path: str | os.PathLike[str]) -> Path:
    """A path as it is; for ``hf://owner/name`` the file in the cache, its weights beside it.

    Raises
    ------
    HubError
        Where the Hub refuses, or does not answer and the cache does not hold it.
    """
    text = os.fspath(path)
    if not text.startswith("hf://"):
        return Path(text)
    from asced_stores.hub import HubReference, hub_file

    reference = HubReference.parse(text)
    name = reference.path or NAME
    file, commit = hub_file(reference, name)
    weights = read_content(parse_file(file)).weights
    if weights is not None:
        beside = PurePosixPath(name).with_name(weights["name"])
        hub_file(reference, str(beside), commit=commit)
    return file
