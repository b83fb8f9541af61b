"""The two classifiers of `fashion` and the committee, with their references, as package data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from asced_analysis.realism.claims import Reference
from asced_analysis.realism.local import Array, Encoder, RealismModel
from asced_analysis.realism.patches import multi_scale_patches
from asced_analysis.realism.registry import FeatureKind
from asced_stores.errors import InputError

FOLDER = Path(__file__).parent / "fashion"
MODEL = "fashion"
NAMES = ("teacher", "judge", "committee")


@cache
def load_embedded(name: str) -> RealismModel:
    """Load a teacher (for calibration) or the judge (for reporting) of `fashion`.

    Parameters
    ----------
    name : {"committee", "teacher", "judge"}
        Teacher and judge differ in architecture, seed, layer and in the real images they refer to.
        The committee is the teacher's local features and whitened patches side by side: where the
        two disagree, a detector that is taught by both learns less of the teacher's blind spots,
        such as the image's border. It is the default teacher of maps; of whole runs the teacher
        stays the better one within matched content, so the committee leaves these to it.

    Returns
    -------
    RealismModel
        For images (n, 1, 32, 32) in -1..1.

    Examples
    --------
    >>> from asced_analysis.realism import load_embedded
    >>> load_embedded("teacher").name
    'fashion-teacher'
    """
    if name not in NAMES:
        raise InputError(f"no embedded realism model {name!r}; choose one of {', '.join(NAMES)}")
    if name == "committee":
        return _load_committee()
    import torch
    from safetensors.torch import load_file

    from asced_analysis.realism.networks import build_network

    card = json.loads((FOLDER / f"{name}.json").read_text())
    network = build_network(card["architecture"])
    network.load_state_dict(load_file(FOLDER / f"{name}.safetensors"))
    reference = load_file(FOLDER / f"{name}-reference.safetensors")
    scale = reference["scale"]

    def encode(images: Array) -> tuple[Array, Array]:
        with torch.inference_mode():
            local, vectors = network.features(torch.from_numpy(np.ascontiguousarray(images)))
            scaled = (local / scale[:, None, None]).permute(0, 2, 3, 1)
            return scaled.contiguous().numpy(), vectors.numpy()

    return RealismModel(
        reference=_reference(reference["vectors"]),
        name=card["name"],
        encode=encode,
        patches=reference["patches"].float().numpy(),
        vectors=reference["vectors"].float().numpy(),
        mean=reference["mean"].numpy(),
        covariance=reference["covariance"].numpy(),
        image_shape=(1, 32, 32),
        card=card,
    )


def _reference(vectors: Any) -> Reference:
    return Reference("real", "Fashion-MNIST", len(vectors))


def committee_encoder(centre: Array, projection: Array) -> Encoder:
    """Local features of the teacher and of whitened patches, side by side.

    Parameters
    ----------
    centre, projection : arrays, shapes (c,) and (c, d)
        Of `patches.whitening_of`.

    Returns
    -------
    callable
        Images (n, 1, 32, 32) to local features (n, 16, 16, 32 + d), not yet scaled, and the
        teacher's vectors.
    """
    teacher = load_embedded("teacher")

    def encode(images: Array) -> tuple[Array, Array]:
        local, vectors = teacher.encode(images)
        patches = (multi_scale_patches(images) - centre) @ projection
        return np.concatenate([local, patches.astype(np.float32)], axis=-1), vectors

    return encode


def _load_committee() -> RealismModel:
    """The teacher beside whitened patches; distances are to the nearest place in both at once."""
    from safetensors.numpy import load_file

    card = json.loads((FOLDER / "committee.json").read_text())
    reference = load_file(FOLDER / "committee-reference.safetensors")
    teacher = load_embedded("teacher")
    encode = committee_encoder(reference["centre"], reference["projection"])
    scale = reference["scale"]

    def scaled(images: Array) -> tuple[Array, Array]:
        local, vectors = encode(images)
        return np.ascontiguousarray(local / scale), vectors

    return RealismModel(
        reference=teacher.reference,
        name=card["name"],
        encode=scaled,
        patches=reference["patches"].astype(np.float32),
        vectors=teacher.vectors,
        mean=teacher.mean,
        covariance=teacher.covariance,
        image_shape=(1, 32, 32),
        card=card,
        runs=teacher,
    )


class EmbeddedKind(FeatureKind):
    """The classifiers of `fashion` with real images of their own; teacher's and judge's differ."""

    name = "judge, teacher or committee"
    summary = "those of `fashion`: its judge, its teacher, and the teacher beside whitened patches"
    brings_reference = True

    def takes(self, given: str) -> bool:
        """By their names."""
        return given in NAMES

    def made_for(self, attributes: Mapping[str, Any], role: str) -> str | None:
        """For the embedded model, known by its weights; without a fingerprint, by its name."""
        recorded = attributes.get("model_fingerprint")
        if recorded is None:
            return role if attributes.get("pipeline") == MODEL else None
        known = json.loads((FOLDER / "models.json").read_text())["fingerprints"]
        return role if recorded in known else None

    def check_role(self, given: str, role: str) -> None:
        """Refuse the judge as a teacher."""
        if given == "judge" and role == "teacher":
            raise InputError(
                f"{given} is for reporting, so it cannot teach: choose another teacher"
            )

    def build(self, given: str, images: Any, of: Reference | None, runs: Any) -> RealismModel:
        """Load it (see `registry.FeatureKind`)."""
        return load_embedded(given)


KIND = EmbeddedKind()
