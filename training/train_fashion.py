"""Train ``fashion``, the embedded DDPM, on Fashion-MNIST; interrupt and resume at any time.

Two one-thread processes train faster on two cores than one process with two threads::

    torchrun --nproc-per-node 2 -m training.train_fashion --steps 10000

Every random draw is seeded by (seed, step, rank), so a resumed training goes on as if it had not
been stopped. The learning rate is constant after a warm-up and falls linearly to zero over the
last steps (``--decay``), so that a longer training may start from any checkpoint before that.
Weights are exponential moving averages; forward passes run in bfloat16 where that is faster.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import torch.distributed as dist
from diffusers import DDPMScheduler, UNet2DModel
from safetensors.torch import load_file
from torch.nn.parallel import DistributedDataParallel

from training.exporting import export, learning_rate, save_atomically
from training.fashion_mnist import load_fashion_mnist

ROOT = Path(__file__).resolve().parent.parent
MODEL_FOLDER = ROOT / "recorders" / "asced_recorders" / "models" / "fashion"


def build_network(widths: tuple[int, ...], attention: tuple[int, ...]) -> UNet2DModel:
    """A UNet2DModel for 1x32x32 with one residual block a level and attention at some levels."""
    down = ["AttnDownBlock2D" if i in attention else "DownBlock2D" for i in range(len(widths))]
    up = [name.replace("Down", "Up") for name in reversed(down)]
    return UNet2DModel(
        sample_size=32,
        in_channels=1,
        out_channels=1,
        block_out_channels=widths,
        layers_per_block=1,
        down_block_types=tuple(down),
        up_block_types=tuple(up),
        norm_num_groups=8,
        attention_head_dim=32,
    )


def main() -> None:
    """Train, checkpoint, export."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=10000)
    parser.add_argument("--batch-size", type=int, default=64, help="over all processes")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--decay", type=float, default=0.3, help="share of the steps")
    parser.add_argument("--ema", type=float, default=0.9995)
    parser.add_argument("--widths", default="16,32,64,96")
    parser.add_argument("--attention", default="", help="levels with attention, from 0")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after")
    parser.add_argument("--save-every", type=int, default=500)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "fashion")
    parser.add_argument("--out", type=Path, default=MODEL_FOLDER)
    args = parser.parse_args()

    distributed = "RANK" in os.environ
    if distributed:
        dist.init_process_group("gloo")
    rank = dist.get_rank() if distributed else 0
    world = dist.get_world_size() if distributed else 1
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    widths = tuple(int(w) for w in args.widths.split(","))
    attention = tuple(int(a) for a in args.attention.split(",") if a)
    network = build_network(widths, attention)
    images = torch.from_numpy(load_fashion_mnist("train")[0])
    noise_schedule = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear")
    optimizer = torch.optim.AdamW(network.parameters(), lr=args.learning_rate, weight_decay=0.0)
    ema = {k: v.clone() for k, v in network.state_dict().items()}
    step, seconds, losses = 0, 0.0, []
    checkpoint = args.work / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        ema, step, seconds, losses = (state[k] for k in ("ema", "step", "seconds", "losses"))
    elif (args.out / "unet").exists():  # a fresh machine: go on from the committed weights
        weights = args.out / "unet" / "diffusion_pytorch_model.safetensors"
        network.load_state_dict(load_file(weights))
        ema = {k: v.clone() for k, v in network.state_dict().items()}
        earlier = json.loads((args.out / "training.json").read_text())
        step, seconds = earlier["steps"], earlier["seconds"]
    model = DistributedDataParallel(network) if distributed else network
    share = args.batch_size // world
    args.work.mkdir(parents=True, exist_ok=True)
    started, since, done_before = time.monotonic(), [], seconds

    def card() -> dict[str, Any]:
        return {
            "steps": step,
            "batch_size": args.batch_size,
            "parameters": sum(p.numel() for p in network.parameters()),
            "loss": float(np.mean(losses[-5:])) if losses else None,
            "seed": args.seed,
            "seconds": round(seconds),
            "processes": world,
            "learning_rate": args.learning_rate,
            "decay": args.decay,
            "ema": args.ema,
            "images": len(images),
            "versions": {
                "python": platform.python_version(),
                "torch": torch.__version__,
                "diffusers": diffusers.__version__,
                "numpy": np.__version__,
            },
        }

    while step < args.steps and time.monotonic() - started < args.seconds:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, args.steps, args.learning_rate, args.decay)
        generator = torch.Generator().manual_seed((args.seed * 1_000_003 + step) * 64 + rank)
        picked = images[torch.randint(len(images), (share,), generator=generator)]
        noise = torch.randn(picked.shape, generator=generator)
        timesteps = torch.randint(1000, (share,), generator=generator)
        noisy = noise_schedule.add_noise(picked, noise, timesteps)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            predicted = model(noisy, timesteps).sample
        loss = torch.nn.functional.mse_loss(predicted.float(), noise)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        decay = min(args.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, value in network.state_dict().items():
                ema[name].lerp_(value, 1.0 - decay)
        since.append(loss.item())
        step += 1
        if step % 100 == 0 and rank == 0:
            losses.append(float(np.mean(since)))
            since = []
            seconds = done_before + time.monotonic() - started
            print(f"step {step} loss {losses[-1]:.5f} seconds {seconds:.0f}", flush=True)
        if step % args.save_every == 0 and rank == 0:
            state = {
                "network": network.state_dict(),
                "optimizer": optimizer.state_dict(),
                "ema": ema,
                "step": step,
                "seconds": seconds,
                "losses": losses,
            }
            save_atomically(state, checkpoint)
            export(network, ema, args.out, card())
    if rank == 0:
        seconds = done_before + time.monotonic() - started
        export(network, ema, args.out, card())
    if distributed:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
