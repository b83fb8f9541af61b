"""What the import contracts of pyproject.toml do not say: what is loaded, and what lies flat."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = sorted((ROOT / "cli" / "asced_cli" / "commands").glob("*.py"))


def test_nothing_lies_flat_in_the_analysis() -> None:
    flat = {path.name for path in (ROOT / "asced_analysis").glob("*.py")}
    assert flat == {"__init__.py", "accessor.py"}


def test_component_roots_are_no_packages() -> None:
    for folder in ("recorders", "stores", "cli"):
        assert not (ROOT / folder / "__init__.py").exists()


def _loaded_after(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_commands_load_nothing_heavy_for_their_help() -> None:
    heavy = {"numpy", "torch", "diffusers", "xarray", "zarr", "dask", "pandas", "matplotlib"}
    code = "\n".join(f"import asced_cli.commands.{path.stem}" for path in COMMANDS)
    assert not _loaded_after(code) & heavy


def test_analysis_imports_neither_torch_nor_diffusers_nor_click() -> None:
    heavy = {"torch", "diffusers", "click", "xarray", "numba"}
    assert not _loaded_after("import asced_analysis") & heavy


def test_a_corrector_loads_no_storage_and_no_statistics() -> None:
    loaded = _loaded_after("from asced_analysis.correction import Corrector")
    assert not loaded & {"zarr", "xarray", "dask", "sklearn"}


def test_contributors_are_told_the_same_layers() -> None:
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    page = (ROOT / "CONTRIBUTING.md").read_text()
    for package in ("asced_analysis", "asced_recorders", "asced_stores"):
        (layers,) = (
            one["layers"] for one in rules["contracts"] if one.get("containers") == [package]
        )
        row = re.search(rf"^\| `{package}` \| (.+) \|$", page, re.MULTILINE)
        assert row is not None
        told = re.sub(r" \(.*?\)", "", row[1]).replace("`", "")
        listed = [set(re.split(r" and |, ", each)) for each in re.split(r", (?!and )", told)]
        assert listed == [set(layer.split(" | ")) for layer in layers]
