"""Sphinx configuration: Markdown pages and the reference from docstrings, offline."""

from importlib.metadata import version as installed_version

project = "asced-analysis"
author = "The asced-analysis developers"
release = installed_version("asced-analysis")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"asced-analysis {release}"
html_static_path: list[str] = []
myst_heading_anchors = 3
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"
