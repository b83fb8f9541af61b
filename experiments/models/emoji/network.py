"""The network: a stock ``UNet2DModel`` on images folded to 16x16x48 (pixel-unshuffle by 4)."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet2DModel

FOLDER = Path(__file__).resolve().parent
WIDTHS = (96, 128, 128)
FOLD = 4
SIZE = 64


def build_network(classes: int, widths: tuple[int, ...] = WIDTHS) -> UNet2DModel:
    """One residual block a level, attention below the first; the last class means "any class"."""
    down = ("DownBlock2D",) + ("AttnDownBlock2D",) * (len(widths) - 1)
    return UNet2DModel(
        sample_size=SIZE // FOLD,
        in_channels=3 * FOLD**2,
        out_channels=3 * FOLD**2,
        block_out_channels=widths,
        layers_per_block=1,
        down_block_types=down,
        up_block_types=tuple(name.replace("Down", "Up") for name in reversed(down)),
        norm_num_groups=8,
        attention_head_dim=32,
        num_class_embeds=classes + 1,
    )


def build_scheduler() -> DDIMScheduler:
    """The noise levels of the training, sampled by DDIM unless another scheduler is put in."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="linear",
        clip_sample=False,
        timestep_spacing="trailing",
        prediction_type="sample",
    )


def signal_to_noise(scheduler: DDIMScheduler) -> torch.Tensor:
    """``abar / (1 - abar)`` at each of the training's noise levels, shape (1000,)."""
    return scheduler.alphas_cumprod / (1.0 - scheduler.alphas_cumprod)
