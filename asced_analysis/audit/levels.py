"""What the network was told of each step beside the level it was given, and what a start is due.

All of it follows from the recorded levels, timesteps and the scheduler's configuration.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Kind = Literal["variance preserving", "sigma space", "flow matching", "other"]

TOLERANCE = 1e-3
EQUAL_STRIDES = (
    "DDIMScheduler",
    "DDIMParallelScheduler",
    "CogVideoXDDIMScheduler",
    "PNDMScheduler",
)
"""Of diffusers: they step by equally many timesteps each time, whatever they are told next."""
TRAINED_STEPS = 1000
BENT = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "shift_terminal")
STRAIGHT = 5e-3  # rms distance from a line, of a range of 1


@dataclass(frozen=True)
class Levels:
    """The schedule of the runs, as it was recorded.

    Attributes
    ----------
    timestep, alpha, sigma, log_snr : array, shape (step,)
    attributes : mapping
        Of the store.
    """

    timestep: Floats
    alpha: Floats
    sigma: Floats
    log_snr: Floats
    attributes: Mapping[str, Any]

    @property
    def config(self) -> Mapping[str, Any]:
        """Of the scheduler; empty where it was none of diffusers."""
        found = self.attributes.get("scheduler_config")
        return found if isinstance(found, Mapping) else {}

    @property
    def spacing(self) -> str:
        """Of the timesteps, where the scheduler says so."""
        return str(self.config.get("timestep_spacing", ""))

    @property
    def kind(self) -> Kind:
        """How the sampler writes its samples."""
        if np.allclose(self.alpha, 1, atol=TOLERANCE):
            return "sigma space"
        if np.allclose(self.alpha + self.sigma, 1, atol=TOLERANCE):
            return "flow matching"
        if np.allclose(self.alpha**2 + self.sigma**2, 1, atol=TOLERANCE):
            return "variance preserving"
        return "other"

    @property
    def coarseness(self) -> Floats:
        """Longest step in log-SNR up to each step, in nats; what no solver can help grows so."""
        with np.errstate(invalid="ignore"):
            width = np.abs(np.diff(self.log_snr))
        width = np.where(np.isfinite(width), width, 0)
        return np.concatenate([[0.0], np.maximum.accumulate(width)]) if width.size else np.zeros(1)


def due_scales(levels: Levels) -> tuple[float, ...]:
    """Standard deviations that a start of pure noise may have.

    The level's own; that of a unit-variance sample; and what some of diffusers' schedulers ask for
    besides: ``sqrt(sigma^2 + 1)`` with leading timesteps, and of EDM's greatest level.
    """
    alpha, sigma = float(levels.alpha[0]), float(levels.sigma[0])
    due = [sigma]
    if levels.kind == "sigma space":
        greatest = levels.config.get("sigma_max")
        if levels.spacing == "leading":
            due.append(math.hypot(sigma, 1))
        if levels.spacing == "" and isinstance(greatest, (int, float)):
            due.append(math.hypot(float(greatest), 1))
    else:
        due.append(1.0 if levels.kind == "flow matching" else math.hypot(alpha, sigma))
    return tuple(due)


def level_in_timesteps(levels: Levels) -> Floats | None:
    """The timestep that belongs to each recorded level, where the scheduler's configuration tells.

    Returns
    -------
    array, shape (step,), or None
        None where timesteps have no meaning that is known (a loop of one's own), or where levels
        are read off the timesteps, so that they agree whatever happens.
    """
    config = levels.config
    if levels.kind == "flow matching":
        if not config:
            return None
        trained = float(config.get("num_train_timesteps") or TRAINED_STEPS)
        return levels.sigma * trained
    if "sigma_data" in config or config.get("timestep_type") == "continuous":
        return 0.25 * np.log(levels.sigma) if levels.kind == "sigma space" else None
    table = _trained_levels(config)
    if table is None:
        return None
    with np.errstate(divide="ignore"):
        ratio = np.log(levels.sigma / levels.alpha)
    return np.interp(ratio, np.log(table), np.arange(len(table), dtype=np.float64))


def timestep_tolerance(levels: Levels) -> float:
    """By how much a timestep may be off: schedulers round it to a whole number."""
    if "sigma_data" in levels.config or levels.config.get("timestep_type") == "continuous":
        return 0.01
    return 1.5


def uneven_stride(levels: Levels) -> int | None:
    """The first step after which timesteps go on by another stride than the scheduler does.

    None where all is even (to rounding), or the scheduler looks its next timestep up.
    """
    if levels.attributes.get("scheduler_class") not in EQUAL_STRIDES or len(levels.timestep) < 3:
        return None
    strides = -np.diff(levels.timestep)
    usual = float(np.median(strides))
    off = np.flatnonzero(np.abs(strides - usual) > 2)
    return int(off[0]) if off.size else None


def effective_shift(levels: Levels) -> float | None:
    """The shift ``a s / (1 + (a - 1) s)`` of evenly spaced levels that gives the recorded ones.

    Two shifts in a row are one by their product. None where levels are no flow-matching ones, are
    bent in another way, or were never evenly spaced.
    """
    sigma = levels.sigma
    if levels.kind != "flow matching" or len(sigma) < 4:
        return None
    if any(levels.config.get(name) for name in BENT):
        return None
    shifts = np.exp(np.linspace(math.log(0.2), math.log(60), 1200))
    even = sigma / (shifts[:, None] - (shifts[:, None] - 1) * sigma)
    even = even - even[:, -1:]
    even = even / np.where(even[:, :1] == 0, 1, even[:, :1])
    line = np.linspace(1, 0, len(sigma))
    apart = np.sqrt(((even - line) ** 2).mean(1))
    best = int(apart.argmin())
    return float(shifts[best]) if apart[best] < STRAIGHT else None


def asked_shift(levels: Levels, shape: tuple[int, ...]) -> float | None:
    """The shift that the scheduler's configuration asks for; None where it asks for none.

    Parameters
    ----------
    levels : Levels
    shape : tuple of int
        Of a sample, for shifts that depend on the resolution (2 x 2 pixels are a token).
    """
    config = levels.config
    if config.get("use_dynamic_shifting"):
        names = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")
        if any(not isinstance(config.get(name), (int, float)) for name in names):
            return None
        least, most, base, top = (float(config[name]) for name in names)
        tokens = shape[-1] * shape[-2] / 4
        return math.exp(base + (top - base) * (tokens - least) / (most - least))
    shift = config.get("shift") if "shift" in config else config.get("flow_shift")
    return float(shift) if isinstance(shift, (int, float)) else None


def _trained_levels(config: Mapping[str, Any]) -> Floats | None:
    """``sigma / alpha`` of the levels that the network was trained on, by timestep."""
    if any(name in config for name in ("snr_shift_scale", "use_flow_sigmas")) and (
        "snr_shift_scale" in config or config["use_flow_sigmas"]
    ):
        return None
    betas = _betas(config)
    if betas is None:
        return None
    root = np.sqrt(np.cumprod(1 - betas))
    if config.get("rescale_betas_zero_snr"):
        root = (root - root[-1]) * root[0] / (root[0] - root[-1])
        root[-1] = 2.0**-12
    return np.asarray(np.sqrt(1 - root**2) / root)


def _betas(config: Mapping[str, Any]) -> Floats | None:
    """Betas of a scheduler's configuration, as diffusers makes them."""
    if isinstance(config.get("trained_betas"), list):
        return np.asarray(config["trained_betas"], np.float64)
    count = config.get("num_train_timesteps")
    first, last = config.get("beta_start"), config.get("beta_end")
    if not all(isinstance(one, (int, float)) for one in (count, first, last)):
        return None
    schedule = config.get("beta_schedule")
    steps = int(count)  # type: ignore[arg-type]
    if schedule == "linear":
        return np.asarray(np.linspace(first, last, steps))  # type: ignore[arg-type]
    if schedule == "scaled_linear":
        return np.asarray(np.linspace(first**0.5, last**0.5, steps) ** 2)  # type: ignore[operator]
    if schedule == "squaredcos_cap_v2":
        time = np.arange(steps + 1) / steps
        bar = np.cos((time + 0.008) / 1.008 * np.pi / 2) ** 2
        return np.asarray(np.minimum(1 - bar[1:] / bar[:-1], 0.999))
    return None
