"""Figures to take along: the package's own plots of what is on the page."""

from __future__ import annotations

import io
import threading
from typing import TYPE_CHECKING, Any

import pandas as pd

from asced_analysis import plots
from asced_stores.errors import InputError

if TYPE_CHECKING:
    from asced_analysis.viewer.population import Population

MEDIA = {"png": "image/png", "svg": "image/svg+xml", "pdf": "application/pdf"}
_ONE_AT_A_TIME = threading.Lock()  # matplotlib's style is global


def film_strip(ds: Any, run: int, signal: str, mask: Any, form: str) -> bytes:
    """Predicted x0 and dynamics of a run over its steps, its mask outlined."""
    with _ONE_AT_A_TIME:
        return _rendered(plots.film_strip(ds, run, signal=signal, mask=mask), form)


def paired_runs(ds: Any, corrected: Any, runs: list[int], form: str) -> bytes:
    """Runs above their corrected versions."""
    with _ONE_AT_A_TIME:
        return _rendered(plots.paired_runs(ds, corrected, runs=runs), form)


def dynamics(
    population: Population, signal: str, steps: list[int], values: list[float], name: str, form: str
) -> bytes:
    """A region's dynamics against the population's bands, phases shaded."""
    known = population.statistics.get(signal)
    if known is None:
        raise InputError("the population is not counted yet: wait a moment and export again")
    curve = pd.DataFrame({"step": steps, "dynamics": values})
    with _ONE_AT_A_TIME:
        ax = plots.against_population(known, curve, population.phases, name=name)
        return _rendered(ax, form)


def _rendered(drawn: Any, form: str) -> bytes:
    """A plot as the bytes of a file."""
    if form not in MEDIA:
        raise InputError(f"no figure format {form!r}; use one of {', '.join(MEDIA)}")
    figure = drawn if hasattr(drawn, "savefig") else drawn.get_figure()
    buffer = io.BytesIO()
    figure.savefig(buffer, format=form, bbox_inches="tight", dpi=200)
    return buffer.getvalue()
