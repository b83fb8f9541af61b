"""Places where a store can lie: a local folder, memory, object storage.

A place is a flat space of keys with five operations; what a store needs of it is that ``create``
either makes a whole new object or raises `FileExistsError`, whoever else tries at the same time.
No place takes a lock. Missing objects raise `FileNotFoundError`.
"""

from __future__ import annotations

import abc
import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from asced_stores.errors import DamagedStoreError, DiskFullError, InputError

Parts = Iterable[bytes | memoryview]
_VECTOR = 64
TEMPORARY = "commits/.tmp"


class Stamp(Protocol):
    """What proves that an object is still the one that was created."""

    def __eq__(self, other: object, /) -> bool:
        """Whether both are of the same object."""
        ...


class Place(abc.ABC):
    """A space of keys; see the module's text."""

    url: str
    fsync: bool = True
    options: Mapping[str, Any] | None = None

    @property
    def address(self) -> str:
        """The place's name for another process, whose working directory may be another one."""
        return self.url

    @abc.abstractmethod
    def read(self, key: str, *, limit: int | None = None) -> bytes:
        """Read a whole object; longer than ``limit`` is a `DamagedStoreError`."""

    @abc.abstractmethod
    def read_into(self, key: str, requests: Sequence[tuple[int, Sequence[Any]]]) -> None:
        """Fill buffers from an object.

        Each request is an offset and the writable buffers that are filled from there on. A
        negative offset counts from the end. An object that ends early raises `EOFError`.
        """

    @abc.abstractmethod
    def size(self, key: str) -> int:
        """Length of an object, in bytes."""

    @abc.abstractmethod
    def create(self, key: str, parts: Parts, *, owner: str = "") -> Stamp:
        """Make a new, whole object; `FileExistsError` where one exists. Not yet durable."""

    @abc.abstractmethod
    def stamp(self, key: str) -> Stamp | None:
        """Stamp of the object that lies there now."""

    @abc.abstractmethod
    def make_durable(self, keys: Iterable[str]) -> None:
        """Wait until objects survive a loss of power."""

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
        """Give zarr's own, read-only view of the place."""

    @abc.abstractmethod
    def copy_from(self, source: Place, source_key: str, key: str) -> None:
        """Make a new object with the bytes of another, without holding them in memory."""

    def occupied(self) -> bool:
        """Whether anything at all lies here, a plain file included."""
        return next(self.walk(), None) is not None

    def sweep(self, prefix: str) -> list[str]:
        """Remove unfinished objects whose owner's name starts with ``prefix``."""
        return []

    def exists(self, key: str) -> bool:
        """Whether an object lies there."""
        return self.stamp(key) is not None

    def clear(self) -> None:
        """Remove everything, what makes it a store first."""
        self.delete("zarr.json")
        for key, _ in list(self.walk()):
            self.delete(key)


def open_place(
    path: str | os.PathLike[str],
    *,
    fsync: bool = True,
    storage_options: Mapping[str, Any] | None = None,
) -> Place:
    """Open a local path, ``memory://name`` or ``s3://bucket/prefix``.

    Raises
    ------
    InputError
        For another scheme.
    """
    url = os.fspath(path)
    scheme, separator, rest = url.partition("://")
    if not separator or scheme == "file":
        return LocalPlace(Path(rest if separator else url), fsync=fsync)
    if scheme in ("memory", "s3"):
        from asced_stores.object_places import open_object_place

        return open_object_place(url, storage_options)
    raise InputError(
        f"{url!r} names a place of kind {scheme!r}: expected a local path, memory:// or s3://"
    )


@contextlib.contextmanager
def _explain_full_disk(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(
                f"no space is left under {root}: earlier batches are intact; "
                "make room and run again with --resume"
            ) from error
        raise


class LocalPlace(Place):
    """A folder. Objects are made as temporary files and then linked, which fails if one exists."""

    def __init__(self, root: Path, *, fsync: bool = True) -> None:
        self.root = Path(os.path.realpath(root))
        self.url = str(root)
        self.fsync = fsync
        self._made: set[Path] = set()

    @property
    def address(self) -> str:
        """Absolute path."""
        return str(self.root)

    def _path(self, key: str) -> Path:
        return self.root / key

    def _inside(self, key: str) -> Path:
        """Refuse a link that leaves the store, anywhere on the way."""
        path = self.root / key
        real = os.path.realpath(path)
        if real != str(path):
            raise DamagedStoreError(
                f"{key} in {self.url} is a link, or leads through one, to {real}: "
                "a store holds plain files only; copy the data in, or remove the link"
            )
        return path

    def read(self, key: str, *, limit: int | None = None) -> bytes:
        """Read a whole object."""
        with self._inside(key).open("rb") as file:
            if limit is not None and os.fstat(file.fileno()).st_size > limit:
                raise DamagedStoreError(f"{key} in {self.url} is longer than {limit} bytes")
            return file.read()

    def read_into(self, key: str, requests: Sequence[tuple[int, Sequence[Any]]]) -> None:
        """Fill buffers from an object."""
        descriptor = os.open(self._inside(key), os.O_RDONLY)
        try:
            for offset, buffers in requests:
                at = offset if offset >= 0 else os.fstat(descriptor).st_size + offset
                if at < 0:
                    raise EOFError(key)
                for start in range(0, len(buffers), _VECTOR):
                    pending = [memoryview(b).cast("B") for b in buffers[start : start + _VECTOR]]
                    at = _read_vector(descriptor, pending, at, key)
        finally:
            os.close(descriptor)

    def size(self, key: str) -> int:
        """Length in bytes."""
        return self._inside(key).stat().st_size

    def _parent(self, path: Path) -> None:
        if path.parent not in self._made:
            path.parent.mkdir(parents=True, exist_ok=True)
            if len(self._made) > 64:
                self._made.clear()
            self._made.add(path.parent)

    def _write_temporary(self, parts: Parts, owner: str) -> Path:
        temporary = self.root / TEMPORARY / f"{owner or 'x'}-{uuid.uuid4().hex}"
        self._parent(temporary)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        try:
            descriptor = os.open(temporary, flags, 0o666)
        except FileNotFoundError:  # the folder was swept or cleared since
            temporary.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(temporary, flags, 0o666)
        try:
            _write_parts(descriptor, parts)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        return temporary

    def create(self, key: str, parts: Parts, *, owner: str = "") -> Stamp:
        """Make a new, whole object."""
        path = self._path(key)
        with _explain_full_disk(self.root):
            temporary = self._write_temporary(parts, owner)
            try:
                stamp = _file_stamp(temporary)
                self._parent(path)
                if self.fsync and key.startswith("commits/"):
                    _fsync(temporary)  # a marker is seen only with its content on the disk
                try:
                    _link(temporary, path)
                except FileNotFoundError:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    _link(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
        return stamp

    def stamp(self, key: str) -> Stamp | None:
        """Stamp of what lies there now."""
        try:
            return _file_stamp(self._path(key))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def make_durable(self, keys: Iterable[str]) -> None:
        """Wait for the disk."""
        if not self.fsync:
            return
        folders: dict[Path, None] = {}
        with _explain_full_disk(self.root):
            for key in keys:
                path = self._path(key)
                _fsync(path)
                for folder in path.parents:
                    folders[folder] = None
                    if folder == self.root:
                        break
            for folder in folders:
                _fsync(folder)

    def replace(self, key: str, data: bytes) -> None:
        """Write atomically over what lies there."""
        path = self._path(key)
        with _explain_full_disk(self.root):
            temporary = self._write_temporary([data], "replace")
            try:
                if self.fsync:
                    _fsync(temporary)
                self._parent(path)
                path.parent.mkdir(parents=True, exist_ok=True)
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
            if self.fsync:
                _fsync(path.parent)

    def delete(self, key: str) -> None:
        """Remove an object, if it is there."""
        self._path(key).unlink(missing_ok=True)

    def names(self, folder: str) -> list[str]:
        """Names directly in a folder."""
        try:
            with os.scandir(self._inside(folder)) as entries:
                return [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def walk(self) -> Iterator[tuple[str, int]]:
        """Key and size of everything."""
        for folder, _, names in os.walk(self.root):
            for name in names:
                path = Path(folder, name)
                with contextlib.suppress(FileNotFoundError):
                    yield path.relative_to(self.root).as_posix(), path.lstat().st_size

    def occupied(self) -> bool:
        """Whether a file or a folder lies here."""
        return self.root.exists()

    def zarr_store(self) -> Any:
        """Zarr's own read-only view."""
        from zarr.storage import LocalStore

        return LocalStore(self.root, read_only=True)

    def copy_from(self, source: Place, source_key: str, key: str) -> None:
        """Take over the bytes of another object."""
        if isinstance(source, LocalPlace):
            path = self._path(key)
            self._parent(path)
            try:
                os.link(source._inside(source_key), path)
                return
            except FileExistsError:
                raise
            except OSError:  # another file system: copy
                pass
        self.create(key, _pieces(source, source_key), owner="copy")

    def sweep(self, prefix: str) -> list[str]:
        """Remove unfinished objects."""
        swept = [name for name in self.names(TEMPORARY) if name.startswith(prefix)]
        for name in swept:
            self.delete(f"{TEMPORARY}/{name}")
        return swept

    def clear(self) -> None:
        """Remove everything."""
        self.delete("zarr.json")
        if self.root.exists():
            shutil.rmtree(self.root)
        self._made.clear()


def _pieces(source: Place, key: str) -> Iterator[bytes]:
    """Read an object in pieces of 8 MB."""
    length, at = source.size(key), 0
    while at < length:
        piece = bytearray(min(8 << 20, length - at))
        source.read_into(key, [(at, [piece])])
        at += len(piece)
        yield bytes(piece)


def _link(temporary: Path, path: Path) -> None:
    """Give a file its name, unless that is taken; never over another file."""
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
            raise
        # No hard links here. The name is claimed first: torn only until the marker is written.
        with path.open("xb") as target, temporary.open("rb") as file:
            shutil.copyfileobj(file, target, 8 << 20)


def _file_stamp(path: Path) -> tuple[int, int, int]:
    status = path.lstat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_parts(descriptor: int, parts: Parts) -> None:
    """Write pieces with as few system calls as may be, keeping what is written cache-warm."""
    pending: list[memoryview] = []
    size = 0
    for part in parts:
        view = memoryview(part)
        pending.append(view)
        size += view.nbytes
        if size >= 1 << 20 or len(pending) >= _VECTOR:
            _write_vector(descriptor, pending)
            pending, size = [], 0
    _write_vector(descriptor, pending)


def _write_vector(descriptor: int, views: list[memoryview]) -> None:
    while views:
        written = os.writev(descriptor, views)
        while views and written >= views[0].nbytes:
            written -= views.pop(0).nbytes
        if written:
            views[0] = views[0][written:]


def _read_vector(descriptor: int, views: list[memoryview], offset: int, key: str) -> int:
    while views:
        count = os.preadv(descriptor, views, offset)
        if not count:
            raise EOFError(key)
        offset += count
        while views and count >= views[0].nbytes:
            count -= views.pop(0).nbytes
        if count:
            views[0] = views[0][count:]
    return offset
