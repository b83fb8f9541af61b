"""One self-contained page about runs, thresholds and a replay."""

from asced_analysis.report.build import build_page, write_report

__all__ = ["build_page", "write_report"]
