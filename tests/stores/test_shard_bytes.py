"""The bytes of shards: zarr itself must read them, and every checksum must hold."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from asced_stores.backends.local import LocalBackend
from asced_stores.errors import DamagedBatchError
from asced_stores.format.batches import read_shard
from asced_stores.format.checksums import combine, crc32c, extend
from asced_stores.format.layout import ArrayLayout
from asced_stores.format.memory import empty
from asced_stores.format.shards import ShardEncoder
from asced_stores.format.spec import DTYPES, VariableSpec


def test_checksum_is_the_castagnoli_one() -> None:
    assert crc32c(b"123456789") == 0xE3069283


@settings(deadline=None)
@given(st.binary(max_size=300), st.binary(max_size=300))
def test_checksums_of_pieces_combine(first: bytes, second: bytes) -> None:
    assert combine(crc32c(first), crc32c(second), len(second)) == crc32c(first + second)
    assert extend(crc32c(first), memoryview(second)) == crc32c(first + second)


@settings(max_examples=20, deadline=None)
@given(
    batch_size=st.integers(1, 6),
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    dtype=st.sampled_from(DTYPES),
    stepwise=st.booleans(),
    chunk_bytes=st.sampled_from([1, 40, 200, 10**6]),
    data=st.data(),
)
def test_zarr_reads_every_layout(
    tmp_path_factory: pytest.TempPathFactory,
    batch_size: int,
    shape: list[int],
    dtype: str,
    stepwise: bool,
    chunk_bytes: int,
    data: st.DataObject,
) -> None:
    dims = ("step" if stepwise else "first", "second", "third")[: len(shape)]
    variable = VariableSpec("eps", dims, tuple(shape), dtype)
    layout = ArrayLayout.choose(variable, batch_size, chunk_bytes=chunk_bytes)
    runs = data.draw(st.integers(1, batch_size))
    rng = np.random.default_rng(runs)
    array = rng.integers(0, 2 if dtype == "bool" else 100, (runs, *shape)).astype(dtype)
    backend = LocalBackend(tmp_path_factory.mktemp("shard"), fsync=False)
    backend.replace("zarr.json", json.dumps({"zarr_format": 3, "node_type": "group"}).encode())
    backend.replace("eps/zarr.json", json.dumps(layout.metadata(3 * batch_size)).encode())
    encoder = ShardEncoder(array, layout)
    backend.create(layout.key(1), encoder.parts())
    whole = backend.read(layout.key(1))
    assert (len(whole), crc32c(whole)) == (encoder.nbytes, encoder.checksum)
    read = np.asarray(zarr.open_group(backend.root, mode="r")["eps"])
    np.testing.assert_array_equal(read[batch_size : batch_size + runs], array)
    first = data.draw(st.integers(0, runs - 1))
    step = data.draw(st.integers(0, shape[0] - 1))
    part = read_shard(backend, layout, 1, runs=slice(first, runs), steps=slice(step, None))
    np.testing.assert_array_equal(part, array[first:, step:])


def test_slots_of_a_short_batch_are_absent(tmp_path_factory: pytest.TempPathFactory) -> None:
    variable = VariableSpec("eps", ("step", "y"), (2, 3), "float16")
    layout = ArrayLayout.choose(variable, 4, chunk_bytes=6)
    backend = LocalBackend(tmp_path_factory.mktemp("short"), fsync=False)
    backend.create(layout.key(0), ShardEncoder(np.ones((1, 2, 3), "<f2"), layout).parts())
    assert backend.size(layout.key(0)) == 2 * (6 + 4) + layout.index_nbytes
    read = read_shard(backend, layout, 0)
    assert (read[0] == 1).all()
    assert np.isnan(read[1:]).all()


def test_every_flipped_bit_and_every_truncation_is_refused(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    variable = VariableSpec("eps", ("step", "y"), (3, 4), "float16")
    layout = ArrayLayout.choose(variable, 2, chunk_bytes=8)
    backend = LocalBackend(tmp_path_factory.mktemp("flips"), fsync=False)
    backend.create(layout.key(0), ShardEncoder(np.ones((2, 3, 4), "<f2"), layout).parts())
    file = backend.root / layout.key(0)
    good = file.read_bytes()
    for position in range(len(good)):
        bad = bytearray(good)
        bad[position] ^= 1 << random.Random(position).randrange(8)
        file.write_bytes(bad)
        with pytest.raises(DamagedBatchError):
            read_shard(backend, layout, 0)
    for length in range(0, len(good), 7):
        file.write_bytes(good[:length])
        with pytest.raises(DamagedBatchError):
            read_shard(backend, layout, 0)


@pytest.mark.parametrize("offset", [1 << 40, 1 << 63, (1 << 64) - 2])
def test_an_index_with_a_valid_checksum_but_absurd_offsets(
    tmp_path_factory: pytest.TempPathFactory, offset: int
) -> None:
    variable = VariableSpec("eps", ("step",), (4,), "float16")
    layout = ArrayLayout.choose(variable, 1)
    backend = LocalBackend(tmp_path_factory.mktemp("absurd"), fsync=False)
    backend.create(layout.key(0), ShardEncoder(np.ones((1, 4), "<f2"), layout).parts())
    file = backend.root / layout.key(0)
    data = bytearray(file.read_bytes())
    data[-20:-12] = offset.to_bytes(8, "little")
    data[-4:] = crc32c(bytes(data[-20:-4])).to_bytes(4, "little")
    file.write_bytes(data)
    with pytest.raises(DamagedBatchError):
        read_shard(backend, layout, 0)


def test_chunks_stay_below_the_limit_and_contiguous() -> None:
    for shape, batch_size in (((1, 32, 32), 64), ((4, 64, 64), 16), ((3, 256, 256), 16)):
        variable = VariableSpec("eps", ("step", "channel", "y", "x"), (25, *shape), "float16")
        layout = ArrayLayout.choose(variable, batch_size)
        runs, steps = layout.inner[:2]
        assert layout.chunk_nbytes <= 1 << 19
        assert runs == 1 or steps == 25
        assert batch_size % runs == 0
        assert 25 % steps == 0


@pytest.mark.parametrize("inner", [(1, 3), (2, 6), (2, 3)])
@pytest.mark.parametrize("threads", [1, 3])
def test_threads_share_a_large_shard_whatever_its_chunks(
    tmp_path_factory: pytest.TempPathFactory, inner: tuple[int, int], threads: int
) -> None:
    variable = VariableSpec("eps", ("step", "channel", "y", "x"), (6, 4, 128, 128), "float16")
    layout = ArrayLayout(variable, 6, (*inner, 4, 128, 128))
    array = np.random.default_rng(0).standard_normal((6, *variable.shape)).astype(np.float16)
    backend = LocalBackend(tmp_path_factory.mktemp("shared"), fsync=False)
    backend.create(layout.key(0), ShardEncoder(array[:5], layout).parts())
    part = read_shard(backend, layout, 0, runs=slice(1, 5), steps=slice(1, 6), threads=threads)
    np.testing.assert_array_equal(part, array[1:5, 1:6])
    out = np.empty((4, 6, 4, 128, 128), np.float16)
    read_shard(backend, layout, 0, runs=slice(1, 5), out=out, threads=threads)
    np.testing.assert_array_equal(out, array[1:5])
    file = backend.root / layout.key(0)
    data = bytearray(file.read_bytes())
    data[-layout.index_nbytes - 100_000] ^= 4  # in the last chunk
    file.write_bytes(data)
    with pytest.raises(DamagedBatchError, match="checksum"):
        read_shard(backend, layout, 0, threads=threads)


def test_large_arrays_begin_with_a_page() -> None:
    large, small = empty((3, 25, 70, 70), np.dtype("<f2")), empty((2, 3), np.dtype("<f2"))
    assert large.__array_interface__["data"][0] % 4096 == 0
    assert (large.shape, large.dtype, small.shape) == ((3, 25, 70, 70), np.float16, (2, 3))


def test_very_large_arrays_begin_with_a_huge_page() -> None:
    large = empty((64, 25, 1, 32, 33), np.dtype("<f2"))
    assert large.__array_interface__["data"][0] % (1 << 21) == 0
    assert large.shape == (64, 25, 1, 32, 33)
