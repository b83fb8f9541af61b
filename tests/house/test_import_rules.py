"""Who may import whom: the arrows of the architecture, kept by reading every import."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "asced_stores": ROOT / "stores" / "asced_stores",
    "asced_recorders": ROOT / "recorders" / "asced_recorders",
    "asced_analysis": ROOT / "asced_analysis",
    "asced_cli": ROOT / "cli" / "asced_cli",
}
MAY_IMPORT = {
    "asced_stores": set(),
    "asced_recorders": {"asced_stores"},
    "asced_analysis": {"asced_stores", "asced_recorders"},
    "asced_cli": {"asced_stores", "asced_recorders", "asced_analysis"},
}
RECORDERS_ONLY_IN = ("correction", "replay")
TORCH_ONLY_IN = ("correction", "replay", "realism", "calibration/outcome")
# Export writes a torch program. Array kernels meet tensors through array_api_compat alone.
TORCH_BACK_ENDS = ("export/",)


def _imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield (module, at module level) of each import of a file, type checking aside."""
    tree = ast.parse(path.read_text(), str(path))
    skipped = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for node in ast.walk(block)
    }
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in top
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: absolute imports only"
            yield node.module or "", id(node) in top


def _files() -> list[tuple[str, Path]]:
    return [(name, path) for name, root in PACKAGES.items() for path in sorted(root.rglob("*.py"))]


@pytest.mark.parametrize(
    ("package", "path"), _files(), ids=lambda v: v.name if isinstance(v, Path) else v
)
def test_imports_follow_the_arrows(package: str, path: Path) -> None:
    inside = path.relative_to(PACKAGES[package]).as_posix()
    for module, at_top in _imports(path):
        first = module.split(".")[0]
        if first in PACKAGES and first != package:
            assert first in MAY_IMPORT[package], f"{package}/{inside} imports {module}"
        if package == "asced_analysis" and first == "asced_recorders":
            assert inside.startswith(RECORDERS_ONLY_IN), f"{inside} imports {module}"
        if package == "asced_analysis" and first == "torch":
            assert inside.startswith(TORCH_ONLY_IN + TORCH_BACK_ENDS), f"{inside} imports torch"
        if package == "asced_cli" and inside.startswith("commands/") and at_top:
            assert module == "__future__" or first in {
                "click",
                "asced_cli",
                *sys.stdlib_module_names,
            }, f"{inside} imports {module} at its top: help would be slow"
        if first == "diffusers":
            assert package == "asced_recorders", f"{package}/{inside} imports diffusers"
        if first == "click":
            assert package == "asced_cli", f"{package}/{inside} imports click"


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
