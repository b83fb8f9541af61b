"""Train the small model of SIMPLE SHAPES; interrupt and resume at any time.

    python -m experiments.models.shapes.train --seconds 840      # again and again, until it is done

64x64 images unshuffled by 4 to 16 channels of 16x16: compute is scarce. The network predicts the
velocity: noise prediction left the brightness of these nearly black images to chance, and whole
samples came out white. Every draw is seeded by step; weights are exponential moving averages,
written in half precision, and only once all steps are taken.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DModel

from experiments.datasets.shapes import draw_images, fold
from training.exporting import export, learning_rate, save_atomically

FOLDER = Path(__file__).resolve().parent


def build_network() -> UNet2DModel:
    """One residual block a level."""
    return UNet2DModel(
        sample_size=16,
        in_channels=16,
        out_channels=16,
        block_out_channels=(48, 64, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D",) * 3,
        up_block_types=("UpBlock2D",) * 3,
        norm_num_groups=8,
        attention_head_dim=32,
    )


def main() -> None:
    """Train, checkpoint, export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=9_000)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after")
    parser.add_argument("--work", type=Path, default=Path("build/shapes"))
    parser.add_argument("--out", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = build_network()
    images = torch.from_numpy(fold(draw_images()))
    noise_schedule = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear")
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.0)
    ema = {name: value.clone() for name, value in network.state_dict().items()}
    step, spent, losses = 0, 0.0, []
    arguments.work.mkdir(parents=True, exist_ok=True)
    checkpoint = arguments.work / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        ema, step, spent, losses = (state[k] for k in ("ema", "step", "spent", "losses"))
    begin, recent = time.monotonic(), []

    def save() -> None:
        state = {
            "network": network.state_dict(),
            "optimizer": optimizer.state_dict(),
            "ema": ema,
            "step": step,
            "spent": spent + time.monotonic() - begin,
            "losses": losses,
        }
        save_atomically(state, checkpoint)

    while step < arguments.steps and time.monotonic() - begin < arguments.seconds:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, arguments.steps, 1e-3, 0.3)
        generator = torch.Generator().manual_seed(1_000_003 + step)
        chosen = torch.randint(len(images), (arguments.batch_size,), generator=generator)
        picked = images[chosen]
        noise = torch.randn(picked.shape, generator=generator)
        timesteps = torch.randint(1000, (len(picked),), generator=generator)
        noisy = noise_schedule.add_noise(picked, noise, timesteps)
        velocity = noise_schedule.get_velocity(picked, noise, timesteps)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            predicted = network(noisy, timesteps).sample
        loss = torch.nn.functional.mse_loss(predicted.float(), velocity)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        decay = min(0.9995, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, value in network.state_dict().items():
                ema[name].lerp_(value, 1 - decay)
        recent.append(loss.item())
        step += 1
        if step % 100 == 0:
            losses.append(float(np.mean(recent)))
            recent = []
            total = spent + time.monotonic() - begin
            print(f"step {step} loss {losses[-1]:.5f} seconds {total:.0f}", flush=True)
        if step % 500 == 0:
            save()
    save()
    if step < arguments.steps:
        sys.exit(f"stopped at step {step} of {arguments.steps}: the same command goes on")
    card = {
        "steps": step,
        "batch_size": arguments.batch_size,
        "parameters": sum(p.numel() for p in network.parameters()),
        "loss": losses[-1] if losses else None,
        "seconds": round(spent + time.monotonic() - begin),
        "images": len(images),
    }
    export(network, ema, arguments.out, card, prediction_type="v_prediction", half=True)


if __name__ == "__main__":
    main()
