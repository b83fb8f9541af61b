"""Parts of one kind by name: built in, brought by another distribution, or registered by hand.

A part is one file. What is built in is named here by its module, so that listing names imports
nothing; other distributions name theirs through an entry point; code of one's own calls `register`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib import import_module
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, Generic, TypeVar

from asced_stores.errors import InputError, nearest

Part = TypeVar("Part")


class Registry(Generic[Part]):
    """Parts of one kind.

    Parameters
    ----------
    kind : str
        What a part is called in messages, for example ``detection variant``.
    group : str
        Entry point group of other distributions, for example ``asced.detection``.
    package : str
        Where the built-in parts lie.
    modules : tuple of str
        Their modules inside the package; a part is called as its module is.
    attribute : str
        What a module calls its part.

    Examples
    --------
    >>> from asced_analysis.detection import VARIANTS
    >>> "calibrated" in VARIANTS, VARIANTS.get("paper").name
    (True, 'paper')
    """

    def __init__(
        self, kind: str, *, group: str, package: str, modules: tuple[str, ...], attribute: str
    ) -> None:
        self.kind = kind
        self.group = group
        self._modules = {name.rpartition(".")[2]: f"{package}.{name}" for name in modules}
        self._attribute = attribute
        self._registered: dict[str, Part] = {}
        self._entries: dict[str, Any] | None = None

    def names(self) -> tuple[str, ...]:
        """Every name: built in first, then other distributions', then those registered by hand."""
        return tuple(dict.fromkeys((*self._modules, *self._brought(), *self._registered)))

    def get(self, name: str) -> Part:
        """Load a part.

        Raises
        ------
        InputError
            For an unknown name; the message lists the known ones and suggests the nearest.
        """
        if name not in self._registered:
            self.check(name)
            if name in self._modules:
                module = import_module(self._modules[name])
                self._registered[name] = getattr(module, self._attribute)
            else:
                self._registered[name] = self._brought()[name].load()
        return self._registered[name]

    def check(self, name: str) -> None:
        """Refuse an unknown name, without loading anything.

        Raises
        ------
        InputError
            Lists the known names and suggests the nearest.
        """
        if name in self:
            return
        near = nearest(name, self.names())
        raise InputError(
            f"unknown {self.kind} {name!r}; choose one of {', '.join(self.names())}"
            + (f". Did you mean {near}?" if near else "")
        )

    def register(self, name: str, part: Part) -> Part:
        """Add a part of one's own for this process.

        Raises
        ------
        InputError
            Where the name is taken by another part.
        """
        if name in self and self.get(name) is not part:
            raise InputError(f"there is a {self.kind} {name!r} already; choose another name")
        self._registered[name] = part
        return part

    def __contains__(self, name: object) -> bool:
        """Whether a part of this name is known."""
        return name in self._registered or name in self._modules or name in self._brought()

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self.names())

    def __len__(self) -> int:
        """Number of parts."""
        return len(self.names())

    def _brought(self) -> dict[str, Any]:
        """Entry points of other distributions, read once."""
        if self._entries is None:
            found = _entry_points()
            of_kind = () if found is None else found.select(group=self.group)
            self._entries = {entry.name: entry for entry in of_kind}
        return self._entries


@cache
def _entry_points() -> Any:
    """Those of all distributions, read once, and only where one of them names a part of ours."""
    if not any(map(_may_bring_parts, sys.path)) and not _has_own_finders():
        return None
    from importlib.metadata import entry_points

    return entry_points()


def _may_bring_parts(folder: str) -> bool:
    """Whether a distribution in a folder of ``sys.path`` names a part of ours.

    A look into 230 small files takes 3 ms; `importlib.metadata` took 54 ms of every ``--help``.
    """
    try:
        with os.scandir(folder or ".") as found:
            places = [one.path for one in found if one.name.endswith((".dist-info", ".egg-info"))]
    except NotADirectoryError:  # an archive
        return True
    except OSError:
        return False
    for place in places:
        with suppress(OSError), Path(place, "entry_points.txt").open("rb") as file:
            if b"[asced." in file.read():
                return True
    return False


def _has_own_finders() -> bool:
    """Whether modules come from elsewhere too, such as one file that holds a whole program."""
    finders = (one for one in sys.meta_path if hasattr(one, "find_distributions"))
    return any(one is not PathFinder for one in finders)
