"""What is kept of each run, as it was asked for and as a store lays it out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from asced_recorders.tap.schedulers import StepTable
from asced_recorders.writing.capture import FIELDS
from asced_stores import TrajectorySpec, VariableSpec
from asced_stores.errors import InputError


@dataclass(frozen=True)
class Settings:
    """What to record, and how.

    Parameters
    ----------
    fields : tuple of str
        Some of ``eps, x0, x_init, checkpoint_sample, sample, image``.
    checkpoints : tuple of int
        Steps whose entering sample is kept in float32; rising.
    dtype : str
        Of eps and x0: ``float16`` or ``float32``.

    Raises
    ------
    InputError
        If one of them cannot be.
    """

    fields: tuple[str, ...] = FIELDS
    checkpoints: tuple[int, ...] = ()
    dtype: str = "float16"

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", tuple(self.fields))
        object.__setattr__(self, "checkpoints", tuple(sorted({int(c) for c in self.checkpoints})))
        unknown = sorted(set(self.fields) - set(FIELDS))
        if unknown or not self.fields:
            raise InputError(f"unknown fields {unknown}: give some of {', '.join(FIELDS)}")
        if self.dtype not in ("float16", "float32"):
            advice = " (bfloat16 loses up to 8 % of a dynamic)" if self.dtype == "bfloat16" else ""
            raise InputError(f"eps and x0 cannot be {self.dtype}{advice}: give float16 or float32")
        if self.checkpoints and self.checkpoints[0] < 0:
            raise InputError(f"checkpoint {self.checkpoints[0]} is negative: steps count from 0")
        if self.checkpoints and "checkpoint_sample" not in self.fields:
            raise InputError("checkpoints need the field checkpoint_sample: add it to the fields")

    def check_steps(self, steps: int) -> None:
        """Raise an `InputError` if a checkpoint lies beyond the last step."""
        if len(self.checkpoints) > steps:
            raise InputError(f"{len(self.checkpoints)} checkpoints are more than {steps} steps")
        beyond = [step for step in self.checkpoints if step >= steps]
        if beyond:
            raise InputError(
                f"checkpoints {beyond} lie beyond the last step: give steps from 0 to {steps - 1}"
            )


def make_spec(
    settings: Settings,
    table: StepTable,
    sample_shape: Sequence[int],
    image_shape: Sequence[int] | None,
    attributes: Mapping[str, Any],
    extra: Sequence[VariableSpec] = (),
    *,
    evaluated: bool = False,
) -> TrajectorySpec:
    """Lay out what each run will consist of; `evaluated` where caches may answer."""
    if evaluated:
        extra = (*extra, VariableSpec("evaluated", ("step",), (table.steps,), "bool"))
    fields = tuple(
        name
        for name in settings.fields
        if not (name == "image" and image_shape is None)
        and not (name == "checkpoint_sample" and not settings.checkpoints)
    )
    shape = None if image_shape is None or "image" not in fields else tuple(image_shape)
    return TrajectorySpec(
        sample_shape=tuple(sample_shape),
        timestep=table.timestep.tolist(),
        alpha=table.alpha.tolist(),
        sigma=table.sigma.tolist(),
        checkpoints=settings.checkpoints,
        image_shape=shape,  # type: ignore[arg-type]
        fields=fields,
        dtype=settings.dtype,
        extra=tuple(extra),
        attributes=attributes,
    )
