"""What a trajectory store holds: variables, dimensions, noise levels, attributes."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asced_stores.errors import InputError
from asced_stores.format.calls import CALL_BY_RUN, CONDITIONS

FIELDS = ("eps", "x0", "x_init", "checkpoint_sample", "sample", "image")
DTYPES = (
    "bool",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    *("float16", "float32", "float64"),
)
RUN_SCALARS: Mapping[str, str] = {
    "run": "int64",
    "seed": "int64",
    "prompt": "str",
    "label": "int64",
    "guidance_scale": "float64",
    "arguments": "str",
    "overflows": "int64",
    "first_bad_step": "int64",
    "rank": "int64",
    "batch": "int64",
    "status": "uint8",
}
STEP_COORDINATES = ("timestep", "alpha", "sigma", "log_snr")
RESERVED = frozenset(
    (
        *(*FIELDS, *RUN_SCALARS, *STEP_COORDINATES),
        *("commits", "slot", "run", "step", "checkpoint", "frame", "channel", "y", "x"),
        *("row", "column", "colour"),
    )
)
FINGERPRINTED = (
    "scheduler_class",
    "scheduler_config",
    "prediction_type",
    "sigma_data",
    "scheduler_module",
    "model_fingerprint",
    "compute",
    "call",
    "guider",
    "guider_2",
)
"""Attributes by which stores are told apart; versions, devices and seeds are not among them."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
MAX_RUN_BYTES = 1 << 36


@dataclass(frozen=True)
class VariableSpec:
    """One array of a store, without its leading run dimension.

    Parameters
    ----------
    name : str
        Letters, digits and underscores.
    dims : tuple of str
        Names of the dimensions after ``run``; empty for one number a run.
    shape : tuple of int
        Their lengths.
    dtype : str
        A NumPy name: bool, int8 ... uint64, float16, float32, float64.

    Examples
    --------
    >>> from asced_stores import VariableSpec
    >>> VariableSpec("error", ("y", "x"), (8, 8), "float32").nbytes  # of a run
    256
    """

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise InputError(
                f"a variable is called {self.name!r}: use up to 64 letters, digits and underscores"
            )
        object.__setattr__(self, "dims", tuple(self.dims))
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        if len(self.dims) != len(self.shape):
            raise InputError(
                f"variable {self.name!r} has {len(self.dims)} dimension names "
                f"for {len(self.shape)} lengths"
            )
        if len(set(self.dims)) != len(self.dims) or "run" in self.dims:
            raise InputError(f"variable {self.name!r} names a dimension twice: {self.dims}")
        for dim in self.dims:
            if not isinstance(dim, str) or not _NAME.fullmatch(dim):
                raise InputError(f"variable {self.name!r} has a dimension called {dim!r}")
        if self.dtype not in DTYPES:
            raise InputError(
                f"variable {self.name!r} has dtype {self.dtype!r}, not one of {DTYPES}"
            )
        if any(n < 1 for n in self.shape) or self.nbytes > MAX_RUN_BYTES:
            raise InputError(f"variable {self.name!r} has the absurd shape {self.shape}")

    @property
    def nbytes(self) -> int:
        """Bytes of one run."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def to_json(self) -> dict[str, Any]:
        """Plain values for the store's attributes."""
        return {
            "name": self.name,
            "dims": list(self.dims),
            "shape": list(self.shape),
            "dtype": self.dtype,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> VariableSpec:
        """Inverse of `to_json`."""
        return cls(value["name"], tuple(value["dims"]), tuple(value["shape"]), value["dtype"])


@dataclass(frozen=True)
class TrajectorySpec:
    """What every run of a store consists of.

    Parameters
    ----------
    sample_shape : tuple of int
        ``(channel, y, x)``, or ``(frame, channel, y, x)`` for video.
    timestep, alpha, sigma : sequence of float, one a step
        Noise levels; step 0 is the noisy end, and ``x = alpha*x0 + sigma*eps``.
    checkpoints : tuple of int
        Steps whose entering sample is recorded in ``checkpoint_sample``.
    image_shape : tuple of int, optional
        ``(row, column, colour)`` of the uint8 picture.
    fields : tuple of str
        Which of the standard variables exist.
    dtype : str
        Of ``eps`` and ``x0``.
    extra : tuple of VariableSpec
        Further variables; those without dimensions are numbers by run.
    attributes : mapping
        Scheduler, prediction type, model fingerprint, versions: strictly JSON.

    Raises
    ------
    InputError
        If the parts do not fit together.

    Examples
    --------
    >>> from asced_stores import TrajectorySpec
    >>> spec = TrajectorySpec((1, 8, 8), timestep=[999, 500], alpha=[0.1, 0.7], sigma=[0.99, 0.71])
    >>> spec.steps, [variable.name for variable in spec.variables][:2]
    (2, ['eps', 'x0'])
    """

    sample_shape: tuple[int, ...]
    timestep: Sequence[float]
    alpha: Sequence[float]
    sigma: Sequence[float]
    checkpoints: tuple[int, ...] = ()
    image_shape: tuple[int, int, int] | None = None
    fields: tuple[str, ...] = FIELDS
    dtype: str = "float16"
    extra: tuple[VariableSpec, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        normal = {
            "sample_shape": tuple(int(n) for n in self.sample_shape),
            "timestep": tuple(float(t) for t in self.timestep),
            "alpha": tuple(float(a) for a in self.alpha),
            "sigma": tuple(float(s) for s in self.sigma),
            "checkpoints": tuple(int(c) for c in self.checkpoints),
            "fields": tuple(self.fields),
            "extra": tuple(self.extra),
            "attributes": dict(self.attributes),
        }
        if self.image_shape is not None:
            normal["image_shape"] = tuple(int(n) for n in self.image_shape)
        for name, value in normal.items():
            object.__setattr__(self, name, value)
        self._check()

    def _check(self) -> None:
        if len(self.sample_shape) not in (3, 4):
            raise InputError(
                f"sample_shape is {self.sample_shape}: expected (channel, y, x) "
                "or (frame, channel, y, x)"
            )
        lengths = {len(self.timestep), len(self.alpha), len(self.sigma)}
        if len(lengths) != 1 or not self.steps:
            raise InputError(
                f"timestep, alpha and sigma have {len(self.timestep)}, {len(self.alpha)} and "
                f"{len(self.sigma)} entries: expected one each a step, and at least one step"
            )
        levels = (*self.timestep, *self.alpha, *self.sigma)
        if not all(math.isfinite(v) for v in levels) or min(*self.alpha, *self.sigma) < 0:
            raise InputError("timestep, alpha and sigma must be finite, alpha and sigma at least 0")
        steps = self.checkpoints
        if list(steps) != sorted(set(steps)) or any(not 0 <= c < self.steps for c in steps):
            raise InputError(
                f"checkpoints are {steps}: expected rising steps from 0 to {self.steps - 1}"
            )
        if len(self.fields) != len(set(self.fields)) or set(self.fields) - set(FIELDS):
            raise InputError(f"fields are {self.fields}: expected some of {FIELDS}, each once")
        if self.dtype not in ("float16", "float32"):
            raise InputError(f"dtype of eps and x0 is {self.dtype!r}: expected float16 or float32")
        names = [variable.name for variable in self.extra]
        taken = sorted(set(names) & RESERVED | {n for n in names if names.count(n) > 1})
        if taken:
            raise InputError(f"extra variables take names that are in use: {', '.join(taken)}")
        dims = {dim for variable in self.extra for dim in variable.dims}
        if both := sorted(dims.intersection(names)):
            raise InputError(
                f"extra variables bear names of their dimensions: {', '.join(both)}; rename them"
            )
        lengths_by_dim: dict[str, int] = {}
        for variable in self.variables:
            for dim, length in zip(variable.dims, variable.shape, strict=True):
                if lengths_by_dim.setdefault(dim, length) != length:
                    raise InputError(
                        f"variable {variable.name!r} has {length} along {dim}, "
                        f"others have {lengths_by_dim[dim]}"
                    )
        try:
            json.dumps(self.attributes, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InputError(f"attributes are not strictly JSON: {error}") from error

    @property
    def steps(self) -> int:
        """Number of noise levels."""
        return len(self.timestep)

    @property
    def step_numbers(self) -> tuple[int, ...]:
        """Which steps of sampling these are: all, or those that a recording kept."""
        kept = self.attributes.get("kept_steps")
        return tuple(range(self.steps)) if kept is None else tuple(kept["steps"])

    @property
    def sampled_steps(self) -> int:
        """How many steps sampling took."""
        kept = self.attributes.get("kept_steps")
        return self.steps if kept is None else int(kept["of"])

    @property
    def steps_told(self) -> str:
        """How many steps there are, and which of how many where a recording kept some."""
        numbers = self.step_numbers
        if len(numbers) == self.sampled_steps:
            return str(self.steps)
        each = numbers[1] - numbers[0] if len(numbers) > 1 else 1
        how = f", every {each}" if each > 1 else ""
        return f"{self.steps} ({numbers[0]} to {numbers[-1]}{how}) of {self.sampled_steps}"

    @property
    def sample_dims(self) -> tuple[str, ...]:
        """Names of the dimensions of one sample."""
        return ("frame", "channel", "y", "x")[4 - len(self.sample_shape) :]

    @property
    def log_snr(self) -> NDArray[np.float64]:
        """``2*log(alpha/sigma)``, shape (step,); infinite where a level is singular."""
        with np.errstate(divide="ignore"):
            levels: NDArray[np.float64] = np.log(self.alpha) - np.log(self.sigma)
            return 2 * levels

    @property
    def variables(self) -> tuple[VariableSpec, ...]:
        """The arrays that shards are written for, in the order of writing."""
        sample, dims = self.sample_shape, self.sample_dims
        found = []
        for name in self.fields:
            if name in ("eps", "x0"):
                variable = VariableSpec(name, ("step", *dims), (self.steps, *sample), self.dtype)
            elif name in ("x_init", "sample"):
                variable = VariableSpec(name, dims, sample, "float32")
            elif name == "checkpoint_sample" and self.checkpoints:
                shape = (len(self.checkpoints), *sample)
                variable = VariableSpec(name, ("checkpoint", *dims), shape, "float32")
            elif name == "image" and self.image_shape is not None:
                variable = VariableSpec(
                    name, ("row", "column", "colour"), self.image_shape, "uint8"
                )
            else:
                continue
            found.append(variable)
        return (*found, *(variable for variable in self.extra if variable.dims))

    @property
    def scalars(self) -> tuple[VariableSpec, ...]:
        """The extra variables that are one number a run; they lie in the commit markers."""
        return tuple(variable for variable in self.extra if not variable.dims)

    @property
    def run_nbytes(self) -> int:
        """Bytes of one run, all variables together."""
        return sum(variable.nbytes for variable in self.variables)

    @property
    def fingerprint(self) -> str:
        """Hash of what must agree for runs to be comparable: levels, shapes, model, sampler."""
        facts = self.to_json()
        facts["attributes"] = {name: self.compared(name) for name in FINGERPRINTED}
        text = json.dumps(facts, sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def compared(self, name: str) -> Any:
        """What of an attribute must agree: of a call, what all its runs have in common."""
        value = self.attributes.get(name)
        if name != "call" or not isinstance(value, Mapping):
            return value
        return {
            key: each
            for key, each in value.items()
            if key not in CALL_BY_RUN and not CONDITIONS.fullmatch(key)
        }

    def to_json(self) -> dict[str, Any]:
        """Plain values, without the attributes, which lie beside them in the store."""
        return {
            "sample_shape": list(self.sample_shape),
            "timestep": list(self.timestep),
            "alpha": list(self.alpha),
            "sigma": list(self.sigma),
            "checkpoints": list(self.checkpoints),
            "image_shape": None if self.image_shape is None else list(self.image_shape),
            "fields": list(self.fields),
            "dtype": self.dtype,
            "extra": [variable.to_json() for variable in self.extra],
        }

    @classmethod
    def from_json(
        cls, value: Mapping[str, Any], attributes: Mapping[str, Any] | None = None
    ) -> TrajectorySpec:
        """Inverse of `to_json`."""
        image_shape = value["image_shape"]
        return cls(
            sample_shape=tuple(value["sample_shape"]),
            timestep=value["timestep"],
            alpha=value["alpha"],
            sigma=value["sigma"],
            checkpoints=tuple(value["checkpoints"]),
            image_shape=None if image_shape is None else tuple(image_shape),
            fields=tuple(value["fields"]),
            dtype=value["dtype"],
            extra=tuple(VariableSpec.from_json(each) for each in value["extra"]),
            attributes=attributes or {},
        )
