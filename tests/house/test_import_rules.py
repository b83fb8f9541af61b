"""What the import contracts of pyproject.toml do not say: what is loaded, and what lies flat."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = sorted((ROOT / "cli" / "asced_cli" / "commands").glob("*.py"))


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.name)
def test_commands_import_nothing_heavy_at_their_top(path: Path) -> None:
    allowed = {"__future__", "click", "asced_cli", *sys.stdlib_module_names}
    for node in ast.parse(path.read_text()).body:
        names = [node.module] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            assert (name or "").split(".")[0] in allowed, f"{name}: help would be slow"


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


def test_analysis_imports_neither_torch_nor_diffusers_nor_click() -> None:
    heavy = {"torch", "diffusers", "click", "xarray", "numba"}
    assert not _loaded_after("import asced_analysis") & heavy


def test_a_corrector_loads_no_storage_and_no_statistics() -> None:
    loaded = _loaded_after("from asced_analysis.correction import Corrector")
    assert not loaded & {"zarr", "xarray", "dask", "sklearn"}
