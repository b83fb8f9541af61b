"""How a store lays out what is kept of each run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from asced_recorders.tap.schedulers import StepTable
from asced_recorders.writing.options import Settings
from asced_stores import TrajectorySpec, VariableSpec


def make_spec(
    settings: Settings,
    table: StepTable,
    sample_shape: Sequence[int],
    image_shape: Sequence[int] | None,
    attributes: Mapping[str, Any],
    extra: Sequence[VariableSpec] = (),
    *,
    evaluated: bool = False,
    activations: int = 0,
) -> TrajectorySpec:
    """Lay out what each run will consist of.

    `evaluated` where caches may answer, and how many activations are kept of a step.
    """
    kept = list(settings.kept(table.steps))
    if len(kept) < table.steps:
        attributes = {**attributes, "kept_steps": {"of": table.steps, "steps": kept}}
    if evaluated:
        extra = (*extra, VariableSpec("evaluated", ("step",), (len(kept),), "bool"))
    if activations:
        dims, lengths = ("step", "activation"), (len(kept), activations)
        extra = (*extra, VariableSpec("activations", dims, lengths, "float32"))
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
        checkpoints=tuple(settings.checkpoints),
        image_shape=shape,  # type: ignore[arg-type]
        fields=fields,
        dtype=settings.dtype,
        extra=tuple(extra),
        attributes=attributes,
    )
