"""The kernels against their formulas, on NumPy, torch and the strict array-API library."""

from __future__ import annotations

import array_api_strict
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asced_analysis.signals import dynamics
from asced_stores.errors import InputError


def trajectory(steps=6, shape=(2, 5, 4), seed=0, runs=3):
    """A DDIM-like run of known x0 curves: eps and x0 consistent with one x a step."""
    rng = np.random.default_rng(seed)
    alpha = np.sqrt(np.linspace(0.02, 0.99, steps))
    sigma = np.sqrt(1 - alpha**2)
    eps = rng.standard_normal((runs, steps, *shape))
    return eps, alpha, sigma


def libraries():
    import torch

    return {
        "numpy": np.asarray,
        "strict": array_api_strict.asarray,
        "torch": torch.asarray,
    }


@pytest.mark.parametrize("library", ["numpy", "strict", "torch"])
def test_every_kernel_gives_the_same_numbers_in_every_library(library):
    eps, alpha, sigma = trajectory()
    eps = eps.astype(np.float32)
    log_snr = 2 * np.log(alpha / sigma)
    convert = libraries()[library]

    def calls(array):
        weighted = dynamics.weighted_score(array, alpha, sigma)
        change = dynamics.score_dynamics(weighted)
        return {
            "score": dynamics.score(array, sigma),
            "weighted": weighted,
            "dynamics": change,
            "innovation": dynamics.innovation(array, alpha, sigma),
            "acceleration": dynamics.acceleration(change),
            "rate": dynamics.log_snr_rate(change, log_snr),
            "variance": dynamics.trajectory_variance(array, last=3),
            "norm": dynamics.root_mean_square(array),
        }

    expected, found = calls(eps), calls(convert(eps))
    for name, reference in expected.items():
        assert reference.dtype == np.float32, name
        np.testing.assert_allclose(np.asarray(found[name]), reference, rtol=2e-6, atol=1e-6)


def test_formulas_by_hand():
    eps, alpha, sigma = trajectory()
    kappa = (sigma / alpha)[:, None, None, None]
    weighted = dynamics.weighted_score(eps, alpha, sigma)
    np.testing.assert_allclose(weighted, -kappa * eps)
    temporal = (sigma**2 / alpha)[:, None, None, None]
    np.testing.assert_allclose(weighted, temporal * dynamics.score(eps, sigma))
    change = dynamics.score_dynamics(weighted)
    np.testing.assert_allclose(change[:, 2], weighted[:, 3] - weighted[:, 2])
    np.testing.assert_allclose(
        dynamics.acceleration(change)[:, 1], abs(change[:, 2]) - abs(change[:, 1])
    )


def test_the_weighted_score_splits_into_innovation_and_schedule():
    eps, alpha, sigma = trajectory()
    kappa = (sigma / alpha)[:, None, None, None]
    schedule = -(kappa[1:] - kappa[:-1]) * eps[:, :-1]
    total = dynamics.score_dynamics(dynamics.weighted_score(eps, alpha, sigma))
    np.testing.assert_allclose(total, dynamics.innovation(eps, alpha, sigma) + schedule)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 12), st.integers(0, 2**31))
def test_innovation_is_the_change_of_predicted_x0_for_ddim(steps, seed):
    rng = np.random.default_rng(seed)
    abar = np.sort(rng.uniform(1e-3, 0.999, steps))
    alpha, sigma = np.sqrt(abar), np.sqrt(1 - abar)
    x = rng.standard_normal((1, 2, 2))
    eps, x0 = [], []
    for k in range(steps):
        eps.append(rng.standard_normal((1, 2, 2)))
        x0.append((x - sigma[k] * eps[-1]) / alpha[k])
        if k + 1 < steps:
            x = alpha[k + 1] * x0[-1] + sigma[k + 1] * eps[-1]
    np.testing.assert_allclose(
        dynamics.innovation(np.stack(eps), alpha, sigma),
        dynamics.predicted_x0_change(np.stack(x0)),
        rtol=1e-7,
        atol=1e-7,
    )


def test_half_precision_is_widened_and_double_is_kept():
    eps, alpha, sigma = trajectory()
    assert dynamics.weighted_score(eps.astype(np.float16), alpha, sigma).dtype == np.float32
    assert dynamics.weighted_score(eps, alpha, sigma).dtype == np.float64


def test_bfloat16_of_torch_is_widened():
    import torch

    eps, alpha, sigma = trajectory()
    found = dynamics.weighted_score(torch.asarray(eps, dtype=torch.bfloat16), alpha, sigma)
    assert found.dtype == torch.float32


def test_a_singular_first_step_is_refused_by_name_but_not_needed_for_innovation():
    eps, alpha, sigma = trajectory()
    alpha, sigma = alpha.copy(), sigma.copy()
    alpha[0], sigma[0] = 0.0, 1.0
    assert dynamics.first_regular_step(alpha) == 1
    with pytest.raises(InputError, match=r"alpha is 0\.0 at step 0"):
        dynamics.weighted_score(eps, alpha, sigma)
    assert np.isfinite(dynamics.innovation(eps, alpha, sigma)).all()
    assert np.isfinite(dynamics.weighted_score(eps[:, 1:], alpha[1:], sigma[1:])).all()


def test_nan_and_infinity_stay_visible():
    eps, alpha, sigma = trajectory()
    eps[0, 2, 0, 0, 0], eps[1, 3, 0, 0, 0] = np.nan, np.inf
    change = dynamics.score_dynamics(dynamics.weighted_score(eps, alpha, sigma))
    assert np.isnan(change[0, 1:3, 0, 0, 0]).all()
    assert np.isinf(change[1, 2:4, 0, 0, 0]).all()
    assert np.isfinite(change).sum() == change.size - 4


def test_wrong_numbers_of_levels_are_refused():
    eps, alpha, sigma = trajectory()
    with pytest.raises(InputError, match="6 steps"):
        dynamics.weighted_score(eps, alpha[:-1], sigma[:-1])
    with pytest.raises(InputError, match="log-SNR levels"):
        dynamics.log_snr_rate(eps, alpha)
    with pytest.raises(InputError, match="do not exist"):
        dynamics.trajectory_variance(eps, last=7)


def test_rates_do_not_depend_on_the_number_of_steps():
    """A straight line in log-SNR has one rate, however finely it is sampled."""
    rates = []
    for steps in (10, 40):
        log_snr = np.linspace(-8, 8, steps)
        line = log_snr[:, None, None, None] * np.ones((1, 2, 2))
        rates.append(dynamics.log_snr_rate(dynamics.score_dynamics(line), log_snr))
    np.testing.assert_allclose(rates[0], 1)
    np.testing.assert_allclose(rates[1], 1)
