"""What the import contracts of pyproject.toml do not say: what is loaded, and what lies flat."""

from __future__ import annotations

import subprocess
import sys
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
