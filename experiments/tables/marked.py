"""Pages whose tables commands write: each stands between two comments, with text by hand around.

<!-- table NAME -->
<!-- end -->
"""

from __future__ import annotations

import re
from collections.abc import Mapping


def fill(page: str, tables: Mapping[str, str]) -> tuple[str, list[str]]:
    """Put tables between their comments; names of those that are not there are returned."""
    missing = []

    def replace(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in tables:
            missing.append(name)
            return match.group(0)
        return f"<!-- table {name} -->\n\n{tables[name]}\n\n<!-- end -->"

    text = re.sub(r"<!-- table ([\w-]+) -->.*?<!-- end -->", replace, page, flags=re.DOTALL)
    return text, missing
