"""Train ``emoji``; interrupt and resume at any time.

::

    torchrun --nproc-per-node 2 -m experiments.models.emoji.train --seconds 3600
    python -m experiments.models.emoji.train --device cuda --bfloat16 --batch-size 256 --seconds 500

Two one-thread processes over gloo, or one process on a GPU. ``--bfloat16`` is for GPUs and for
processors that have it. The network predicts x0; the loss of each image is weighted by its
signal-to-noise ratio, held within 0.05 and 5. One label in ten is replaced by "any class", for
classifier-free guidance. Designs are drawn alike, whatever their number of skin tones and sets, but
faces and hands six times as often. Every random draw is seeded by (seed, step, rank). Without a
checkpoint in the working folder the training goes on from the weights that are committed in this
folder, with a fresh optimizer.
`experiments.models.emoji.export` writes the averaged weights as a diffusers folder.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch.nn.functional import pixel_unshuffle
from torch.nn.parallel import DistributedDataParallel

from experiments.models.emoji.fetch import BUILD, PACKED
from experiments.models.emoji.network import (
    FOLD,
    FOLDER,
    build_network,
    build_scheduler,
    signal_to_noise,
)

WEIGHT_RANGE = (0.05, 5.0)
UNCONDITIONAL = 0.1
# Faces and hands, where broken drawings are seen at once, are drawn that many times as often.
FAVOURED, FAVOUR = ("face", "hand"), 6.0


def training_images(packed: Path) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
    """Folded images (uint8), labels, chances to be drawn, number of classes; none held out."""
    with np.load(packed) as data:
        kept = ~data["held_out"]
        images = torch.from_numpy(data["images"][kept]).permute(0, 3, 1, 2)
        labels = data["label"][kept]
        _, design, copies = np.unique(data["design"][kept], return_inverse=True, return_counts=True)
        names = data["classes"]
    favoured = np.array([any(word in str(name) for word in FAVOURED) for name in names])
    chances = np.where(favoured[labels], FAVOUR, 1.0) / copies[design]
    folded = pixel_unshuffle(images, FOLD)
    return folded, torch.from_numpy(labels), torch.from_numpy(chances), len(names)


def spread_timesteps(count: int, generator: torch.Generator) -> torch.Tensor:
    """Timesteps of one batch, one from each of `count` equal parts of 0..999, in any order."""
    given: dict[str, Any] = {"generator": generator, "device": generator.device}
    share = (torch.randperm(count, **given) + torch.rand(count, **given)) / count
    return (share * 1000).long().clamp(max=999)


def batch_loss(
    model: Any,
    scheduler: Any,
    clean: torch.Tensor,
    labels: torch.Tensor,
    anything: int,
    generator: torch.Generator,
    *,
    half: bool = False,
) -> torch.Tensor:
    """Weighted error of predicted x0 of one batch.

    Parameters
    ----------
    model : callable
        The network.
    scheduler : DDIMScheduler
    clean : Tensor, shape (image, 48, 16, 16)
        In -1..1.
    labels : Tensor, shape (image,)
    anything : int
        The class that means any.
    generator : torch.Generator
        On the device of `clean`.
    half : bool, optional
        Whether the network computes in bfloat16.
    """
    device, count = clean.device, len(clean)
    free = torch.rand(count, generator=generator, device=device) < UNCONDITIONAL
    named = torch.where(free, anything, labels)
    noise = torch.randn(clean.shape, generator=generator, device=device)
    timesteps = spread_timesteps(count, generator)
    noisy = scheduler.add_noise(clean, noise, timesteps)
    with torch.autocast(device.type, torch.bfloat16, enabled=half):
        predicted = model(noisy, timesteps, class_labels=named).sample
    errors = (predicted.float() - clean).square().mean(dim=(1, 2, 3))
    weights = signal_to_noise(scheduler).to(device).clamp(*WEIGHT_RANGE)
    return (weights[timesteps] * errors).mean()


def main() -> None:
    """Train and keep checkpoints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after")
    parser.add_argument("--steps", type=int, default=10**9, help="stop at this step")
    parser.add_argument("--batch-size", type=int, default=64, help="over all processes")
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--warm-up", type=int, default=200, help="steps, after each start")
    parser.add_argument("--ema", type=float, default=0.999)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bfloat16", action="store_true", help="where the processor has it")
    parser.add_argument("--save-every", type=float, default=240.0, help="seconds")
    parser.add_argument("--packed", type=Path, default=PACKED)
    parser.add_argument("--work", type=Path, default=BUILD / "training")
    parser.add_argument("--weights", type=Path, default=FOLDER, help="to start from, if any")
    parser.add_argument("--tell-every", type=int, default=20, help="steps")
    parser.add_argument("--report", type=Path, help="a file to add lines to")
    args = parser.parse_args()

    distributed = "RANK" in os.environ
    if distributed:
        dist.init_process_group("gloo")
    rank = dist.get_rank() if distributed else 0
    world = dist.get_world_size() if distributed else 1
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    device = torch.device(args.device)
    *tensors, classes = training_images(args.packed)
    images, labels, chances = (tensor.to(device) for tensor in tensors)
    network = build_network(classes).to(device)
    scheduler = build_scheduler()
    optimizer = torch.optim.AdamW(network.parameters(), lr=args.learning_rate, weight_decay=0.0)
    step, seen, seconds = 0, 0, 0.0
    checkpoint = args.work / "checkpoint.pt"
    committed = args.weights / "unet" / "diffusion_pytorch_model.safetensors"
    ema: dict[str, torch.Tensor] = {}
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True, map_location=device)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        ema, step, seen, seconds = (state[name] for name in ("ema", "step", "seen", "seconds"))
    elif committed.exists():
        network.load_state_dict({k: v.float() for k, v in load_file(committed).items()})
        earlier = json.loads((args.weights / "training.json").read_text())
        step, seen, seconds = (earlier[name] for name in ("steps", "seen", "seconds"))
    if not ema:
        ema = {k: v.clone() for k, v in network.state_dict().items()}
    model: Any = DistributedDataParallel(network) if distributed else network
    share = args.batch_size // world
    args.work.mkdir(parents=True, exist_ok=True)
    first, earlier_seconds, started = step, seconds, time.monotonic()
    saved, since = started, []

    def say(text: str) -> None:
        line = f"{time.strftime('%H:%M:%S')} {text}"
        print(line, flush=True)
        if args.report is not None:
            with args.report.open("a") as file:
                file.write(line + "\n")

    def save() -> None:
        state = {
            "network": network.state_dict(),
            "optimizer": optimizer.state_dict(),
            "ema": ema,
            "step": step,
            "seen": seen,
            "seconds": seconds,
            "batch_size": args.batch_size,
            "learning_rate": args.learning_rate,
            "images": len(images),
        }
        partial = checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(checkpoint)
        say(f"saved step {step}")

    if rank == 0:
        parameters = sum(p.numel() for p in network.parameters())
        given = f"{parameters} parameters, {len(images)} images, {world} processes"
        say(f"start at step {step}: {given}")
    going = True
    while going:
        for group in optimizer.param_groups:
            group["lr"] = args.learning_rate * min(1.0, (step - first + 1) / args.warm_up)
        generator = torch.Generator(device).manual_seed((args.seed * 1_000_003 + step) * 64 + rank)
        picked = torch.multinomial(chances, share, replacement=True, generator=generator)
        clean = images[picked].float() / 127.5 - 1.0
        loss = batch_loss(
            model, scheduler, clean, labels[picked], classes, generator, half=args.bfloat16
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        keep = min(args.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, value in network.state_dict().items():
                ema[name].lerp_(value, 1.0 - keep)
        if rank == 0:
            since.append(loss.detach())
        step, seen = step + 1, seen + share * world
        now = time.monotonic()
        seconds = earlier_seconds + now - started
        if rank == 0 and (step % args.tell_every == 0 or step - first == 1):
            pace, loss_since = (now - started) / (step - first), float(torch.stack(since).mean())
            say(f"step {step} loss {loss_since:.5f}, {pace:.3f} s a step, {seconds:.0f} s")
            since = []
        if rank == 0 and now - saved > args.save_every:
            save()
            saved = now
        stop = torch.tensor(float(now - started >= args.seconds))
        if distributed:  # all processes stop at the same step
            dist.broadcast(stop, 0)
        going = not stop.item() and step < args.steps
    if rank == 0:
        save()
    if distributed:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
