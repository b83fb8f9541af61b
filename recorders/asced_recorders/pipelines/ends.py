"""The sample that a run goes on with after each step, whatever is done to it beside the scheduler.

Blending (inpainting) and callbacks come after ``scheduler.step``, so that what the step returned is
not what the next one gets, nor the end of the run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from asced_recorders.pipelines.calls import call_parameters, given, is_modular
from asced_stores.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

BLENDING = ("Inpaint", "Differential")


def end_of_call(
    pipe: Any, arguments: Mapping[str, Any], show: Callable[[Tensor], None]
) -> dict[str, Any]:
    """Keywords that let us see the sample after what a pipeline or its caller does to it.

    Blending (inpainting) and callbacks come after ``scheduler.step``, so that what the step
    returned is not what the next one gets, nor the end of the run.
    """
    name = type(pipe).__name__
    if getattr(pipe, "config", {}).get("expand_timesteps") and arguments.get("image") is not None:
        raise InputError(
            f"{name} with expand_timesteps puts the given frame back beside its scheduler, and its "
            "network sees other samples than the scheduler steps: it is not recorded. Record it "
            "without an image, or its loop with Recorder.custom"
        )
    theirs = arguments.get("callback_on_step_end")
    blends = any(word in name for word in BLENDING)
    if not blends and theirs is None:
        return {}
    if "callback_on_step_end" not in call_parameters(pipe):
        raise InputError(
            f"{name} blends its samples where they cannot be seen (it has no "
            "callback_on_step_end): it is not recorded"
        )
    asked = getattr(theirs, "tensor_inputs", None)
    if asked is None:
        asked = arguments.get("callback_on_step_end_tensor_inputs")

    def callback(pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> Any:
        answer = {} if theirs is None else theirs(pipeline, step, timestep, tensors)
        show((answer or {}).get("latents", tensors["latents"]))
        return {} if answer is None else answer

    callback.callbacks = [theirs]  # type: ignore[attr-defined]  # as in diffusers' own containers
    return {
        "callback_on_step_end": callback,
        "callback_on_step_end_tensor_inputs": sorted({*(asked or ()), "latents"}),
    }


@contextmanager
def loops_shown(
    pipe: Any,
    show: Callable[[Tensor], None],
    told: Callable[[dict[str, Any]], None] = lambda _: None,
) -> Iterator[None]:
    """See what the loops of a modular pipeline go on with, as long as the context lasts.

    Their blocks are seen by the same swap of class as schedulers are. What a loop begins with
    (sizes that the pipeline chose itself, for example) is told beside the call's arguments.
    """
    plain: list[tuple[Any, type]] = []

    def watched(kind: Any) -> type:
        def call(block: Any, components: Any, state: Any) -> Any:
            told(given(state))
            return kind.__call__(block, components, state)

        def loop_step(block: Any, *args: Any, **kwargs: Any) -> Any:
            components, state = kind.loop_step(block, *args, **kwargs)
            latents: Any = getattr(state, "latents", None)
            if hasattr(latents, "detach"):
                show(latents)
            return components, state

        own = {"__module__": kind.__module__, "__call__": call, "loop_step": loop_step}
        return type(kind.__name__, (kind,), own)

    try:
        for block in _loops(pipe._blocks) if is_modular(pipe) else ():
            plain.append((block, type(block)))
            block.__class__ = watched(type(block))
        yield
    finally:
        for block, kind in plain:
            block.__class__ = kind


def _loops(block: Any) -> Iterator[Any]:
    """Denoising loops of a graph of blocks, also of those chosen by the inputs."""
    if hasattr(block, "loop_step"):
        yield block
        return
    inside = [*(getattr(block, "sub_blocks", None) or {}).values(), getattr(block, "block", None)]
    for each in inside:
        if each is not None:
            yield from _loops(each)
