"""An installation without torch, diffusers and pyarrow analyses all that was recorded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ABSENT = (
    *("torch", "functorch", "diffusers", "transformers", "accelerate", "tokenizers"),
    *("huggingface_hub", "nvidia", "triton", "efficientnet", "pyarrow"),
)
SCRIPT = """
import importlib.util, json, sys
from asced_cli.main import run
from asced_stores.testing import synthetic_store

here = [name for name in ("torch", "diffusers", "pyarrow") if importlib.util.find_spec(name)]
assert not here, here
synthetic_store("runs.zarr", runs=96, seal=True)
print(json.dumps({line: run(line.split()) for line in json.load(sys.stdin)}), file=sys.stderr)
"""
WORKS = (
    "info runs.zarr",
    "verify runs.zarr",
    "select runs.zarr --runs 0-59 --out some.zarr",
    "seal some.zarr",
    "stats some.zarr --out stats.zarr --plot stats.png",
    "phases some.zarr --out phases.json",
    "calibrate runs.zarr --false-alarm-rate 0.2 --out thresholds.json",
    "calibrate --check some.zarr thresholds.json",
    "detect some.zarr --thresholds thresholds.json --out flags.npz",
    "evaluate some.zarr --judge patches --out quality.json",
    "report some.zarr --thresholds thresholds.json --gallery 2 --out report.html",
    "export thresholds.json --format bundle --out bundle",
)
NEEDS_TORCH = "replay some.zarr --strategy none --out again.zarr"


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages that are installed here, but for those that an analysis must not need."""
    folder = tmp_path_factory.mktemp("packages")
    for place in (Path(entry) for entry in sys.path if entry.endswith("site-packages")):
        for package in place.iterdir():
            link = folder / package.name
            wanted = not package.name.lower().startswith(ABSENT) and package.suffix != ".pth"
            if wanted and not link.exists():
                link.symlink_to(package)
    return folder


@pytest.mark.pages
def test_everything_that_samples_nothing_works(packages: Path, tmp_path: Path) -> None:
    roots = [packages, ROOT, ROOT / "recorders", ROOT / "stores", ROOT / "cli"]
    done = subprocess.run(
        [sys.executable, "-S", "-c", SCRIPT],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, roots))},
        input=json.dumps([*WORKS, NEEDS_TORCH]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, done.stderr
    said, _, last = done.stderr.strip().rpartition("\n")
    statuses = json.loads(last)
    assert {line: statuses[line] for line in WORKS} == dict.fromkeys(WORKS, 0), said
    assert statuses[NEEDS_TORCH] == 2
    assert "pip install 'asced-analysis[record]'" in said
