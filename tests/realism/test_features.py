"""Features by name: vision models from tiny configurations, functions of one's own, the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asced_analysis import open_runs
from asced_analysis.realism import local_realism
from asced_analysis.realism.claims import Reference
from asced_analysis.realism.judges import choose_judge
from asced_analysis.realism.registry import FEATURES, further_names, kind_of, kinds
from asced_stores.errors import InputError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ASCED_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def tiny_model(family: str) -> Any:
    import transformers as t

    sizes = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28}
    if family == "dinov2":
        return t.Dinov2Model(t.Dinov2Config(patch_size=14, **sizes))
    if family == "clip":
        vision = {"intermediate_size": 16, "patch_size": 7, **sizes}
        text = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1}
        text |= {"num_attention_heads": 2, "vocab_size": 20}
        return t.CLIPModel(t.CLIPConfig(text_config=text, vision_config=vision))
    if family == "vit":
        return t.ViTModel(t.ViTConfig(intermediate_size=16, patch_size=7, **sizes))
    config = t.ConvNextConfig(hidden_sizes=[4, 8], depths=[1, 1], num_stages=2, image_size=32)
    return t.ConvNextModel(config)


@pytest.mark.parametrize("family", ["dinov2", "clip", "vit", "convnext"])
def test_vision_models_of_every_shape(family: str, tmp_path: Path, tiny_runs: Path) -> None:
    import torch

    torch.manual_seed(0)
    folder = tmp_path / family
    tiny_model(family).save_pretrained(folder)
    ds = open_runs(tiny_runs)
    model = choose_judge(str(folder), ds)
    assert model.name == family
    pictures = ds["sample"].values[:4]
    maps = local_realism(pictures, model, runs=np.arange(4))
    assert maps.ndim == 3
    assert (maps > 0).all(), "not against themselves"
    noise = np.random.default_rng(0).choice([-1.0, 1.0], pictures.shape)
    assert np.abs(local_realism(noise, model) - maps).min() > 0, "random weights see pictures"


def test_a_function_of_ones_own(tmp_path: Path, tiny_runs: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "import numpy as np\n"
        "def halves(images):\n"
        "    return np.moveaxis(images[:, :, ::2, ::2], 1, -1)\n"
        "def flat(images):\n"
        "    return images.reshape(len(images), -1)\n"
        "number = 3\n"
    )
    ds = open_runs(tiny_runs)
    model = choose_judge(f"{file}:halves", ds)
    assert model.name == "mine.py:halves"
    assert local_realism(ds["sample"].values[:2], model).shape == (2, 8, 8)
    wrong = {"flat": "rows, columns", "number": "no function", "x": "no function"}
    for name, said in wrong.items():
        with pytest.raises(InputError, match=said):
            choose_judge(f"{file}:{name}", ds)
    with pytest.raises(InputError, match="no file"):
        choose_judge(f"{tmp_path}/other.py:halves", ds)


def test_features_of_real_images_are_looked_at_once(tmp_path: Path, cache: Path) -> None:
    looked = tmp_path / "looked"
    file = tmp_path / "mine.py"
    file.write_text(
        "import numpy as np\n"
        "def maps(images):\n"
        f"    with open({str(looked)!r}, 'a') as out: out.write(f'{{len(images)}} ')\n"
        "    return np.moveaxis(images, 1, -1)\n"
    )
    images = np.random.default_rng(0).uniform(-1, 1, (12, 3, 8, 8)).astype(np.float32)
    of = Reference("real", "some", 12)
    kind = kind_of(f"{file}:maps")
    first = kind.build(f"{file}:maps", images, of, None)
    again = kind.build(f"{file}:maps", images, of, None)
    assert looked.read_text().split() == ["12"]
    np.testing.assert_array_equal(first.patches, again.patches)
    assert len(list(cache.rglob("*.npz"))) == 1
    kind.build(f"{file}:maps", images[::-1] * 1, of, None)
    assert looked.read_text().split() == ["12", "12"], "other content"
    for kept in cache.rglob("*.npz"):
        kept.write_bytes(b"damaged")
    kind.build(f"{file}:maps", images, of, None)
    assert looked.read_text().split() == ["12"] * 3
    kind.build(f"{file}:maps", images, Reference("population", "runs", 12), None)
    assert len(list(cache.rglob("*.npz"))) == 2, "populations are not kept"


def test_a_file_of_features_may_hold_dataclasses_and_import_what_lies_beside_it(
    tmp_path: Path,
) -> None:
    (tmp_path / "beside_it.py").write_text("AXIS = 1\n")
    file = tmp_path / "features_of_mine.py"
    file.write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "import numpy as np\n"
        "from beside_it import AXIS\n"
        "@dataclass\n"
        "class Mover:\n"
        "    axis: int = AXIS\n"
        "def maps(images):\n"
        "    return np.moveaxis(images, Mover().axis, -1)\n"
    )
    images = np.random.default_rng(0).uniform(-1, 1, (3, 3, 8, 8)).astype(np.float32)
    kind = kind_of(f"{file}:maps")
    model = kind.build(f"{file}:maps", images, None, None)
    assert model.name == "features_of_mine.py:maps"


def test_features_far_from_zero_do_not_cancel(tmp_path: Path) -> None:
    from asced_analysis.realism.modules import model_from_references

    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (40, 1, 4, 4)).astype(np.float32)

    def encode(pictures: Any, shift: float = 0.0) -> Any:
        local = np.moveaxis(pictures, 1, -1) + np.float32(shift)
        return local, local.mean((1, 2))

    near = model_from_references("near", encode, images)
    far = model_from_references("far", lambda x: encode(x, 600.0), images)
    np.testing.assert_allclose(
        local_realism(images[:5], far), local_realism(images[:5], near), atol=2e-3
    )


def test_every_kind_says_what_it_is() -> None:
    names = [kind.name for kind in kinds()]
    assert len(set(names)) == len(names)
    assert names[0] == "patches"
    for kind in kinds():
        assert kind.summary
    with pytest.raises(InputError, match="no features are called 'dino'"):
        kind_of("dino")


def test_features_of_ones_own_are_registered() -> None:
    class Mine(type(FEATURES.get("patches"))):  # type: ignore[misc]
        name = "mine"
        summary = "registered by hand"

    before = further_names()
    FEATURES.register("mine", Mine())
    try:
        assert kind_of("mine").summary == "registered by hand"
        assert further_names() == (*before, "mine")
    finally:
        FEATURES._registered.pop("mine")
