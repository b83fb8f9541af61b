"""``experiments`` is a package: every module loads by its full name from anywhere."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import experiments
import training


@pytest.mark.pages
def test_every_module_loads_by_its_full_name(tmp_path: Path) -> None:
    names = [
        found.name
        for package in (experiments, training)
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        if not found.name.endswith(("__main__", ".pipeline"))
    ]
    assert len(names) > 40
    script = f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\n"
    leaves = {name.rsplit(".", 1)[1] for name in names}
    script += f"print(sorted({leaves!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    # loaded by a bare name, as a path pushed into sys.path would do it
    assert done.stdout.strip() == "[]"
