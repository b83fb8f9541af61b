"""Conversions between what a network returns and (eps, x0)."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asced_stores.errors import InputError
from asced_stores.format import noise_levels as nl

LEVELS = {
    "epsilon": (0.6, 0.8),
    "sample": (0.6, 0.8),
    "v_prediction": (1.0, 7.0),
    "flow_prediction": (0.3, 0.7),
    "score": (0.6, 0.8),
    "edm": (1.0, 3.0),
    "edm_v": (1.0, 3.0),
}


def output_of(kind: str, x0: np.ndarray, eps: np.ndarray, alpha: float, sigma: float) -> np.ndarray:
    """What an exact network of this kind returns, written independently of the module."""
    x = alpha * x0 + sigma * eps
    r = math.hypot(alpha, sigma)
    if kind == "epsilon":
        return eps
    if kind == "sample":
        return x0
    if kind == "v_prediction":
        return alpha / r * eps - sigma / r * x0
    if kind == "flow_prediction":
        return eps - x0
    if kind == "score":
        return -eps / sigma
    c_skip = 0.25 / (sigma**2 + 0.25)
    c_out = sigma * 0.5 / math.sqrt(sigma**2 + 0.25)
    return (x0 - c_skip * x) / (c_out if kind == "edm" else -c_out)


@pytest.mark.parametrize("kind", nl.PREDICTION_TYPES)
@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_every_parametrisation_gives_eps_and_x0_back(kind: str, backend: str) -> None:
    rng = np.random.default_rng(0)
    x0, eps = rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 3, 4))
    alpha, sigma = LEVELS[kind]
    x, out = alpha * x0 + sigma * eps, output_of(kind, x0, eps, alpha, sigma)
    if backend == "torch":
        import torch

        x, out = torch.from_numpy(x), torch.from_numpy(out)
    got_eps, got_x0 = nl.eps_and_x0(x, out, alpha=alpha, sigma=sigma, prediction_type=kind)
    assert type(got_eps) is type(x)
    np.testing.assert_allclose(np.asarray(got_eps), eps, rtol=0, atol=1e-12)
    np.testing.assert_allclose(np.asarray(got_x0), x0, rtol=0, atol=1e-12)
    back = nl.model_output_from_eps(got_eps, x, alpha=alpha, sigma=sigma, prediction_type=kind)
    np.testing.assert_allclose(np.asarray(back), np.asarray(out), rtol=0, atol=1e-12)


@given(
    alpha=st.floats(1e-3, 1.0),
    sigma=st.floats(1e-3, 100.0),
    kind=st.sampled_from(["epsilon", "sample", "v_prediction", "score", "edm"]),
)
def test_weighted_score_is_x0_minus_x_over_alpha(alpha: float, sigma: float, kind: str) -> None:
    if kind == "edm":
        alpha = 1.0
    rng = np.random.default_rng(1)
    x, out = rng.normal(size=(5,)), rng.normal(size=(5,))
    eps, x0 = nl.eps_and_x0(x, out, alpha=alpha, sigma=sigma, prediction_type=kind)
    w = nl.weighted_score(eps, alpha, sigma)
    scale = np.abs(x).max() / alpha + np.abs(x0).max()
    np.testing.assert_allclose(w, x0 - x / alpha, rtol=0, atol=1e-9 * scale)
    np.testing.assert_allclose(w, sigma**2 / alpha * nl.score(eps, sigma), rtol=1e-9)


def test_singular_levels_are_dropped_and_never_filled() -> None:
    alpha, sigma = np.array([0.0, 0.6, 1.0]), np.array([1.0, 0.8, 0.0])
    snr = nl.log_snr(alpha, sigma)
    assert snr[0] == -np.inf
    assert snr[2] == np.inf
    assert snr[1] == pytest.approx(2 * math.log(0.75))
    assert nl.log_snr(0.0, 1.0) == -math.inf
    assert np.isnan(nl.weighted_score(np.ones(3), alpha, sigma)).tolist() == [True, False, False]
    eps, x0 = nl.eps_and_x0(
        np.ones(2), np.full(2, 0.5), alpha=0.0, sigma=1.0, prediction_type="flow"
    )
    assert eps.tolist() == [1.0, 1.0]
    assert x0.tolist() == [0.5, 0.5]


def test_levels_broadcast_along_the_step_axis() -> None:
    eps = np.ones((2, 3, 1, 4, 4))
    alpha = np.array([0.6, 0.8, 1.0]).reshape(3, 1, 1, 1)
    w = nl.weighted_score(eps, alpha, 1.0)
    np.testing.assert_allclose(w[1, :, 0, 0, 0], [-1 / 0.6, -1 / 0.8, -1.0])


def test_an_unknown_prediction_type_is_named() -> None:
    with pytest.raises(InputError, match=r"unknown prediction type 'noise'.*epsilon"):
        nl.canonical_prediction_type("noise")
