"""Samples as the pictures that judges look at: decoded where those of the recording are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from asced_analysis.realism.pictures import as_pictures, from_image, judged_variable

if TYPE_CHECKING:
    import xarray as xr


def pictures_of(
    samples: NDArray[np.floating[Any]], dataset: xr.Dataset, pipe: Any
) -> NDArray[np.float32]:
    """Pictures (n, channel, y, x) in -1..1 of samples that were just drawn.

    Parameters
    ----------
    samples : array, shape (n, [frame,] channel, y, x)
    dataset : xarray.Dataset
        The recording, whose pictures they are to be compared with.
    pipe : DiffusionPipeline
        Its autoencoder decodes latents.
    """
    if judged_variable(dataset) != "image":
        return as_pictures(samples, dataset.attrs)
    import torch

    from asced_recorders.pipelines.data_range import range_of
    from asced_recorders.pipelines.decoding import to_image

    tensor = torch.from_numpy(np.asarray(samples, np.float32))
    size = dataset.sizes["row"], dataset.sizes["column"]
    return from_image(to_image(pipe, tensor, range_of(dataset.attrs), size))
