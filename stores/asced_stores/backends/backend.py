"""Places where a store can lie: a local folder, memory, object storage.

A backend is a flat space of keys with five operations; what a store needs of it is that ``create``
either makes a whole new object or raises `FileExistsError`, whoever else tries at the same time.
No backend takes a lock. Missing objects raise `FileNotFoundError`.
"""

from __future__ import annotations

import abc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

Parts = Iterable[bytes | memoryview]
TEMPORARY = "commits/.tmp"

GIVEN = "object"
"""Scheme of stores that the caller opened: ``object://name``, in this process."""
OBJECTS: dict[str, Any] = {}
"""Those stores, by their names."""


class Stamp(Protocol):
    """What proves that an object is still the one that was created."""

    def __eq__(self, other: object, /) -> bool:
        """Whether both are of the same object."""
        ...


class Reader(Protocol):
    """An open object."""

    group: int
    """Bytes that are best asked for at once."""

    def expect(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Announce offsets and lengths that will be read soon."""
        ...

    def read_into(self, requests: Sequence[tuple[int, Sequence[Any]]]) -> None:
        """Fill buffers.

        Each request is an offset and the writable buffers that are filled from there on. A
        negative offset counts from the end. An object that ends early raises `EOFError`.
        """
        ...


class Backend(abc.ABC):
    """A space of keys; see the module's text."""

    url: str
    fsync: bool = True
    options: Mapping[str, Any] | None = None

    @property
    def address(self) -> str:
        """The backend's name for another process, whose working directory may be another one."""
        return self.url

    @property
    def position(self) -> tuple[str, ...]:
        """Where it lies, from the outermost folder inwards: equal for two names of one backend."""
        return (self.url.rstrip("/"),)

    @abc.abstractmethod
    def read(self, key: str, *, limit: int | None = None) -> bytes:
        """Read a whole object; longer than ``limit`` is a `DamagedStoreError`."""

    @abc.abstractmethod
    def reader(self, key: str) -> AbstractContextManager[Reader]:
        """Open an object, to fill buffers from it."""

    @abc.abstractmethod
    def size(self, key: str) -> int:
        """Length of an object, in bytes."""

    @abc.abstractmethod
    def create(self, key: str, parts: Parts, *, owner: str = "") -> Stamp:
        """Make a new, whole object; `FileExistsError` where one exists.

        Its content is durable, its name only after `make_durable`.
        """

    @abc.abstractmethod
    def stamp(self, key: str) -> Stamp | None:
        """Stamp of the object that lies there now."""

    @abc.abstractmethod
    def make_durable(self, keys: Iterable[str]) -> None:
        """Wait until new names, and the absence of deleted ones, survive a loss of power."""

    @abc.abstractmethod
    def replace(self, key: str, data: bytes) -> None:
        """Write an object atomically over whatever lies there, durably."""

    @abc.abstractmethod
    def delete(self, key: str) -> None:
        """Remove an object, if it is there."""

    @abc.abstractmethod
    def names(self, folder: str) -> list[str]:
        """Names of the objects directly in a folder; none where it does not exist."""

    @abc.abstractmethod
    def walk(self) -> Iterator[tuple[str, int]]:
        """Key and size of everything that lies here."""

    @abc.abstractmethod
    def zarr_store(self) -> Any:
        """Give zarr's own, read-only view of the backend."""

    @abc.abstractmethod
    def copy_from(self, source: Backend, source_key: str, key: str) -> None:
        """Make a new object with the bytes of another, without holding them in memory."""

    def occupied(self) -> bool:
        """Whether anything at all lies here, a plain file included."""
        return next(self.walk(), None) is not None

    def sweep(self, prefix: str | tuple[str, ...]) -> list[str]:
        """Remove unfinished objects whose owner's name starts with (one of) ``prefix``."""
        return []

    def exists(self, key: str) -> bool:
        """Whether an object lies there."""
        return self.stamp(key) is not None

    def clear(self) -> None:
        """Remove everything, what makes it a store first."""
        self.delete("zarr.json")
        self.make_durable(["zarr.json"])
        for key, _ in list(self.walk()):
            self.delete(key)


def pieces(source: Backend, key: str) -> Iterator[bytes]:
    """Read an object in pieces of 8 MB."""
    length, at = source.size(key), 0
    with source.reader(key) as reader:
        while at < length:
            piece = bytearray(min(8 << 20, length - at))
            reader.read_into([(at, [piece])])
            at += len(piece)
            yield bytes(piece)
