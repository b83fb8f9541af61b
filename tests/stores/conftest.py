"""What the stores' stress tests count."""

from __future__ import annotations

import pytest

_COUNTS: dict[str, dict[str, int]] = {}


@pytest.fixture
def stress_counts() -> dict[str, dict[str, int]]:
    """What stress tests counted; printed as the last line of all."""
    return _COUNTS


def pytest_unconfigure() -> None:
    if _COUNTS:
        parts = (
            f"{kind}: " + ", ".join(f"{count} {what}" for what, count in counts.items())
            for kind, counts in _COUNTS.items()
        )
        print("stress | " + " | ".join(parts))
