"""Sphinx configuration: pages, tutorials from notebooks, reference from docstrings; offline."""

import json
import shutil
import sys
from importlib.metadata import version as installed_version
from pathlib import Path

from sphinx.application import Sphinx

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # for mathml.py

project = "asced-analysis"
author = "The asced-analysis developers"
release = installed_version("asced-analysis")
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "mathml",
]
exclude_patterns = ["_build", "**.ipynb_checkpoints", "results"]  # tables, which pages include
html_theme = "furo"
html_title = f"asced-analysis {release}"
html_static_path: list[str] = []
html_math_renderer = "mathml"  # MathJax would be fetched from elsewhere
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"


def _same_source(one: Path, other: Path) -> bool:
    """Whether two notebooks hold the same cells, outputs aside."""
    sources = [
        ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"]]
        for path in (one, other)
    ]
    return sources[0] == sources[1]


def _gather_tutorials() -> None:
    """Copy the notebooks: as `make docs` executed them, or stripped where that is out of date."""
    target = HERE / "tutorials"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for notebook in sorted((HERE.parent / "notebooks").glob("*.ipynb")):
        executed = HERE.parent / "build" / "notebooks" / notebook.name
        fresh = executed.exists() and _same_source(notebook, executed)
        shutil.copyfile(executed if fresh else notebook, target / notebook.name)


_gather_tutorials()


def _list_the_rest(_app: object, name: str, source: list[str]) -> None:
    """A page that index.md does not list yet is found all the same."""
    listed = source[0].splitlines()
    rest = sorted(page.stem for page in HERE.glob("*.md") if page.stem not in listed)
    if name == "index" and (rest := [page for page in rest if page != "index"]):
        pages = "\n".join(rest)
        source[0] += f"\n```{{toctree}}\n:maxdepth: 1\n:caption: Further\n\n{pages}\n```\n"


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _list_the_rest)
    app.connect("env-get-outdated", lambda *_: ["index"])  # a page may have come
