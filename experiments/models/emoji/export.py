"""Write the averaged weights of a training as a diffusers folder, in float16.

``python -m experiments.models.emoji.export`` reads the newest checkpoint and fills this folder
(``unet``, ``scheduler``, ``model_index.json``, ``classes.json``, ``training.json``) beside
``pipeline.py``.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.models.emoji.fetch import BUILD, PACKED
from experiments.models.emoji.network import FOLDER, WIDTHS, build_network, build_scheduler
from experiments.models.emoji.train import training_images

MOST_BYTES = 12_000_000


def describe_classes(packed: Path) -> list[dict[str, Any]]:
    """Number, name and category of each class, and its share of the training's draws."""
    _, labels, chances, classes = training_images(packed)
    drawn = np.bincount(labels.numpy(), chances.numpy(), minlength=classes)
    with np.load(packed) as data:
        named = zip(data["classes"], data["categories"], strict=True)
        return [
            {"label": label, "name": str(name), "category": str(category), "share": float(share)}
            for (label, (name, category)), share in zip(
                enumerate(named), (drawn / drawn.sum()).round(5), strict=True
            )
        ]


def export(state: dict[str, Any], classes: list[dict[str, Any]], folder: Path) -> None:
    """Fill `folder` from a checkpoint.

    Raises
    ------
    ValueError
        If the weights take more than 12 MB.
    """
    network = build_network(len(classes))
    network.load_state_dict(state["ema"])
    network.half().save_pretrained(folder / "unet", safe_serialization=True)
    size = (folder / "unet" / "diffusion_pytorch_model.safetensors").stat().st_size
    if size > MOST_BYTES:
        raise ValueError(f"the weights take {size} bytes: at most {MOST_BYTES} are wanted")
    build_scheduler().save_pretrained(folder / "scheduler")
    write(
        folder / "model_index.json",
        {
            "_class_name": ["pipeline", "EmojiPipeline"],
            "_diffusers_version": version("diffusers"),
            "scheduler": ["diffusers", "DDIMScheduler"],
            "unet": ["diffusers", "UNet2DModel"],
        },
    )
    write(folder / "classes.json", classes)
    facts = ("step", "seen", "seconds", "batch_size", "learning_rate", "images")
    found = {name: state[name] for name in facts}
    write(
        folder / "training.json",
        {
            "steps": found.pop("step"),
            "seconds": round(found.pop("seconds")),
            **found,
            "parameters": sum(p.numel() for p in network.parameters()),
            "widths": WIDTHS,
            "versions": {
                "python": platform.python_version(),
                "torch": version("torch"),
                "diffusers": version("diffusers"),
            },
        },
    )
    own = Path(__file__).parent / "pipeline.py"
    if folder.resolve() != own.parent:
        shutil.copy(own, folder)


def write(path: Path, content: Any) -> None:
    """One JSON file."""
    path.write_text(json.dumps(content, indent=1) + "\n")


def main() -> None:
    """Export the newest checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, default=BUILD / "training" / "checkpoint.pt")
    parser.add_argument("--packed", type=Path, default=PACKED)
    parser.add_argument("--out", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    state = torch.load(arguments.checkpoint, weights_only=True, map_location="cpu")
    export(state, describe_classes(arguments.packed), arguments.out)
    print(f"step {state['step']}: {arguments.out}")


if __name__ == "__main__":
    main()
