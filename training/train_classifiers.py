"""Train the two small classifiers behind local realism: a teacher and a judge.

::

    python -m training.train_classifiers                    # both: train, then write references
    python -m training.train_classifiers --references-only  # references again, from the weights

The teacher sees the training images of even number, the judge those of odd number; local reference
patches come from the same halves, the judge's whole-image statistics from the test images.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from asced_analysis.realism.networks import PlainNetwork, ResidualNetwork, build_network
from training.fashion_mnist import load_fashion_mnist

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "asced_analysis" / "realism" / "fashion"
REFERENCE_PATCHES = 16_000
REFERENCE_IMAGES = 2_000
REFERENCE_VECTORS = 4_000


@dataclass(frozen=True)
class Recipe:
    """How one of the two is trained and what it refers to."""

    name: str
    architecture: str
    seed: int
    half: int
    epochs: int
    batch_size: int
    peak: float


RECIPES = (
    Recipe("teacher", "plain", seed=11, half=0, epochs=12, batch_size=128, peak=4e-3),
    Recipe("judge", "residual", seed=29, half=1, epochs=11, batch_size=96, peak=3e-3),
)


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift all images by up to one pixel (a mirrored shoe never occurs in the data)."""
    rows, columns = torch.randint(-1, 2, (2,), generator=generator).tolist()
    return images.roll((rows, columns), (2, 3))


def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of images classified rightly."""
    network.eval()
    with torch.inference_mode():
        hits = sum(
            int((network(x).argmax(1) == y).sum())
            for x, y in zip(images.split(1000), labels.split(1000), strict=True)
        )
    return hits / len(labels)


def train(recipe: Recipe, images: Tensor, labels: Tensor, *, bfloat16: bool) -> nn.Module:
    """Train one classifier by AdamW with a one-cycle learning rate."""
    torch.manual_seed(recipe.seed)
    generator = torch.Generator().manual_seed(recipe.seed)
    network = build_network(recipe.architecture).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.peak, weight_decay=0.02)
    steps = len(images) // recipe.batch_size
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.peak, epochs=recipe.epochs, steps_per_epoch=steps
    )
    for epoch in range(recipe.epochs):
        network.train()
        total = 0.0
        order = torch.randperm(len(images), generator=generator)[: steps * recipe.batch_size]
        for index in order.split(recipe.batch_size):
            batch = augment(images[index], generator).to(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                scores = network(batch)
            loss = nn.functional.cross_entropy(scores.float(), labels[index], label_smoothing=0.05)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        print(
            f"{recipe.name} epoch {epoch + 1}/{recipe.epochs} loss {total / steps:.4f}", flush=True
        )
    return network.to(memory_format=torch.contiguous_format)


def all_features(
    network: PlainNetwork | ResidualNetwork, images: Tensor
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Local features (n, 256, channels) and vectors (n, d)."""
    local, vectors = [], []
    network.eval()
    with torch.inference_mode():
        for batch in images.split(500):
            maps, vector = network.features(batch)
            local.append(maps.flatten(2).transpose(1, 2).numpy())
            vectors.append(vector.numpy())
    return np.concatenate(local), np.concatenate(vectors)


def reference_patches(
    local: NDArray[np.float32], count: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Draw patches, all of different content: a plain background would fill a third of them."""
    flat = local.reshape(-1, local.shape[-1])
    flat = flat[rng.permutation(len(flat))[: 6 * count]]
    _, first = np.unique(np.round(flat, 2), axis=0, return_index=True)
    return flat[np.sort(first)[:count]]


def write_references(recipe: Recipe, accuracy_on_test: float, card: dict[str, Any]) -> None:
    """Write patches, vectors and statistics of real images beside the weights."""
    network = build_network(recipe.architecture)
    weights = FOLDER / f"{recipe.name}.safetensors"
    network.load_state_dict(load_file(weights))
    rng = np.random.default_rng(recipe.seed)
    train_images = load_fashion_mnist("train")[0][recipe.half :: 2]
    test_images = load_fashion_mnist("test")[0]
    patch_images = train_images[rng.permutation(len(train_images))[:REFERENCE_IMAGES]]
    local, _ = all_features(network, torch.from_numpy(patch_images))
    scale = local.reshape(-1, local.shape[-1]).std(0)
    patches = reference_patches(local / scale, REFERENCE_PATCHES, rng)
    whole = test_images if recipe.name == "judge" else train_images[:10_000]
    _, vectors = all_features(network, torch.from_numpy(whole))
    chosen = rng.permutation(len(vectors))[:REFERENCE_VECTORS]
    save_file(
        {
            "patches": torch.from_numpy(patches.astype(np.float16)),
            "scale": torch.from_numpy(scale.astype(np.float32)),
            "vectors": torch.from_numpy(vectors[np.sort(chosen)].astype(np.float16)),
            "mean": torch.from_numpy(vectors.mean(0, dtype=np.float64)),
            "covariance": torch.from_numpy(np.cov(vectors, rowvar=False, dtype=np.float64)),
        },
        FOLDER / f"{recipe.name}-reference.safetensors",
    )
    number = "even" if recipe.half == 0 else "odd"
    card |= {
        "name": f"fashion-{recipe.name}",
        "architecture": recipe.architecture,
        "seed": recipe.seed,
        "parameters": sum(p.numel() for p in network.parameters()),
        "accuracy_on_10000_test_images": accuracy_on_test,
        "trained_on": f"30,000 Fashion-MNIST training images of {number} number",
        "patches_from": f"{REFERENCE_IMAGES} of the same images",
        "vectors_from": "10,000 test images"
        if recipe.name == "judge"
        else f"the first 10,000 training images of {number} number",
        "licence": "MIT (Fashion-MNIST, Zalando Research)",
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "versions": {
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }
    (FOLDER / f"{recipe.name}.json").write_text(json.dumps(card, indent=2) + "\n")


def main() -> None:
    """Train what is asked for and write weights, references and model cards."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", choices=[recipe.name for recipe in RECIPES])
    parser.add_argument("--references-only", action="store_true")
    parser.add_argument("--float32", action="store_true", help="no bfloat16 in forward passes")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    FOLDER.mkdir(parents=True, exist_ok=True)
    test_images, test_labels = map(torch.from_numpy, load_fashion_mnist("test"))
    for recipe in RECIPES:
        if arguments.only not in (None, recipe.name):
            continue
        card_file = FOLDER / f"{recipe.name}.json"
        card: dict[str, Any] = {}
        if arguments.references_only:
            card = json.loads(card_file.read_text())
        else:
            images, labels = load_fashion_mnist("train")
            images, labels = images[recipe.half :: 2], labels[recipe.half :: 2]
            begin = time.perf_counter()
            network = train(
                recipe,
                torch.from_numpy(images),
                torch.from_numpy(labels),
                bfloat16=not arguments.float32,
            )
            card |= {
                "seconds": round(time.perf_counter() - begin, 1),
                "epochs": recipe.epochs,
                "batch_size": recipe.batch_size,
                "peak_learning_rate": recipe.peak,
            }
            save_file(network.state_dict(), FOLDER / f"{recipe.name}.safetensors")
        network = build_network(recipe.architecture)
        network.load_state_dict(load_file(FOLDER / f"{recipe.name}.safetensors"))
        measured = accuracy(network, test_images, test_labels)
        print(f"{recipe.name}: accuracy {measured:.4f}", flush=True)
        write_references(recipe, measured, card)


if __name__ == "__main__":
    main()
