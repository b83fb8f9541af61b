"""Look at runs: a gallery, one run step by step, thresholds under a slider, masks by hand.

The same page is served locally by ``asced view`` and shown inside a notebook by
``ds.asced.explore()``. Python answers questions (`session`), one script in the browser asks them;
server and widget only carry bytes between the two. Needs ``pip install asced-analysis[viewer]``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asced_analysis.viewer.server import ViewerServer as ViewerServer
    from asced_analysis.viewer.session import Session as Session
    from asced_analysis.viewer.session import open_session as open_session
    from asced_analysis.viewer.widget import explore as explore

_HOMES = {
    "Session": "session",
    "ViewerServer": "server",
    "explore": "widget",
    "open_session": "session",
}

__all__ = ["Session", "ViewerServer", "explore", "open_session"]


def __getattr__(name: str) -> Any:
    """Load a part when it is used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """Public names, for completion."""
    return sorted({*globals(), *__all__})
