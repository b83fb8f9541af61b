"""Local realism and distances between sets of images."""

from __future__ import annotations

import hashlib
import json
import warnings

import numpy as np
import pytest

from asced_analysis.realism import (
    features,
    frechet_distance,
    load_embedded,
    local_realism,
    model_from_module,
    patch_model,
    precision_recall,
    upsample,
)
from asced_analysis.realism.embedded import FOLDER
from asced_analysis.realism.local import nearest_distances
from asced_stores.errors import InputError


def pictures(n: int, seed: int = 0, size: int = 32) -> np.ndarray:
    """Smooth grey blobs."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    field = gaussian_filter(rng.standard_normal((n, 1, size, size)), (0, 0, 3, 3))
    return np.clip(4 * field, -1, 1).astype(np.float32)


def test_nearest_distances_equal_brute_force() -> None:
    rng = np.random.default_rng(1)
    queries = rng.standard_normal((1100, 7)).astype(np.float32)
    references = rng.standard_normal((2300, 7)).astype(np.float32)
    brute = np.linalg.norm(queries[:, None] - references, axis=-1).min(1)
    np.testing.assert_allclose(nearest_distances(queries, references), brute, atol=2e-3)


def test_frechet_distance_of_gaussians_is_their_formula() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((4000, 3)) * [1, 2, 3] + np.array([1, 0, 0])
    mean, covariance = vectors.mean(0), np.cov(vectors, rowvar=False)
    assert frechet_distance(vectors, mean, covariance) == pytest.approx(0, abs=1e-9)
    shifted = frechet_distance(vectors, mean + np.array([0, 2, 0]), covariance)
    assert shifted == pytest.approx(4, rel=1e-9)
    scaled = frechet_distance(vectors - mean, np.zeros(3), 4 * covariance)
    assert scaled == pytest.approx(np.trace(covariance), rel=1e-9)


def test_precision_and_recall_see_a_lost_mode_and_a_stray_one() -> None:
    rng = np.random.default_rng(0)
    left = rng.standard_normal((200, 2)) * 0.1
    right = left + np.array([10, 0])
    far = left + np.array([0, 50])
    assert precision_recall(left, left) == (1.0, 1.0)
    precision, recall = precision_recall(left, np.concatenate([left, right]))
    assert precision == 1.0
    assert recall == pytest.approx(0.5)
    precision, recall = precision_recall(np.concatenate([left, far]), left)
    assert precision == pytest.approx(0.5)
    assert recall == 1.0


@pytest.mark.parametrize("name", ["teacher", "judge"])
def test_embedded_models_call_noise_unreal(name: str) -> None:
    model = load_embedded(name)
    assert model.card["accuracy_on_10000_test_images"] > 0.9
    noise = np.random.default_rng(0).uniform(-1, 1, (4, 1, 32, 32)).astype(np.float32)
    background = np.full((4, 1, 32, 32), -1, np.float32)
    maps = local_realism(np.concatenate([noise, background]), model)
    assert maps.shape == (8, 16, 16)
    assert maps[:4].mean() > 5 * maps[4:].mean()


def test_the_committee_sees_what_its_members_see() -> None:
    teacher, both = load_embedded("teacher"), load_embedded("committee")
    assert both.patches.shape == (both.card["places"], teacher.patches.shape[1] + 32)
    content = (FOLDER / "committee-reference.safetensors").read_bytes()
    assert hashlib.sha256(content).hexdigest() == both.card["sha256"]
    images = np.full((4, 1, 32, 32), -1, np.float32)
    images[:, :, 8:24, 10:22] = 0.6
    torn = images.copy()
    torn[:, :, 12:18, 12:18] = np.random.default_rng(0).uniform(-1, 1, (4, 1, 6, 6))
    before, after = local_realism(images, both), local_realism(torn, both)
    hurt = (after - before)[:, 6:9, 6:9].mean()
    assert hurt > 5 * np.abs((after - before)[:, :, :3]).mean()
    # of a plain background, whose every place real images have, no border stands out
    background = local_realism(np.full((1, 1, 32, 32), -1, np.float32), both)[0]
    assert background.max() < 0.25 * after[:, 6:9, 6:9].mean()
    assert both.runs is teacher
    for own, shared in ((teacher.mean, both.mean), (teacher.vectors, both.vectors)):
        np.testing.assert_array_equal(own, shared)


def test_teacher_and_judge_are_two() -> None:
    teacher, judge = load_embedded("teacher"), load_embedded("judge")
    for key in ("architecture", "seed", "trained_on", "patches_from", "vectors_from", "sha256"):
        if key != "patches_from":
            assert teacher.card[key] != judge.card[key]
    assert teacher.patches.shape != judge.patches.shape


def test_local_realism_points_at_the_damage() -> None:
    model = patch_model(pictures(200, seed=1))
    clean = pictures(8, seed=2)
    broken = clean.copy()
    broken[:, :, 8:16, 8:16] = np.random.default_rng(3).choice([-1, 1], (8, 1, 8, 8))
    before, after = local_realism(clean, model), local_realism(broken, model)
    assert before.shape == (8, 16, 16)
    change = after - before
    assert (change[:, 4:8, 4:8].mean((1, 2)) > 3 * np.abs(change[:, 12:, 12:]).mean()).all()


def test_any_torch_module_may_judge() -> None:
    import torch

    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 6, 3, 2, 1), torch.nn.ReLU(), torch.nn.Conv2d(6, 8, 3, 2, 1)
    )
    real = pictures(40)
    model = model_from_module("toy", network, real, local_layer="1", vector_layer="2")
    assert local_realism(real[:3], model).shape == (3, 16, 16)
    assert features(real[:3], model).shape == (3, 8)
    assert local_realism(real, model).mean() < local_realism(-real[:, :, ::-1] * 2, model).mean()
    with pytest.raises(InputError, match="no layer 'nine'"):
        model_from_module("toy", network, real, local_layer="nine")


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(InputError, match=r"\(n, 1, 32, 32\).*patches"):
        local_realism(np.zeros((2, 3, 16, 16), np.float32), load_embedded("judge"))
    with pytest.raises(InputError, match="teacher, judge, committee"):
        load_embedded("oracle")


def test_upsample_repeats() -> None:
    maps = np.arange(4).reshape(1, 2, 2)
    assert upsample(maps, (4, 4))[0].tolist() == [
        [0, 0, 1, 1],
        [0, 0, 1, 1],
        [2, 2, 3, 3],
        [2, 2, 3, 3],
    ]


def test_model_cards_are_json_and_need_no_download() -> None:
    total = sum(path.stat().st_size for path in FOLDER.iterdir())
    assert total < 8e6
    for name in ("teacher", "judge"):
        card = json.loads((FOLDER / f"{name}.json").read_text())
        assert "/" not in card["architecture"]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert card["licence"].startswith("MIT")
