"""What the trainings of small models share: the schedule, checkpoints, the folder they end as."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel


def learning_rate(step: int, steps: int, peak: float, decay: float) -> float:
    """Linear warm-up over 200 steps, constant, linear decay over the last share of the steps."""
    return peak * min(1.0, (step + 1) / 200, (steps - step) / max(1.0, decay * steps))


def save_atomically(state: dict[str, Any], path: Path) -> None:
    """Write beside and rename: a killed training never leaves half a checkpoint."""
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def export(
    network: UNet2DModel,
    ema: dict[str, torch.Tensor],
    folder: Path,
    card: dict[str, Any],
    *,
    prediction_type: str = "epsilon",
    half: bool = False,
) -> None:
    """Write the EMA weights as a plain diffusers folder, with the figures for its model card."""
    frozen = copy.deepcopy(network)
    frozen.load_state_dict(ema)
    scheduler = DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="linear",
        clip_sample=False,
        timestep_spacing="trailing",
        prediction_type=prediction_type,
    )
    pipe = DDIMPipeline(unet=frozen.half() if half else frozen, scheduler=scheduler)
    pipe.save_pretrained(folder, safe_serialization=True)
    (folder / "training.json").write_text(json.dumps(card, indent=2) + "\n")
