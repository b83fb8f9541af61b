"""What is kept of each run, as it was asked for and as a store lays it out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from asced_recorders.tap.schedulers import StepTable
from asced_stores import TrajectorySpec, VariableSpec
from asced_stores.errors import InputError

FIELDS = ("eps", "x0", "x_init", "checkpoint_sample", "sample", "image")


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
    every : int
        Keep eps and x0 of every so manyth step, from the first of the window on.
    window : (int, int), optional
        First and last step whose eps and x0 are kept; all by default.

    Raises
    ------
    InputError
        If one of them cannot be.
    """

    fields: tuple[str, ...] = FIELDS
    checkpoints: tuple[int, ...] = ()
    dtype: str = "float16"
    every: int = 1
    window: tuple[int, int] | None = None

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

        if isinstance(self.every, bool) or self.every < 1:
            raise InputError(f"every is {self.every}: give 1 for each step, 2 for every second one")
        if self.window is not None:
            first, last = (int(step) for step in self.window)
            object.__setattr__(self, "window", (first, last))
            if not 0 <= first <= last:
                raise InputError(
                    f"the window is {first} to {last}: give the first and the last step to keep, "
                    "counted from 0"
                )
        if self.checkpoints and (self.every > 1 or self.window is not None):
            raise InputError(
                "checkpoints are for replay, which needs every step: leave out either them, or "
                "every and window"
            )

    def kept(self, steps: int) -> tuple[int, ...]:
        """Steps, of so many, whose eps and x0 are kept.

        Raises
        ------
        InputError
            If the window ends beyond the last step.
        """
        first, last = (0, steps - 1) if self.window is None else self.window
        if last >= steps:
            raise InputError(
                f"the window ends at step {last} of {steps}: give steps from 0 to {steps - 1}"
            )
        return tuple(range(first, last + 1, self.every))

    def check_steps(self, steps: int) -> None:
        """Raise an `InputError` if a checkpoint or the window lies beyond the last step."""
        self.kept(steps)
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
    kept = list(settings.kept(table.steps))
    if len(kept) < table.steps:
        attributes = {**attributes, "kept_steps": {"of": table.steps, "steps": kept}}
    if evaluated:
        extra = (*extra, VariableSpec("evaluated", ("step",), (len(kept),), "bool"))
    fields = tuple(
        name
        for name in settings.fields
        if not (name == "image" and image_shape is None)
        and not (name == "checkpoint_sample" and not settings.checkpoints)
    )
    shape = None if image_shape is None or "image" not in fields else tuple(image_shape)
    return TrajectorySpec(
        sample_shape=tuple(sample_shape),
        timestep=table.timestep[kept].tolist(),
        alpha=table.alpha[kept].tolist(),
        sigma=table.sigma[kept].tolist(),
        checkpoints=settings.checkpoints,
        image_shape=shape,  # type: ignore[arg-type]
        fields=fields,
        dtype=settings.dtype,
        extra=tuple(extra),
        attributes=attributes,
    )
