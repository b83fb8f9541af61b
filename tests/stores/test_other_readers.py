"""Readers that are not zarr-python: tensorstore, zarrs, and zarrita in JavaScript."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asced_stores import open_runs
from asced_stores.testing import synthetic_store

pytestmark = pytest.mark.thirdparty

NODE_MODULES = Path(os.environ.get("ASCED_NODE", "build/node")).resolve() / "node_modules"
READ = """
import * as zarr from "MODULES/zarrita/dist/src/index.js";
import FileSystemStore from "MODULES/@zarrita/storage/dist/src/fs.js";
const root = zarr.root(new FileSystemStore(process.argv[2]));
const read = async name => zarr.get(await zarr.open(root.resolve(name), { kind: "array" }));
const found = {};
for (const name of ["eps", "sample", "log_snr"]) {
  const { data, shape } = await read(name);
  found[name] = { shape, sum: Array.from(data, Number).reduce((a, b) => a + b, 0) };
}
console.log(JSON.stringify(found));
"""


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Stores of float32 and float16, and what they hold."""
    folder = tmp_path_factory.mktemp("readers")
    for dtype in ("float32", "float16"):
        synthetic_store(folder / f"{dtype}.zarr", runs=10, steps=4, dtype=dtype).seal()
    return folder, {d: open_runs(folder / f"{d}.zarr").load() for d in ("float32", "float16")}


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_tensorstore_reads_a_store(dtype: str, stored: Any) -> None:
    tensorstore = pytest.importorskip("tensorstore", reason="make test-thirdparty")
    folder, held = stored
    for name in ("eps", "x_init"):
        path = str(folder / f"{dtype}.zarr" / name)
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": path}}
        found = tensorstore.open(spec, read=True).result().read().result()
        np.testing.assert_array_equal(found, held[dtype][name].values)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_zarrs_reads_a_store(dtype: str, stored: Any) -> None:
    pytest.importorskip("zarrs", reason="make test-thirdparty")
    import zarr

    folder, held = stored
    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        group = zarr.open_group(folder / f"{dtype}.zarr", mode="r")
        for name in ("eps", "x_init"):
            np.testing.assert_array_equal(group[name][...], held[dtype][name].values)


def test_javascript_reads_float32_and_says_that_it_has_no_float16(
    stored: Any, tmp_path: Path
) -> None:
    node = shutil.which("node")
    if node is None or not (NODE_MODULES / "zarrita").is_dir():
        pytest.skip("node, or zarrita in build/node, is not installed: make test-thirdparty")
    folder, held = stored
    script = tmp_path / "read.mjs"
    script.write_text(READ.replace("MODULES", str(NODE_MODULES)))

    def answer(dtype: str) -> subprocess.CompletedProcess[str]:
        command = [node, str(script), str(folder / f"{dtype}.zarr")]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    found = json.loads(answer("float32").stdout)
    for name, facts in found.items():
        values = held["float32"][name].values
        assert facts["shape"] == list(values.shape)
        assert facts["sum"] == pytest.approx(values.astype("f8").sum(), rel=1e-9, abs=1e-9)
    half = answer("float16")
    if half.returncode:  # JavaScript has float16 from Node 24 on
        assert "Unknown or unsupported dataType: float16" in half.stderr
    else:
        shape = json.loads(half.stdout)["eps"]["shape"]
        assert shape == list(held["float16"]["eps"].shape)
