"""Features for a judge: differences of neighbouring pixels, averaged over blocks."""

from __future__ import annotations

from typing import Any

import numpy as np

from asced_analysis.realism.modules import model_from_references
from asced_analysis.realism.registry import FeatureKind

BLOCK = 4


def encode(images: Any) -> tuple[Any, Any]:
    """Mean squared differences down and across by block, (n, rows, columns, 2 channel)."""
    down, across = np.diff(images, axis=2, append=0) ** 2, np.diff(images, axis=3, append=0) ** 2
    both = np.concatenate([down, across], axis=1)
    n, channels, height, width = both.shape
    blocks = both.reshape(n, channels, height // BLOCK, BLOCK, width // BLOCK, BLOCK)
    local = np.moveaxis(blocks.mean((3, 5)), 1, -1).astype(np.float32)
    return local, local.mean((1, 2))


class Edges(FeatureKind):
    """See `asced_analysis.realism.registry.FeatureKind`."""

    name = "edges"
    summary = "Differences of neighbouring pixels (an example)."

    def build(self, given: str, images: Any, of: Any, runs: Any) -> Any:
        """Look at the reference."""
        return model_from_references(self.name, encode, images, reference=of, runs=runs)


KIND = Edges()
