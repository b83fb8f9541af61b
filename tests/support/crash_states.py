"""Every state in which a crash can leave a folder, from the calls that a program made to it.

The model is that of ALICE (Pillai and others, OSDI 2014), at its most hostile. What was written to
a file is safe after an fsync of that file; each entry of a folder, made or removed, after an fsync
of that folder. Until then a crash leaves any subset of these changes, in any order between
different names, and of a file nothing, a part, zeros, or all. Where an fsync fails, the content of
that file is never safe again, whatever later calls say.
"""

from __future__ import annotations

import errno
import itertools
import math
import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

Tree = frozenset[tuple[str, bytes]]
"""Files that can be seen, each with its content."""
NOTHING: Tree = frozenset()
WATCHED = (
    *("open", "close", "writev", "fsync", "link", "unlink", "replace", "rename", "mkdir", "rmdir"),
)


@dataclass(eq=False)
class File:
    """Content, and whether an fsync made it safe."""

    content: bytes = b""
    safe: bool = False
    lost: bool = False

    def sync(self, failed: bool) -> None:
        """An fsync; after one that failed, no other one helps."""
        self.lost |= failed
        self.safe = not self.lost

    def choices(self, _forced: tuple[str, ...] = (), _temporary: bool = False) -> Choices:
        """What a crash may leave of it."""
        whole, half = self.content, len(self.content) // 2
        found = [whole]
        if not self.safe:
            found += [b"", whole[:half], bytes(len(whole)), bytes(half) + whole[half:]]
        return Choices(list(dict.fromkeys(found)))


@dataclass(eq=False)
class Folder:
    """Entries, each with what it has been since the last fsync, the safe value first."""

    entries: dict[str, list[File | Folder | None]] = field(default_factory=dict)

    def get(self, name: str) -> File | Folder | None:
        """What a running program sees under a name."""
        return self.entries.get(name, [None])[-1]

    def set(self, name: str, value: File | Folder | None) -> None:
        """Change an entry."""
        self.entries.setdefault(name, [None]).append(value)

    def sync(self, failed: bool) -> None:
        """An fsync; one that failed leaves the changes for the next."""
        if not failed:
            self.entries = {n: [v[-1]] for n, v in self.entries.items() if v[-1] is not None}

    def choices(self, forced: tuple[str, ...] = (), temporary: bool = False) -> Choices:
        """What a crash may leave of it.

        Parameters
        ----------
        forced : tuple of str
            Path of the newest change; what a crash leaves without it, was left before.
        temporary : bool
            Nobody goes by the names in here: what was removed comes back all together, or not.
        """
        entries: dict[str, list[Choices | None]] = {}
        removed: dict[str, list[Choices | None]] = {}
        for name, values in sorted(self.entries.items()):
            newest = forced[:1] == (name,)
            if temporary and values[-1] is None and not newest:
                removed[name] = [each.choices() for each in values if each is not None]
                continue
            options = dict.fromkeys(values[-1:] if newest else values)
            entries[name] = [
                None
                if value is None
                else value.choices(forced[1:] if newest else (), name.startswith("."))
                for value in options
            ]
        if removed:
            entries[""] = [None, Choices(entries=removed)]
        return Choices(entries=entries)


@dataclass(frozen=True)
class Choices:
    """A file with the contents that it may have, or a folder with what may lie in it."""

    contents: list[bytes] = field(default_factory=list)
    entries: dict[str, list[Choices | None]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many there are."""
        if self.contents:
            return len(self.contents)
        return math.prod(
            sum(1 if each is None else each.count for each in options)
            for options in self.entries.values()
        )

    def draw(self, rng: random.Random) -> Tree:
        """One of them."""
        if self.contents:
            return frozenset({("", rng.choice(self.contents))})
        chosen = ((name, rng.choice(options)) for name, options in self.entries.items())
        return NOTHING.union(*(_below(name, each.draw(rng)) for name, each in chosen if each))

    def all(self) -> Iterator[Tree]:
        """Each of them."""
        if self.contents:
            yield from (frozenset({("", content)}) for content in self.contents)
            return
        fixed, open_ = NOTHING, []
        for name, options in self.entries.items():
            if len(options) == 1 and (options[0] is None or options[0].count == 1):
                fixed |= NOTHING if options[0] is None else _below(name, next(options[0].all()))
            else:
                open_.append(
                    list(
                        dict.fromkeys(
                            tree
                            for each in options
                            for tree in (
                                [NOTHING] if each is None else (_below(name, t) for t in each.all())
                            )
                        )
                    )
                )
        for chosen in itertools.product(*open_):
            yield fixed.union(*chosen)


def _below(name: str, tree: Tree) -> Tree:
    return frozenset((f"{name}/{path}".strip("/"), data) for path, data in tree)


@dataclass(frozen=True)
class Moment:
    """States that a crash at one moment may leave, and what had been promised by then."""

    promised: tuple[Any, ...]
    choices: Choices

    def states(
        self, most: int | None, rng: random.Random, drawn: int | None = None
    ) -> Iterator[Tree]:
        """All of them where there are no more than `most`, or else so many drawn at random."""
        if most is None or self.choices.count <= most:
            yield from self.choices.all()
            return
        for _ in range(drawn or most):
            yield self.choices.draw(rng)


class Disk:
    """Watches the calls under a folder while a program runs, and keeps every `Moment`.

    Parameters
    ----------
    root : Path
        A folder that exists; what lies in it is safe.
    fail : int, optional
        Number of the call that fails, once.
    error : type of BaseException, optional
        How.
    """

    def __init__(
        self,
        root: Path,
        *,
        fail: int | None = None,
        error: Callable[[], BaseException] | None = None,
    ) -> None:
        self.root = root
        self.moments: list[Moment] = []
        self.calls: list[str] = []
        self.failed_at: int | None = None
        self._fail, self._error = fail, error or (lambda: OSError(errno.EIO, "failed"))
        self._promised: tuple[Any, ...] = ()
        self._open: dict[int, tuple[str, Any]] = {}
        self._turns: Turns | None = None
        self.folder = _copy(root)

    # --- what the checks ask for ----------------------------------------------------------------

    def promise(self, what: Any) -> None:
        """From now on, a crash must not lose this."""
        self._promised += (what,)
        self.moments.append(Moment(self._promised, self.folder.choices()))

    # --- what is watched ------------------------------------------------------------------------

    @contextmanager
    def watching(self, turns: Turns | None = None) -> Iterator[Disk]:
        """Watch the calls of this process."""
        self._turns = turns
        with ExitStack() as stack:
            for name in WATCHED:
                watched = _bound(getattr(self, f"_do_{name}"), getattr(os, name))
                stack.enter_context(mock.patch.object(os, name, watched))
            yield self

    def _path(self, path: Any, dir_fd: int | None = None) -> str | None:
        absolute = Path.cwd() / path
        if dir_fd is not None:
            absolute = Path(f"/proc/self/fd/{dir_fd}").readlink() / path
        inside = absolute.is_relative_to(self.root)
        return absolute.relative_to(self.root).as_posix() if inside else None

    def _find(self, path: str) -> tuple[Folder, str]:
        *folders, name = path.split("/")
        here: Any = self.folder
        for each in folders:
            here = here.get(each)
        return here, name

    def _call(self, what: str, path: str) -> bool:
        """Count a call; True where it is the one that fails."""
        if self._turns is not None:
            self._turns.wait()
        self.calls.append(f"{what} {path}")
        if len(self.calls) - 1 != self._fail:
            return False
        self.failed_at = len(self.moments)
        return True

    def _changed(self, path: str) -> None:
        self.moments.append(Moment(self._promised, self.folder.choices(tuple(path.split("/")))))

    def _refuse(self, what: str, path: str) -> None:
        if self._call(what, path):
            raise self._error()

    def _do_open(self, real: Any, path: Any, flags: int, *rest: Any, **options: Any) -> int:
        inside = self._path(path, options.get("dir_fd"))
        if inside is None:
            return int(real(path, flags, *rest, **options))
        creates = bool(flags & os.O_CREAT)
        if creates:
            self._refuse("create", inside)
        descriptor = int(real(path, flags, *rest, **options))
        folder, name = self._find(inside)
        if creates and folder.get(name) is None:
            folder.set(name, File())
            self._changed(inside)
        self._open[descriptor] = inside, self.folder if inside == "." else folder.get(name)
        return descriptor

    def _do_close(self, real: Any, descriptor: int) -> None:
        self._open.pop(descriptor, None)
        real(descriptor)

    def _do_writev(self, real: Any, descriptor: int, views: Any) -> int:
        inside, file = self._open.get(descriptor, (None, None))
        if inside is None:
            return int(real(descriptor, views))
        self._refuse("write", inside)
        written = int(real(descriptor, views))
        file.content += b"".join(bytes(view) for view in views)[:written]
        file.safe = False
        folder, name = self._find(inside)
        if folder.get(name) is file:  # else someone has removed the name meanwhile
            self._changed(inside)
        return written

    def _do_fsync(self, real: Any, descriptor: int) -> None:
        inside, node = self._open.get(descriptor, (None, None))
        if inside is None:
            real(descriptor)
            return
        failed = self._call("fsync", inside)
        node.sync(failed)
        if failed:
            raise self._error()

    def _do_link(self, real: Any, source: Any, target: Any, **options: Any) -> None:
        old, new = self._path(source), self._path(target)
        if new is None:
            real(source, target, **options)
            return
        self._refuse("link", new)
        real(source, target, **options)
        folder, name = self._find(new)
        if old is None:
            content: File | Folder | None = File(Path(source).read_bytes(), safe=True)
        else:
            there, own = self._find(old)
            content = there.get(own)
        folder.set(name, content)
        self._changed(new)

    def _do_replace(self, real: Any, source: Any, target: Any, **options: Any) -> None:
        old, new = self._path(source), self._path(target)
        if old is None or new is None:
            real(source, target, **options)
            return
        self._refuse("rename", new)
        real(source, target, **options)
        there, own = self._find(old)
        folder, name = self._find(new)
        folder.set(name, there.get(own))
        self._changed(new)
        there.set(own, None)
        self._changed(old)

    _do_rename = _do_replace

    def _do_unlink(self, real: Any, path: Any, **options: Any) -> None:
        inside = self._path(path, options.get("dir_fd"))
        if inside is None:
            real(path, **options)
            return
        self._refuse("unlink", inside)
        real(path, **options)
        folder, name = self._find(inside)
        folder.set(name, None)
        self._changed(inside)

    _do_rmdir = _do_unlink

    def _do_mkdir(self, real: Any, path: Any, *rest: Any, **options: Any) -> None:
        inside = self._path(path)
        if inside is None:
            real(path, *rest, **options)
            return
        self._refuse("mkdir", inside)
        real(path, *rest, **options)
        folder, name = self._find(inside)
        folder.set(name, Folder())
        self._changed(inside)


def _bound(watched: Any, real: Any) -> Any:
    return lambda *arguments, **options: watched(real, *arguments, **options)


def _copy(path: Path) -> Folder:
    """A safe folder as it lies on the disk."""
    return Folder(
        {
            each.name: [_copy(each) if each.is_dir() else File(each.read_bytes(), safe=True)]
            for each in path.iterdir()
        }
    )


class Turns:
    """Lets one of several threads run at a time, from one watched call to the next."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._change = threading.Condition()
        self._waiting: list[int] = []
        self._current: int | None = None

    def run(self, *programs: Callable[[], None]) -> list[BaseException | None]:
        """Run programs, interleaved at random, to their ends; what each raised."""
        ends: list[BaseException | None] = [None] * len(programs)
        self._waiting = list(range(len(programs)))
        self._current = self._rng.choice(self._waiting)

        def body(number: int) -> None:
            self._numbers.value = number
            self._until(number)
            try:
                programs[number]()
            except BaseException as error:
                ends[number] = error
            with self._change:
                self._waiting.remove(number)
                self._next()

        self._numbers: Any = threading.local()
        threads = [threading.Thread(target=body, args=(n,)) for n in range(len(programs))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return ends

    def wait(self) -> None:
        """Let another one go on, perhaps."""
        number = self._numbers.value
        with self._change:
            self._next()
        self._until(number)

    def _next(self) -> None:
        self._current = self._rng.choice(self._waiting) if self._waiting else None
        self._change.notify_all()

    def _until(self, number: int) -> None:
        with self._change:
            self._change.wait_for(lambda: self._current == number)
