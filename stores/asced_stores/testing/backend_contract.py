"""What every backend must do with single objects."""

# ruff: noqa: D102

from __future__ import annotations

from typing import Any

import pytest

from asced_stores.backends.backend import Backend
from asced_stores.backends.opening import open_backend


def flip(backend: Backend, key: str, position: int, bit: int = 0) -> None:
    """Flip one bit of an object."""
    data = bytearray(backend.read(key))
    data[position] ^= 1 << bit
    backend.delete(key)
    backend.create(key, [bytes(data)])


class BackendContract:
    """Objects are made whole and only once, and read in parts; needs a fixture ``path``."""

    @pytest.fixture
    def storage_options(self) -> dict[str, Any] | None:
        """Options of the backend."""
        return None

    def test_objects_are_made_whole_and_only_once(self, path: str, storage_options: Any) -> None:
        backend = open_backend(path, storage_options=storage_options)
        stamp = backend.create("a/b/0", [b"one", memoryview(b"two")])
        assert backend.read("a/b/0") == b"onetwo"
        assert backend.stamp("a/b/0") == stamp
        with pytest.raises(FileExistsError):
            backend.create("a/b/0", [b"three"])
        assert backend.read("a/b/0") == b"onetwo"
        assert backend.stamp("a/b/1") is None
        assert list(backend.walk()) == [("a/b/0", 6)]
        backend.delete("a/b/0")
        backend.delete("a/b/0")
        with pytest.raises(FileNotFoundError):
            backend.read("a/b/0")

    def test_parts_of_an_object_fill_buffers(self, path: str, storage_options: Any) -> None:
        backend = open_backend(path, storage_options=storage_options)
        backend.create("a", [bytes(range(100))])
        first, second, tail = bytearray(3), bytearray(2), bytearray(4)
        with backend.reader("a") as reader:
            reader.read_into([(10, [first, second]), (-4, [tail])])
        assert bytes(first + second + tail) == b"\x0a\x0b\x0c\x0d\x0e\x60\x61\x62\x63"
        with pytest.raises(EOFError), backend.reader("a") as reader:
            reader.read_into([(98, [bytearray(4)])])
        with pytest.raises(FileNotFoundError), backend.reader("b") as reader:
            reader.read_into([(0, [bytearray(4)])])

    def test_names_are_those_of_one_folder(self, path: str, storage_options: Any) -> None:
        backend = open_backend(path, storage_options=storage_options)
        for key in ("a/1", "a/2", "a/b/3", "c"):
            backend.replace(key, b"x")
        assert sorted(backend.names("a")) == ["1", "2"]
        assert backend.names("nothing") == []
