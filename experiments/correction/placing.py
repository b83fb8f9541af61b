"""Pictures placed against the judge's real images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from asced_analysis.evaluation.populations import Quality, quality_of
from asced_analysis.realism import features, local_realism
from asced_analysis.realism.distances import neighbour_radii
from experiments.datasets.sets import judge_of, mean_distance

NEIGHBOURS = 3


def placed(images: NDArray[np.float32]) -> Quality:
    """Pictures against the judge's real images."""
    model = judge_of()
    realism = mean_distance(local_realism(images, model))
    radii = neighbour_radii(model.vectors, NEIGHBOURS)
    return quality_of(features(images, model), realism, model, radii, NEIGHBOURS)
