"""What a pipeline was called with: prompts, seeds and labels of its runs."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from asced_stores.errors import InputError

UNKNOWN_SEED = -1
BLENDING = ("Inpaint", "Differential")


class CallWatch:
    """Watches a pipeline's ``__call__`` by the same swap of class as the tap, and as briefly.

    Parameters
    ----------
    pipe : DiffusionPipeline
    before : callable
        ``before(arguments)`` with every argument by name; may return keywords to add.
    after : callable
        ``after(arguments, output)``.
    failed : callable
        Told that the call raised.
    """

    def __init__(
        self,
        pipe: Any,
        before: Callable[[dict[str, Any]], dict[str, Any] | None],
        after: Callable[[dict[str, Any], Any], None],
        failed: Callable[[], None],
    ) -> None:
        self.pipe = pipe
        self.plain = type(pipe)
        self.before, self.after, self.failed = before, after, failed
        self.depth = 0

    def __enter__(self) -> Self:
        plain = self.plain
        real: Callable[..., Any] = plain.__call__
        watch = self

        @functools.wraps(real)
        def call(pipe: Any, *args: Any, **kwargs: Any) -> Any:
            if watch.depth:  # a pipeline that calls itself
                return real(pipe, *args, **kwargs)
            arguments = bound_arguments(plain, pipe, args, kwargs)
            more = watch.before(arguments) or {}
            watch.depth += 1
            try:
                output = real(pipe, *args, **{**kwargs, **more})
            except BaseException:
                watch.failed()
                raise
            finally:
                watch.depth -= 1
            watch.after(arguments, output)
            return output

        names = {"__module__": plain.__module__, "__qualname__": plain.__qualname__}
        self.pipe.__class__ = type(plain.__name__, (plain,), {**names, "__call__": call})
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.pipe.__class__ = self.plain


def bound_arguments(plain: type, pipe: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    """Every argument of a call by name, defaults filled in."""
    bound = inspect.signature(plain.__call__).bind(pipe, *args, **kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)


def expected_runs(arguments: dict[str, Any]) -> int | None:
    """How many runs a call makes; None where the arguments do not say."""
    copies = 1
    for name in ("num_images_per_prompt", "num_videos_per_prompt"):
        copies *= int(arguments.get(name) or 1)
    for name in ("prompt", "class_labels", "image"):
        value = arguments.get(name)
        if isinstance(value, (list, tuple)):
            return len(value) * copies
        if isinstance(value, (str, int)):
            return copies
    embeds = arguments.get("prompt_embeds")
    if hasattr(embeds, "shape"):
        return int(embeds.shape[0]) * copies  # type: ignore[union-attr]
    size = arguments.get("batch_size")
    return int(size) if isinstance(size, int) else None


def run_facts(arguments: dict[str, Any], runs: int, *, prompts: bool = True) -> dict[str, Any]:
    """Seed, prompt, label and guidance of each run of a call.

    Parameters
    ----------
    arguments : dict
        Of the call, by name.
    runs : int
        How many there were.
    prompts : bool
        Whether prompts may be kept.

    Returns
    -------
    dict
        Numbers by run, as a store takes them.
    """
    facts: dict[str, Any] = {"seed": _seeds(arguments.get("generator"), runs)}
    if prompts:
        facts["prompt"] = _spread(arguments.get("prompt"), runs, "")
    labels = arguments.get("class_labels")
    if labels is not None:
        facts["label"] = [int(v) for v in _spread(labels, runs, -1)]
    guidance = arguments.get("guidance_scale")
    if isinstance(guidance, (int, float)):
        facts["guidance_scale"] = float(guidance)
    return facts


def end_of_blending(
    pipe: Any, arguments: dict[str, Any], finish: Callable[[Any], None]
) -> dict[str, Any] | None:
    """Keywords that let us see the sample after inpainting has blended it with the image.

    Blending comes after ``scheduler.step``, so that what the step returned is not what the next
    one gets, nor the end of the run.
    """
    name = type(pipe).__name__
    if not any(word in name for word in BLENDING):
        return None
    if "callback_on_step_end" not in arguments:
        raise InputError(
            f"{name} blends its samples where they cannot be seen (it has no "
            "callback_on_step_end): it is not recorded"
        )
    theirs = arguments["callback_on_step_end"]
    if theirs is not None and hasattr(theirs, "tensor_inputs"):
        raise InputError(f"{name} with callback objects is not recorded: give a plain function")
    asked = list(arguments.get("callback_on_step_end_tensor_inputs") or [])

    def callback(pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> Any:
        answer = {} if theirs is None else theirs(pipeline, step, timestep, tensors)
        finish((answer or {}).get("latents", tensors["latents"]))
        return answer

    return {
        "callback_on_step_end": callback,
        "callback_on_step_end_tensor_inputs": sorted({*asked, "latents"}),
    }


def _seeds(generator: Any, runs: int) -> list[int]:
    """Seed of each run; -1 where it has no generator of its own."""
    if isinstance(generator, (list, tuple)) and len(generator) == runs:
        seeds = [int(one.initial_seed()) for one in generator]
    elif hasattr(generator, "initial_seed") and runs == 1:
        seeds = [int(generator.initial_seed())]
    else:
        return [UNKNOWN_SEED] * runs
    return [seed if seed < 1 << 63 else UNKNOWN_SEED for seed in seeds]


def _spread(value: Any, runs: int, missing: Any) -> list[Any]:
    """One value a run: a list is repeated image by image, as pipelines do."""
    if value is None:
        return [missing] * runs
    if isinstance(value, (str, int)):
        return [value] * runs
    values = [value_ if isinstance(value_, (str, int)) else missing for value_ in list(value)]
    if not values or runs % len(values):
        return [missing] * runs
    return [each for each in values for _ in range(runs // len(values))]
