"""Write the committee of `fashion`: references of the teacher's features beside whitened patches.

    python -m training.write_committee

Nothing is trained: the teacher of `train_classifiers.py` must be there. Patches are whitened and
referred to by training images of even number, as the teacher's are; the judge's are the others.
"""

from __future__ import annotations

import argparse
import hashlib
import json

import numpy as np
from safetensors.numpy import save_file

from asced_analysis.realism.embedded import FOLDER, committee_encoder
from asced_analysis.realism.modules import model_from_references
from asced_analysis.realism.patches import whitening_of
from training.fashion_mnist import load_fashion_mnist

IMAGES = 2000
SEED = 5


def main() -> None:
    """Write references and card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--places", type=int, default=6000, help="of real images, as references")
    arguments = parser.parse_args()
    images = load_fashion_mnist("train")[0][::2]
    chosen = np.random.default_rng(SEED).choice(len(images), IMAGES, replace=False)
    real = np.asarray(images[np.sort(chosen)], np.float32)
    centre, projection = whitening_of(real)
    encode = committee_encoder(centre, projection)
    whole = model_from_references("fashion-committee", encode, real, patches=arguments.places)
    local = encode(real)[0]
    scale = np.maximum(local.reshape(-1, local.shape[-1]).std(0), 1e-6)
    path = FOLDER / "committee-reference.safetensors"
    arrays = {
        "centre": centre.astype(np.float32),
        "projection": projection,
        "scale": scale,
        "patches": whole.patches.astype(np.float16),
    }
    # safetensors writes the memory as it lies: columns of an eigenbasis lie column by column
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)
    path.chmod(0o644)
    card = {
        "name": whole.name,
        "made_of": "fashion-teacher and whitened patches of 5 x 5 pixels at two scales",
        "places": arguments.places,
        "places_from": f"{IMAGES} Fashion-MNIST training images of even number",
        "licence": "MIT (Fashion-MNIST, Zalando Research)",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    (FOLDER / "committee.json").write_text(json.dumps(card, indent=2) + "\n")


if __name__ == "__main__":
    main()
