"""Results as JSON lines: printed as they come, and kept in a file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]


def told(rows: Iterable[Row], out: str | Path | None = None) -> Iterator[Row]:
    """The same rows, each printed; at the end all are written, numbers to four places."""
    lines = []
    for row in rows:
        lines.append(json.dumps(_short(row)))
        print(lines[-1], flush=True)
        yield row
    if out is not None:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        Path(out).write_text("\n".join(lines) + "\n")


def tell(rows: Iterable[Row], out: str | Path | None = None) -> None:
    """Print all rows, and write them."""
    for _ in told(rows, out):
        pass


def _short(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _short(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_short(one) for one in value]
    return round(value, 4) if isinstance(value, float) else value
