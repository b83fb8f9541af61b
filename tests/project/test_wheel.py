"""The wheel: small, and enough by itself, in an empty folder far from a clone."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LARGEST = 15e6
COUNTS_NOTHING = """
import sys
import asced_analysis as aa, asced_cli
from pathlib import Path
from asced_analysis.detection.apply import detect
from asced_cli.main import run
from asced_recorders.pipelines.loading import embedded_models
from asced_stores.testing import synthetic_store

here = Path(sys.argv[1])
assert all(here in Path(module.__file__).parents for module in (aa, asced_cli)), aa.__file__
synthetic_store("runs.zarr", runs=40, steps=8, shape=(1, 8, 8))
ds = aa.open_runs("runs.zarr")
thresholds = aa.calibrate("runs.zarr", false_alarm_rate=0.2)
detect(ds, thresholds)["flagged"].values
assert "numba" not in sys.modules, "nothing was counted yet"
assert run(["info", "runs.zarr"]) == 0
assert embedded_models() == ["fashion"]
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


def test_it_is_small_and_holds_what_is_used(wheel: Path) -> None:
    assert wheel.stat().st_size < LARGEST
    with zipfile.ZipFile(wheel) as content:
        names = set(content.namelist())
    assert {
        "asced_recorders/models/fashion/unet/diffusion_pytorch_model.safetensors",
        "asced_analysis/realism/fashion/judge.safetensors",
        "asced_analysis/monitoring/grafana.json",
        "asced_analysis/viewer/web/index.html",
        "asced_analysis/export/__init__.pyi",
    } <= names
    tops = {name.split("/")[0] for name in names}
    assert tops == {"asced_analysis", "asced_cli", "asced_recorders", "asced_stores"} | {
        top for top in tops if top.endswith(".dist-info")
    }


def test_messages_name_extras_that_there_are(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as content:
        (metadata,) = (name for name in content.namelist() if name.endswith("/METADATA"))
        extras = re.findall(r"^Provides-Extra: (.+)$", content.read(metadata).decode(), re.M)
        code = {
            name: content.read(name).decode() for name in content.namelist() if name.endswith(".py")
        }
    hint = re.compile(r"install_hint\(['\"](\w+)")
    named = {extra for text in code.values() for extra in hint.findall(text)}
    assert named <= set(extras)
    assert {"record", "viewer", "hub", "monitor"} <= named
    assert [name for name, text in code.items() if "pip install 'asced" in text] == [
        "asced_stores/errors.py"
    ]


def test_it_works_without_a_clone_and_loads_numba_only_to_count(
    wheel: Path, tmp_path: Path
) -> None:
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    zipfile.ZipFile(wheel).extractall(site)
    done = subprocess.run(
        [sys.executable, "-c", COUNTS_NOTHING, str(site)],
        cwd=empty,
        env={"PYTHONPATH": str(site), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
