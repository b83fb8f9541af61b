"""Features of any vision model that transformers loads, by hub name or folder."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from asced_analysis.realism.claims import Reference
from asced_analysis.realism.local import Array, Encoder, RealismModel
from asced_analysis.realism.modules import referred
from asced_analysis.realism.registry import FeatureKind
from asced_stores.errors import InputError, install_hint

AT_ONCE = 16


class VisionModelKind(FeatureKind):
    """A model of transformers: its last hidden state is local, its mean over places the vector."""

    name = "HUB/NAME or FOLDER"
    summary = "any vision model that transformers loads (DINOv2, CLIP, ViT, ConvNeXt, ...)"

    def takes(self, given: str) -> bool:
        """A name with a slash, or a folder with a configuration."""
        return "/" in given or (Path(given) / "config.json").is_file()

    def build(self, given: str, images: Any, of: Reference | None, runs: Any) -> RealismModel:
        """Load it and look at the reference (see `registry.FeatureKind`)."""
        network, mean, std = _load(given)
        encode = _encoder(network, mean, std, given)
        name = Path(given).name if Path(given).is_dir() else given
        return referred(name, encode, images, of, runs, version=_weights(network, mean, std))


KIND = VisionModelKind()


def _load(given: str) -> tuple[Any, list[float], list[float]]:
    """The vision part of a model, and the mean and deviation that its pictures are brought to."""
    try:
        from transformers import AutoModel
        from transformers.utils.hub import cached_file
    except ModuleNotFoundError as error:
        raise InputError(
            f"{given} is loaded by transformers, which is not installed: {install_hint('record')}"
        ) from error
    try:
        model = AutoModel.from_pretrained(given)
        found = cached_file(
            given, "preprocessor_config.json", _raise_exceptions_for_missing_entries=False
        )
    except (OSError, ValueError) as error:
        raise InputError(
            f"{given!r} is neither a folder nor a model that transformers can load here: {error}"
        ) from error
    vision = getattr(model, "vision_model", model)
    vision.eval()
    settings = json.loads(Path(found).read_text()) if found else {}
    mean = [float(value) for value in settings.get("image_mean") or [0.5] * 3]
    std = [float(value) for value in settings.get("image_std") or [0.5] * 3]
    return vision, mean, std


def _weights(network: Any, *more: Any) -> str:
    """Hash of the weights, for the cache."""
    found = hashlib.sha256(repr(more).encode())
    for name, tensor in sorted(network.state_dict().items()):
        found.update(name.encode())
        found.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def _encoder(network: Any, mean: list[float], std: list[float], given: str) -> Encoder:
    """Pictures to a map and a vector each."""
    import torch

    size = getattr(network.config, "image_size", None) or 224
    height, width = (size, size) if isinstance(size, int) else tuple(size)
    shift = torch.tensor(mean).view(1, -1, 1, 1)
    scale = torch.tensor(std).view(1, -1, 1, 1)

    def encode(images: Array) -> tuple[Array, Array]:
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            raise InputError(
                f"{given} looks at images of shape (n, 1 or 3, y, x), not {images.shape}"
            )
        maps, vectors = [], []
        for begin in range(0, len(images), AT_ONCE):
            some = torch.from_numpy(np.ascontiguousarray(images[begin : begin + AT_ONCE]))
            unit = (some / 2 + 0.5).clamp(0, 1).expand(-1, 3, -1, -1)
            unit = torch.nn.functional.interpolate(
                unit, size=(height, width), mode="bilinear", antialias=True, align_corners=False
            )
            with torch.inference_mode():
                out = network(pixel_values=(unit - shift) / scale).last_hidden_state.float()
            local = _as_map(out, network, height, width, given)
            maps.append(local.contiguous().numpy())
            vectors.append(local.mean((1, 2)).numpy())
        return np.concatenate(maps), np.concatenate(vectors)

    return encode


def _as_map(hidden: Any, network: Any, height: int, width: int, given: str) -> Any:
    """A last hidden state as (n, rows, columns, channel); class and register tokens go."""
    if hidden.ndim == 4:
        return hidden.permute(0, 2, 3, 1)
    patch = getattr(network.config, "patch_size", None)
    if hidden.ndim == 3 and patch is not None:
        down, across = (patch, patch) if isinstance(patch, int) else tuple(patch)
        rows, columns = height // down, width // across
        if rows * columns <= hidden.shape[1]:
            return hidden[:, hidden.shape[1] - rows * columns :].reshape(
                len(hidden), rows, columns, -1
            )
    side = round(hidden.shape[1] ** 0.5) if hidden.ndim == 3 else 0
    if side and side * side == hidden.shape[1]:
        return hidden.reshape(len(hidden), side, side, -1)
    raise InputError(
        f"the last hidden state of {given} has shape {tuple(hidden.shape)}, which is no map; give "
        "a function of your own, FILE.py:FUNCTION"
    )
