"""The model of SIMPLE SHAPES, sampled in pictures of 1x64x64 instead of folded ones of 16x16x16.

    asced demo --pipeline experiments.models.shapes.pictures:pipeline --out build/shapes-demo

Folding changes the order of pixels and nothing else: independent noise stays what it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from experiments.datasets.shapes import BLOCK, SIZE

FOLDER = Path(__file__).resolve().parent


class PictureUNet(UNet2DModel):
    """Takes and gives pictures; the layers see them folded."""

    def forward(
        self,
        sample: torch.Tensor,
        timestep: Any,
        class_labels: Any = None,
        return_dict: bool = True,
    ) -> Any:
        """Output of the network, shape of `sample` (run, 1, 64, 64)."""
        folded = super().forward(pixel_unshuffle(sample, BLOCK), timestep, class_labels, False)
        output = pixel_shuffle(folded[0], BLOCK)
        return UNet2DOutput(sample=output) if return_dict else (output,)


def pipeline() -> DDIMPipeline:
    """The trained model as a stock pipeline of pixels."""
    unet = PictureUNet.from_pretrained(FOLDER, subfolder="unet", torch_dtype=torch.float32)
    unet.register_to_config(in_channels=1, out_channels=1, sample_size=SIZE)
    return DDIMPipeline(unet.eval(), DDIMScheduler.from_pretrained(FOLDER, subfolder="scheduler"))
