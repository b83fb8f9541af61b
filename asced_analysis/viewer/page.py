"""The page: markup, style and script from files of this package, joined in memory.

Nothing is fetched from elsewhere and no path is ever taken from a request. The script's files
share one scope, so that the notebook widget, which takes one module, runs the very same code.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import resources

SCRIPTS = (
    "transport.js",
    "elements.js",
    "colours.js",
    "painting.js",
    "gallery.js",
    "levels.js",
    "chart.js",
    "stage.js",
    "steps.js",
    "run.js",
    "exports.js",
    "mount.js",
)


@lru_cache(maxsize=1)
def script() -> str:
    """All of the page's script, one module that exports ``mount`` and, by default, a widget."""
    parts = [f"// {name}\n{_text(name)}" for name in SCRIPTS]
    return "\n".join([*parts, "export { mount };\nexport default { render: renderWidget };\n"])


def style() -> str:
    """The style sheet."""
    return _text("viewer.css")


def markup(*, beside: bool = False) -> str:
    """The page that the server sends; everything else is built by the script.

    Parameters
    ----------
    beside : bool
        Whether a second store is shown at its side.
    """
    text = _text("index.html")
    return (
        text.replace('class="asced-page"', 'class="asced-page" data-beside="1"') if beside else text
    )


@lru_cache(maxsize=32)
def _text(name: str) -> str:
    """One of the package's own files."""
    folder = resources.files("asced_analysis") / "viewer" / "web"
    return (folder / name).read_text("utf-8")
