"""What is compared with the schedule, and from when on it is a finding.

A finding is beyond its tolerance with its whole interval. The tolerances were set on sound
settings (docs/audit.md): what solvers do of themselves grows with the square of their longest step
in log-SNR.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from asced_analysis.audit.causes import cause_of_departure
from asced_analysis.audit.levels import (
    Levels,
    asked_shift,
    due_scales,
    effective_shift,
    level_in_timesteps,
    timestep_tolerance,
    uneven_stride,
)
from asced_analysis.audit.moments import Ends, Moments
from asced_analysis.audit.quantities import Quantities, grouped_mean, sums
from asced_analysis.audit.result import Finding

Floats = npt.NDArray[np.float64]

START = 0.02
EXACT = {"float16": 2e-3, "bfloat16": 1e-2}
EXACT_FLOAT32 = 3e-6
EXACT_ANGLE, ALIKE_ANGLE, ROUGH_ANGLE = 0.01, 0.035, 0.15
NEARLY_CLEAN = 4.0  # log-SNR from which float16 blurs the level
ENERGY, NOISE, NEXT, ANGLE = 0.10, 0.20, 0.10, 0.05
BY_COARSENESS = {"energy": 0.012, "noise": 0.02, "next": 0.012, "angle": 0.004}
LESS_EPS = 0.3  # solvers leave less noise than is due where data are all but white
MOST_COARSE = 5.0
KNOWN_NOISE = 1.0  # log-SNR up to which a good network knows the noise
IN_RANGE = -1.0  # log-SNR from which on predicted x0 lies within the data's range
OUTSIDE = 0.02  # share of predicted x0 beyond the range by half of it
TERMINAL = 3e-3  # signal-to-noise ratio of a level that starts from pure noise
TERMINAL_LEADING = 2e-2


@dataclass(frozen=True)
class AuditInputs:
    """Everything that the checks look at.

    Attributes
    ----------
    levels : Levels
    ends : Ends
    moments : Moments
    quantities : Quantities
    shape : tuple of int
        Of a sample.
    guidance : float
        Greatest guidance scale of the runs; 1 where there is none.
    confidence : float
        Of intervals.
    runs : int
        All, broken ones too.
    alike : (float, float), optional
        Of the sum of all ends its product with itself and with the sum of all starts.
    """

    levels: Levels
    ends: Ends
    moments: Moments
    quantities: Quantities
    shape: tuple[int, ...]
    guidance: float
    confidence: float
    runs: int
    alike: tuple[float, float] | None = None

    @property
    def saturated(self) -> bool:
        """Whether no run is finite, so that infinity stands for the greatest number of float16."""
        return int(self.moments.first_bad.sum()) == self.runs

    @property
    def end_energy(self) -> float:
        """Mean square of a pixel of the ends; 1 where no end is finite."""
        runs = int(self.ends.runs.sum())
        return float(self.ends.energy.sum()) / runs if runs else 1.0

    @property
    def recorded(self) -> str:
        """Prediction type as what the network's output was read."""
        return str(self.levels.attributes.get("prediction_type", ""))

    @cached_property
    def coarse(self) -> Floats:
        """Square of the longest step so far, in log-SNR."""
        return np.minimum(self.levels.coarseness, MOST_COARSE) ** 2

    def tolerance(self, name: str, base: float) -> Floats:
        """What a quantity may be off by at each step."""
        return base + BY_COARSENESS[name] * self.coarse

    @cached_property
    def scale(self) -> float | None:
        """Factor between the starts and the noise of their seeds; None where they are not it."""
        ends = self.ends
        if not ends.compared or ends.seeded < ends.compared:
            return None
        return ends.scale / ends.seeded

    @cached_property
    def pure_noise(self) -> bool | None:
        """Whether runs start from noise alone, and not from a noised image; None: can't be told."""
        if self.scale is not None:
            return True
        runs = int(self.ends.runs.sum())
        alpha, sigma = float(self.levels.alpha[0]), float(self.levels.sigma[0])
        if runs < 2 or not alpha or self.alike is None:
            return None
        power, product = (one / runs**2 for one in self.alike)
        found = product / power if power else 0.0
        error = sigma / math.sqrt(runs * power) if power else math.inf
        if abs(found) < 3 * error and alpha - found > 4 * error:
            return True
        if abs(found - alpha) < 3 * error and found > 4 * error:
            return False
        return None


def check_finite(seen: AuditInputs) -> Iterator[Finding]:
    """NaN, infinity and overflow: the first step, and how many runs."""
    bad = seen.moments.first_bad
    if not bad.sum():
        return
    step = int(np.flatnonzero(bad)[0])
    share = bad.sum() / seen.runs
    nan, infinite = int(seen.moments.nan.sum()), int(seen.moments.infinite.sum())
    half = str(seen.levels.attributes.get("model_dtype", "")) == "float16"
    cause = (
        "activations beyond 65,504 overflow in float16: run the network in bfloat16 or float32, "
        "or only the layers that overflow"
        if half
        else "a number beyond what its type holds (65,504 in float16, also of the recording: "
        "dtype='float32' keeps more), or a network that returns NaN: look at the inputs of that "
        "step"
    )
    yield Finding(
        "not_finite",
        step,
        f"{int(bad.sum())} runs ({share:.1%}) hold {nan} NaN and {infinite} infinite values; the "
        f"first comes at step {step}",
        cause,
    )


def check_start(seen: AuditInputs) -> Iterator[Finding]:
    """The start's noise beside what its level asks for."""
    levels, due = seen.levels, due_scales(seen.levels)
    sigma = float(levels.sigma[0])
    if seen.scale is not None:
        exact = EXACT.get(str(levels.attributes.get("model_dtype")), EXACT_FLOAT32)
        if min(abs(seen.scale / one - 1) for one in due) > exact:
            yield _start_finding(seen, seen.scale, f"{seen.scale / sigma - 1:+.4%}")
        return
    if not seen.ends.start_runs.any():
        return
    image = float(levels.alpha[0]) ** 2 * seen.end_energy
    expected = [image + sigma**2, *(one**2 for one in due)]
    energy = grouped_mean(seen.ends.start_energy, seen.ends.start_runs, seen.confidence)
    if energy.beyond(min(expected) * (1 - START), max(expected) * (1 + START))[0]:
        found = float(energy.value[0])
        plain = found if seen.pure_noise else found - image
        scale = math.sqrt(max(plain, 0))
        yield _start_finding(seen, scale, f"{scale / sigma:.0%} of it")


def _start_finding(seen: AuditInputs, scale: float, size: str) -> Finding:
    """A start of the wrong scale, and why that may be."""
    sigma = float(seen.levels.sigma[0])
    alpha = float(seen.levels.alpha[0])
    if seen.levels.kind == "sigma space" and sigma > 2 and abs(scale - 1) < 0.1:
        cause = (
            "the noise was never multiplied by the scheduler's init_noise_sigma: a pipeline made "
            "for DDPM or DDIM with a scheduler in sigma space, such as Euler. It does not call "
            "scale_model_input either; use a DDIM scheduler, or `asced record`, which does both"
        )
    elif abs(scale / math.hypot(1, sigma) - 1) < 1e-5 or (
        abs(scale / math.hypot(1, sigma) - 1) < 0.02 and abs(scale / sigma - 1) > 0.05
    ):
        cause = (
            "the start was drawn with sqrt(1 + sigma^2), the size of a noised image of unit "
            "variance, where pure noise of sigma was due"
        )
    elif seen.pure_noise or (alpha < 0.1 and seen.pure_noise is None):
        cause = (
            "the initial noise is scaled by another factor than the schedule's first level: "
            "check init_noise_sigma, latents that were passed in already scaled, or a first "
            "timestep that was changed after the noise was drawn"
        )
    else:
        cause = (
            "the image was noised for another timestep than the first that is sampled "
            "(image-to-image: add_noise and strength disagree), or with another schedule"
        )
    return Finding(
        "start",
        0,
        f"the start's noise has standard deviation {scale:.6g} ({size}), where its level claims "
        f"{sigma:.6g}",
        cause,
    )


def check_terminal(seen: AuditInputs) -> Iterator[Finding | str]:
    """A start of pure noise at a level that still holds an image."""
    levels = seen.levels
    ratio = float(levels.alpha[0] / levels.sigma[0]) ** 2
    if ratio <= TERMINAL or seen.pure_noise is False:
        return
    if seen.pure_noise is None:
        yield (
            "whether the start is pure noise can't be told (no seeds); its level holds an image at "
            f"a signal-to-noise ratio of {ratio:.2g}"
        )
        return
    text = (
        f"runs start from pure noise, but at timestep {levels.timestep[0]:g} the level still "
        f"holds an image, at a signal-to-noise ratio of {ratio:.2g}"
    )
    if levels.spacing == "leading" and ratio <= TERMINAL_LEADING:
        yield f"{text}: leading timesteps begin below the noisy end (trailing ones do not)"
        return
    yield Finding(
        "terminal_snr",
        0,
        text,
        "the schedule's terminal SNR is not zero (arXiv:2305.08891): brightness is drawn to the "
        "middle. Use rescale_betas_zero_snr=True with a network trained for it, a longer "
        "schedule or a greater sigma_max",
    )


def check_timestep(seen: AuditInputs) -> Iterator[Finding | str]:
    """What the network was told beside the level of its sample."""
    levels = seen.levels
    expected = level_in_timesteps(levels)
    if expected is None:
        if levels.kind != "variance preserving":
            yield "timesteps were not compared with levels: what they mean is not recorded"
        return
    apart = np.abs(expected - levels.timestep)
    wrong = np.flatnonzero(apart > timestep_tolerance(levels))
    if not wrong.size:
        return
    step = int(wrong[0])
    yield Finding(
        "timestep",
        step,
        f"the network is told timestep {levels.timestep[step]:.4g}, and the sample lies at the "
        f"level of timestep {expected[step]:.4g}; {wrong.size} of {len(apart)} steps disagree",
        "timesteps were replaced without their levels (timesteps= or scheduler.timesteps set by "
        "hand), or the levels were replaced without their timesteps (sigmas= or a shift applied "
        "to one of the two)",
    )


def check_shift(seen: AuditInputs) -> Iterator[Finding]:
    """A flow-matching schedule that was shifted more often than asked for."""
    found, asked = effective_shift(seen.levels), asked_shift(seen.levels, seen.shape)
    if found is None or asked is None or abs(math.log(asked)) < 0.05:
        return
    if abs(math.log(found) - 2 * math.log(asked)) < 0.2 * abs(math.log(asked)):
        yield Finding(
            "shifted_twice",
            None,
            f"the levels are those of evenly spaced ones shifted by {found:.3g}, where the "
            f"scheduler asks for {asked:.3g}: its square is {asked**2:.3g}",
            "levels that were already shifted were passed as sigmas= to a scheduler that shifts "
            "them again: pass evenly spaced ones, or set the scheduler's shift to 1",
        )


def check_next(seen: AuditInputs) -> Iterator[Finding]:
    """Each step's result beside the level of the next step."""
    if seen.saturated:
        return
    levels, found = seen.levels, seen.quantities
    angle = np.append(seen.tolerance("angle", ANGLE)[1:], np.inf)
    size = np.append(seen.tolerance("next", NEXT)[1:], np.inf)
    angle = np.where(found.exact, EXACT_ANGLE, angle)
    noisy = np.append(levels.log_snr[1:] < KNOWN_NOISE, False)
    clean = np.append(levels.log_snr[1:] > NEARLY_CLEAN, False)
    solver = np.append(seen.tolerance("angle", ALIKE_ANGLE)[1:], np.inf)
    angle = np.where(found.alike, solver, angle)
    rough = clean | (~noisy & (~found.exact | found.alike))
    angle = np.where(rough, np.maximum(ROUGH_ANGLE, angle), angle)
    off = found.angle.beyond(-angle, angle)
    off |= found.next_noise.beyond(1 - size, 1 + size) & noisy
    uneven = uneven_stride(levels)
    if uneven is not None:
        off[uneven] = True
    if not off.any():
        return
    step = int(np.flatnonzero(off)[0])
    yield Finding(
        "next_level",
        step + 1,
        f"the sample entering step {step + 1} holds {found.next_noise.value[step]:.3g} times the "
        f"noise of its level (sigma {levels.sigma[step + 1]:.4g}), and lies "
        f"{found.angle.value[step]:+.3f} rad off; {int(off.sum())} of {len(off) - 1} steps do",
        "the sampler steps to other levels than the network is told of next: timesteps= was "
        "replaced, or ignored, without the scheduler noticing; or the sample was changed between "
        "two steps",
    )


def check_path(seen: AuditInputs) -> Iterator[Finding]:
    """Energy, noise and predictions along the way beside what their levels ask for."""
    found, levels = seen.quantities, seen.levels
    energy, noise = seen.tolerance("energy", ENERGY), seen.tolerance("noise", NOISE)
    known = levels.log_snr < KNOWN_NOISE
    ranged = levels.log_snr > IN_RANGE
    share = seen.moments.outside / max(1, seen.moments.values)
    off = {
        "energy of x": (found.energy, found.energy.beyond(1 - energy, 1 + energy)),
        "noise in x as the network sees it": (
            found.noise,
            found.noise.beyond(1 - noise, 1 + noise) & known,
        ),
        "energy of predicted eps": (
            found.eps_energy,
            found.eps_excess.beyond(-LESS_EPS - noise, noise) & known,
        ),
    }
    wrong = {name: int(np.flatnonzero(at)[0]) for name, (_, at) in off.items() if at.any()}
    texts = [
        f"{name} is {off[name][0].value[step]:.3g} times what step {step} asks for"
        for name, step in wrong.items()
    ]
    outside = np.flatnonzero((share > OUTSIDE) & ranged)
    if outside.size and seen.moments.runs.sum() > 1:
        step = int(outside[0])
        wrong["predicted x0"] = step
        texts.append(
            f"predicted x0 leaves the ends' range ({seen.ends.low:.3g} to {seen.ends.high:.3g}) "
            f"at step {step}: {seen.moments.low[step]:.3g} to {seen.moments.high[step]:.3g}, "
            f"{share[step]:.1%} of it far outside"
        )
    if not wrong:
        return
    first = min(wrong.values())
    pairs = sums(seen.moments)[2]
    yield Finding(
        "path",
        first,
        "; ".join(texts),
        cause_of_departure(
            pairs,
            levels,
            seen.recorded,
            guidance=seen.guidance,
            step=first,
            more=bool(found.eps_excess.value[first] > 0),
        ),
    )
