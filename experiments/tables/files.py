"""Tables as files of their own, which the pages of docs/ include."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"


def write_tables(folder: Path, tables: Mapping[str, str]) -> None:
    """Write each table to ``NAME.md``; others in the folder stay as they are.

    Parameters
    ----------
    folder : Path
        Made where it is missing.
    tables : mapping
        Markdown by name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        (folder / f"{name}.md").write_text(f"{table}\n", encoding="utf-8")


def included(page: str) -> list[str]:
    """Files that a page includes from the folder of results, as ``SET/NAME.md``, in order."""
    return re.findall(r"^```\{include\} results/(\S+)$", page, flags=re.MULTILINE)
