"""Samples as a loop has them, brought to the recorded order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from asced_stores.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


def as_rows(shape: Sequence[int], value: Any, name: str, /) -> Tensor:
    """Samples as (run, [frame,] channel, y, x), float32.

    Parameters
    ----------
    shape : sequence of int
        As it was promised: of one sample, or with the number of runs.
    value : torch.Tensor or ndarray
    name : str
        What it is called in an error.

    Raises
    ------
    InputError
        If it has another shape.
    """
    import torch

    tensor = torch.as_tensor(value).detach()
    shape = tuple(shape)
    many = len(shape) >= 4 and tensor.ndim == len(shape)
    if many and tuple(tensor.shape[1:]) == shape[1:]:
        shape = shape[1:]  # the shape was given with the number of runs
    elif tuple(tensor.shape) == shape:
        tensor = tensor[None]  # one run, without its dimension
    if tensor.ndim != len(shape) + 1 or tuple(tensor.shape[1:]) != shape:
        raise InputError(
            f"{name} has shape {tuple(tensor.shape)}: expected (runs, {', '.join(map(str, shape))})"
        )
    if len(shape) == 1:
        tensor = tensor[:, :, None, None]
    elif len(shape) == 2:
        tensor = tensor[:, None]
    return tensor.float()


def form_of(sample: Any, runs: int) -> dict[str, Any]:
    """What a loop's arrays look like, as a store says it, so that a replay may give it the same."""
    return {
        "loop_shape": [int(n) for n in sample.shape[int(len(sample) == runs) :]],
        "loop_array": "torch" if hasattr(sample, "detach") else "numpy",
    }


def check_facts(facts: Mapping[str, Any]) -> None:
    """Refuse what is no fact of a run.

    Raises
    ------
    InputError
    """
    known = ("seed", "prompt", "label", "guidance_scale")
    unknown = sorted(set(facts) - set(known))
    if unknown:
        raise InputError(f"{unknown} are no facts of a run: give some of {', '.join(known)}")
