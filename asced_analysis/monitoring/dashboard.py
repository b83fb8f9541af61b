"""The Grafana dashboard of the metrics."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from asced_stores.files import check_out, write_whole


def write_dashboard(out: str | PathLike[str], *, overwrite: bool = False) -> Path:
    """Write the dashboard, which Grafana imports as it is and asks for the Prometheus to use.

    Examples
    --------
    >>> from asced_analysis.monitoring import write_dashboard
    >>> write_dashboard("dashboard.json").name
    'dashboard.json'
    """
    target = check_out(out, overwrite=overwrite, suffixes=(".json",))
    content = Path(__file__).with_name("grafana.json").read_bytes()
    return write_whole(target, content, overwrite=overwrite)
