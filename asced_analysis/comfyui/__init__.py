"""Nodes for ComfyUI: load thresholds, correct, report, record.

One line in a file of ``custom_nodes`` makes them known there::

    from asced_analysis.comfyui import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
"""

from __future__ import annotations

from asced_analysis.comfyui.correcting import Correct, LoadThresholds, Report
from asced_recorders.comfyui.recording import Record

NODE_CLASS_MAPPINGS = {
    "AscedLoadThresholds": LoadThresholds,
    "AscedCorrect": Correct,
    "AscedReport": Report,
    "AscedRecord": Record,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "AscedLoadThresholds": "Load thresholds (ASCED)",
    "AscedCorrect": "Correct (ASCED)",
    "AscedReport": "Report (ASCED)",
    "AscedRecord": "Record (ASCED)",
}

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
