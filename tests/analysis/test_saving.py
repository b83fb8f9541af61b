"""Saving results: types, and kills while an old result is replaced."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import xarray as xr

from asced_analysis.statistics.saving import load, save
from asced_stores.errors import InputError

SAVER = """
import os, shutil, sys
from pathlib import Path
import numpy as np, xarray as xr
from asced_analysis.statistics.saving import save

folder = Path(sys.argv[1])
for kill_at in range(100):
    target = folder / f"{kill_at}" / "result.zarr"
    shutil.copytree(folder / "template", target.parent)
    child = os.fork()
    if child == 0:
        seen = 0

        def hook(event, arguments):
            # count from when the old result is first touched, and die before it happens
            global seen
            if event in ("os.rename", "os.remove", "os.rmdir", "shutil.rmtree"):
                if seen or str(target) in map(str, arguments):
                    if seen == kill_at:
                        os._exit(9)
                    seen += 1

        sys.addaudithook(hook)
        save(xr.Dataset({"value": ("x", np.ones(5))}), target, overwrite=True)
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
        break
"""


def test_a_kill_while_replacing_leaves_the_old_result_or_the_new_one_whole(tmp_path):
    old, new = (xr.Dataset({"value": ("x", np.full(5, v))}) for v in (0.0, 1.0))
    (tmp_path / "template").mkdir()
    save(old, tmp_path / "template" / "result.zarr")
    subprocess.run([sys.executable, "-c", SAVER, str(tmp_path)], check=True, timeout=120)
    found = []
    for folder in sorted(tmp_path.iterdir(), key=lambda path: (len(path.name), path.name)):
        if folder.name == "template":
            continue
        target = folder / "result.zarr"
        if not target.exists():
            with pytest.raises(InputError, match=r"\.result\.zarr\.old does.*Rename it to"):
                load(target)
            (folder / ".result.zarr.old").rename(target)
        result = load(target)
        assert result.identical(old) or result.identical(new)
        found.append(result.identical(new))
        save(new, target, overwrite=True)  # whatever was left does not stand in the way
        assert load(target).identical(new)
        assert not (folder / ".result.zarr.old").exists()
    assert len(found) > 3
    assert not found[0]
    assert found[-1]


def test_a_result_of_another_kind_is_refused(tmp_path):
    array = xr.DataArray(np.zeros(3), dims="step", name="level")
    with pytest.raises(InputError, match=r"a DataArray found.*to_dataset"):
        save(array, tmp_path / "levels.zarr")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"a ndarray found; expected a Dataset, a DataFrame"):
        save(np.zeros(3), tmp_path / "levels.zarr")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
    save(array.to_dataset(), tmp_path / "levels.zarr")
    assert load(tmp_path / "levels.zarr")["level"].identical(array)
