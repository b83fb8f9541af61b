"""Every notebook runs from top to bottom without a warning, and is committed stripped.

They share one folder, as a reader's do: the first records what the others read. With
``ASCED_EXECUTED=folder`` the executed copies are kept there, for the documentation.
"""

from __future__ import annotations

import ast
import os
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))
# Warnings are errors, but for what diffusers 0.42 does with torch 2.13 (as in tests/conftest.py).
STRICT = (
    "import warnings\nwarnings.simplefilter('error')\n"
    "warnings.filterwarnings('ignore', '__array', DeprecationWarning)"
)
# One worker runs them all, so that the recording of the first is there for the others.
pytestmark = pytest.mark.xdist_group("notebooks")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("notebooks")


def test_the_six_notebooks_are_there() -> None:
    assert [path.stem[0] for path in NOTEBOOKS] == list("123456")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_stripped(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        assert not cell.get("outputs"), "outputs are committed: run nbstripout"
        assert cell.get("execution_count") is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_draws_by_public_functions_alone(path: Path) -> None:
    """No notebook imports matplotlib or seaborn: its figures can be had in any script."""
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type != "code":
            continue
        lines = [line for line in cell.source.splitlines() if not line.startswith(("%", "!"))]
        for node in ast.walk(ast.parse("\n".join(lines))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.startswith(("matplotlib", "seaborn")) for name in names)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.pages
@pytest.mark.filterwarnings("default")  # of the kernel client, not of our code
def test_notebook_runs(path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    notebook = nbformat.read(path, as_version=4)
    assert notebook.cells[0].source.startswith(f"# {path.stem[0]}. ")
    notebook.cells.insert(0, nbformat.v4.new_code_cell(STRICT))
    where = {"metadata": {"path": folder}}
    for attempt in range(2):  # another process may take a port that the kernel has chosen
        try:
            NotebookClient(notebook, timeout=240, kernel_name="python3", resources=where).execute()
            break
        except RuntimeError as error:
            if attempt or "before replying" not in str(error):
                raise
    errors = [
        output
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "stream" and output.name == "stderr"
    ]
    assert not errors, errors
    if kept := os.environ.get("ASCED_EXECUTED"):
        del notebook.cells[0]
        Path(kept).mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, Path(kept) / path.name)
