"""A folder on a local disk, or on one that is mounted over a network: no locks, only links."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from asced_stores.backends.backend import TEMPORARY, Backend, Parts, Stamp, pieces
from asced_stores.backends.opening import BackendEntry
from asced_stores.errors import DamagedStoreError, DiskFullError, StoreExistsError

_VECTOR = 1000  # the system takes 1024 at once
_READ_GROUP = 1 << 20  # checksums then find the bytes in the cache
_WRITE_GROUP = 8 << 20  # a tenth less CPU than 1 MB at a time
_REMEMBERED = 4096


class LocalBackend(Backend):
    """A folder. Objects are made as temporary files and then linked, which fails if one exists."""

    def __init__(self, root: Path, *, fsync: bool = True) -> None:
        self.root = Path(os.path.realpath(root))
        self.url = str(root)
        self.fsync = fsync
        self._made: set[Path] = set()
        self._settled: set[Path] = set()

    @property
    def address(self) -> str:
        """Absolute path."""
        return str(self.root)

    @property
    def position(self) -> tuple[str, ...]:
        """Folders from the root of the file system on, links followed."""
        return self.root.parts

    # --- reading --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _opened(self, key: str) -> Iterator[int]:
        """Open a file for reading, unless a link leads out of the store on the way to it."""
        path = f"{self.root}/{key}"
        descriptor = os.open(path, os.O_RDONLY)
        try:
            try:  # one system call; realpath needs one for each folder
                real = os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115
            except OSError:
                real = ""
            if real != path:
                self._check_inside(path)
            yield descriptor
        finally:
            os.close(descriptor)

    def _check_inside(self, path: str | Path) -> None:
        real = os.path.realpath(path)
        if real != str(path):
            raise DamagedStoreError(
                f"{path} is a link, or leads through one, to {real}: "
                "a store holds plain files only; copy the data in, or remove the link"
            )

    def read(self, key: str, *, limit: int | None = None) -> bytes:
        """Read a whole object."""
        with self._opened(key) as descriptor, open(descriptor, "rb", closefd=False) as file:
            if limit is not None and os.fstat(descriptor).st_size > limit:
                raise DamagedStoreError(f"{key} in {self.url} is longer than {limit} bytes")
            return file.read()

    @contextlib.contextmanager
    def reader(self, key: str) -> Iterator[LocalReader]:
        """Open an object, to fill buffers from it."""
        with self._opened(key) as descriptor:
            yield LocalReader(descriptor, key)

    def size(self, key: str) -> int:
        """Length in bytes."""
        with self._opened(key) as descriptor:
            return os.fstat(descriptor).st_size

    def stamp(self, key: str) -> Stamp | None:
        """Stamp of what lies there now."""
        try:
            return _file_stamp(self.root / key)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def names(self, folder: str) -> list[str]:
        """Names directly in a folder."""
        path = self.root / folder
        try:
            with os.scandir(path) as entries:
                found = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
        except (FileNotFoundError, NotADirectoryError):
            return []
        self._check_inside(path)
        return found

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

    # --- writing --------------------------------------------------------------------------------

    def _make_folder(self, folder: Path) -> None:
        """Make a folder, and make sure once that no link leads out of the store there."""
        if folder not in self._made:
            self._check_inside(folder)
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except (NotADirectoryError, FileExistsError) as error:
                raise StoreExistsError(
                    f"{self.url} is a file, or holds one where a folder should be: "
                    "choose another --out"
                ) from error
            if len(self._made) > _REMEMBERED:
                self._made.clear()
            self._made.add(folder)

    def _write_temporary(self, parts: Parts, owner: str) -> Path:
        """Write a new file, content durable, under a name of its own."""
        temporary = self.root / TEMPORARY / f"{owner or 'x'}-{uuid.uuid4().hex}"
        self._make_folder(temporary.parent)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            _write_parts(descriptor, parts)
            if self.fsync:
                os.fsync(descriptor)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        return temporary

    def create(self, key: str, parts: Parts, *, owner: str = "") -> Stamp:
        """Make a new, whole object."""
        path = self.root / key
        with _explain_full_disk(self.root):
            temporary = self._write_temporary(parts, owner)
            try:
                self._make_folder(path.parent)
                return _link(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)

    def make_durable(self, keys: Iterable[str]) -> None:
        """Wait for the disk: folders at once, since they share the disk's barriers."""
        if not self.fsync:
            return
        folders: dict[Path, None] = {}
        for key in keys:
            for folder in (self.root / key).parents:
                folders[folder] = None
                # The entry of a settled folder is durable in its own parent.
                if folder in self._settled or folder == self.root.parent:
                    break
        with (
            _explain_full_disk(self.root),
            ThreadPoolExecutor(8, thread_name_prefix="asced-fsync") as pool,
        ):
            list(pool.map(_fsync, folders))
        if len(self._settled) > _REMEMBERED:
            self._settled.clear()
        self._settled.update(folders)

    def replace(self, key: str, data: bytes) -> None:
        """Write atomically over what lies there."""
        path = self.root / key
        with _explain_full_disk(self.root):
            for attempt in range(3):
                temporary = self._write_temporary([data], "replace")
                try:
                    self._make_folder(path.parent)
                    temporary.replace(path)
                    break
                except FileNotFoundError:  # someone who swept took it for a dead process's
                    if attempt == 2:
                        raise
                finally:
                    temporary.unlink(missing_ok=True)
            if self.fsync:
                _fsync(path.parent)

    def delete(self, key: str) -> None:
        """Remove an object, if it is there."""
        path = self.root / key
        if path.parent not in self._made and path.parent.exists():
            self._check_inside(path.parent)
        with contextlib.suppress(NotADirectoryError):
            path.unlink(missing_ok=True)

    def copy_from(self, source: Backend, source_key: str, key: str) -> None:
        """Take over the bytes of another object."""
        if isinstance(source, LocalBackend):
            path = self.root / key
            self._make_folder(path.parent)
            with source._opened(source_key):
                pass
            try:
                os.link(source.root / source_key, path)
                return
            except FileExistsError:
                raise
            except OSError:  # another file system: copy
                pass
        self.create(key, pieces(source, source_key), owner="copy")

    def sweep(self, prefix: str | tuple[str, ...]) -> list[str]:
        """Remove unfinished objects."""
        swept = [name for name in self.names(TEMPORARY) if name.startswith(prefix)]
        for name in swept:
            self.delete(f"{TEMPORARY}/{name}")
        return swept

    def clear(self) -> None:
        """Remove everything."""
        self.delete("zarr.json")
        if self.root.exists():
            self.make_durable(["zarr.json"])  # or a crash would leave half of it as a whole store
            shutil.rmtree(self.root)
        self._made.clear()
        self._settled.clear()


class LocalReader:
    """An open file."""

    group = _READ_GROUP

    def __init__(self, descriptor: int, key: str) -> None:
        self._descriptor = descriptor
        self._key = key
        self._expected: Iterable[tuple[int, int]] | None = None

    def expect(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Remember what the disk shall begin with once something is not in the system's cache."""
        self._expected = ranges

    def _announce(self) -> None:
        """Have the disk begin with all that is expected; where it is cached, 0.2 ms in vain."""
        expected, self._expected = self._expected, None
        if hasattr(os, "posix_fadvise"):
            for offset, length in expected or ():
                os.posix_fadvise(self._descriptor, offset, length, os.POSIX_FADV_WILLNEED)

    def read_into(self, requests: Sequence[tuple[int, Sequence[Any]]]) -> None:
        """Fill buffers; see `Backend.reader`."""
        for offset, buffers in requests:
            at = offset
            if offset < 0:
                at += os.fstat(self._descriptor).st_size
                if at < 0:
                    raise EOFError(self._key)
            for start in range(0, len(buffers), _VECTOR):
                at = self._read_vector(buffers[start : start + _VECTOR], at)

    def _read_vector(self, buffers: Sequence[Any], offset: int) -> int:
        """Fill buffers from there on, and say where that ended."""
        count = 0
        if self._expected is not None:
            count = _read_cached(self._descriptor, buffers, offset)
        views = [memoryview(buffer).cast("B") for buffer in buffers]
        end = offset + sum(view.nbytes for view in views)
        while True:
            offset += count
            if offset == end:
                return end
            while views and count >= views[0].nbytes:
                count -= views.pop(0).nbytes
            if count:
                views[0] = views[0][count:]
            self._announce()
            count = os.preadv(self._descriptor, views, offset)
            if not count:
                raise EOFError(self._key)


def _read_cached(descriptor: int, buffers: Sequence[Any], offset: int) -> int:
    """Read what the system has in memory, without waiting for the disk; 0 where there is none."""
    if not hasattr(os, "RWF_NOWAIT"):
        return 0
    try:
        return os.preadv(descriptor, buffers, offset, os.RWF_NOWAIT)
    except OSError:  # nothing is there, or this file system cannot say
        return 0


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


def _link(temporary: Path, path: Path) -> Stamp:
    """Give a file its name, unless that is taken; never over another file."""
    stamp = _file_stamp(temporary)
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
            raise
        # No hard links here. The name is claimed first: torn only until the marker is written.
        with path.open("xb") as target, temporary.open("rb") as file:
            shutil.copyfileobj(file, target, 8 << 20)
            target.flush()
            os.fsync(target.fileno())
            stamp = _file_stamp(path)
    return stamp


def _file_stamp(path: Path) -> tuple[int, int, int]:
    status = path.lstat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _fsync(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # a parent of the store that may be entered, but not read
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_parts(descriptor: int, parts: Parts) -> None:
    """Write pieces with few system calls."""
    pending: list[memoryview] = []
    size = 0
    for part in parts:
        view = memoryview(part)
        pending.append(view)
        size += view.nbytes
        if size >= _WRITE_GROUP or len(pending) >= _VECTOR:
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


def _open(url: str, *, fsync: bool, storage_options: Any = None) -> Backend:
    return LocalBackend(Path(url.removeprefix("file://")), fsync=fsync)


BACKEND = BackendEntry(("file",), _open)
