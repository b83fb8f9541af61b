"""Thresholds files as bytes: strict parsing, whole writes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from asced_stores.errors import InputError

FORMAT = "asced-thresholds"
FORMAT_VERSION = "1.0"
LARGEST_FILE = 16 * 2**20


class ThresholdsError(InputError):
    """A thresholds file can't be used as it is."""


def parse_file(source: Path) -> Any:
    """JSON content of a file that may hold anything."""
    try:
        size = source.stat().st_size
        if size > LARGEST_FILE:
            raise ThresholdsError(
                f"{source} has {size:,} bytes, more than any thresholds file "
                f"({LARGEST_FILE:,}); is it one?"
            )
        raw = source.read_bytes()
    except FileNotFoundError:
        raise ThresholdsError(
            f"{source} does not exist; make one with `asced calibrate STORE --out {source}`"
        ) from None
    except IsADirectoryError:
        raise ThresholdsError(
            f"{source} is a folder; expected a thresholds file, as `asced calibrate STORE --out "
            "thresholds.json` writes it"
        ) from None
    except OSError as error:
        raise ThresholdsError(f"{source} can't be read: {error}") from error
    return parse_json(raw, str(source))


def parse_json(raw: bytes, name: str) -> Any:
    """Parse JSON strictly: UTF-8, no NaN or infinity, no key twice.

    Raises
    ------
    ThresholdsError
    """
    try:
        return json.loads(
            raw.decode("utf-8"), parse_constant=_refuse_constant, object_pairs_hook=_unique
        )
    except (ValueError, RecursionError) as error:
        if isinstance(error, ThresholdsError):
            raise
        raise ThresholdsError(f"{name} is no JSON file: {error}") from None


def _refuse_constant(name: str) -> float:
    raise ThresholdsError(f"the number {name} is not allowed in a thresholds file")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ThresholdsError("a key stands twice in one object of the thresholds file")
    return content


def check_version(content: Any) -> None:
    """Refuse other formats and newer versions by name.

    Raises
    ------
    ThresholdsError
    """
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ThresholdsError(
            f'this is no thresholds file: expected an object with "format": "{FORMAT}"'
        )
    version = content.get("format_version")
    parts = str(version).split(".")
    if not (isinstance(version, str) and len(parts) == 2 and all(p.isdecimal() for p in parts)):
        raise ThresholdsError(f"format_version is {version!r}; expected something like '1.0'")
    if version != FORMAT_VERSION:
        raise ThresholdsError(
            f"this thresholds file has format version {version}; this toolkit reads "
            f"{FORMAT_VERSION}. Update asced-analysis, or calibrate again."
        )


def check_finite(content: Any, place: str) -> None:
    """Refuse numbers such as 1e999, which JSON allows and Python reads as infinity.

    Raises
    ------
    ThresholdsError
    """
    if isinstance(content, float) and not math.isfinite(content):
        raise ThresholdsError(f"thresholds file, at {place}: a number is not finite")
    if isinstance(content, int) and not isinstance(content, bool) and abs(content) > 2**63:
        raise ThresholdsError(f"thresholds file, at {place}: a number is too large")
    if isinstance(content, dict):
        for key, value in content.items():
            check_finite(value, f"{place}/{key}")
    elif isinstance(content, list):
        for index, value in enumerate(content):
            check_finite(value, f"{place}/{index}")
