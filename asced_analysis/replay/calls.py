"""Pipelines that are called, not looped over: the recorded call once more, with a listener."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asced_analysis.correction.layout_adapter import adapted_tap
from asced_analysis.correction.loops import LoopSampler
from asced_analysis.replay.from_checkpoint import FromCheckpoint, idle_denoisers
from asced_analysis.replay.recording import Batch, Call, Recording
from asced_recorders.pipelines.call_facts import arguments_again
from asced_recorders.pipelines.calls import (
    CallWatch,
    call_parameters,
    is_modular,
    options_of_batch,
)
from asced_recorders.pipelines.ends import end_of_call, loops_shown
from asced_recorders.pipelines.sampling import call_generator, run_generators
from asced_recorders.tap.layout_choice import layout_of
from asced_recorders.tap.tap import ListenerChain, StepEvent, TapListener
from asced_stores.errors import AscedError, InputError

LOG = logging.getLogger(__name__)
Revise = Callable[[dict[str, Any]], dict[str, Any]]
TOLERANCE = 1e-2
KNOWS_LATENT = re.compile(r"""output_type\s*[!=]=\s*["']latent["']""")


class Ends(TapListener):
    """Checks that a run begins with the recorded noise, and keeps its end."""

    def __init__(self, x_init: NDArray[np.float32] | None) -> None:
        self.x_init = None if x_init is None else torch.from_numpy(x_init)
        self.end: Tensor | None = None
        self.seen = 0
        self.steps = 0

    def before_step(self, event: StepEvent) -> None:
        """Compare the first sample with the recorded one."""
        self.seen += 1
        if event.step or self.x_init is None:
            return
        found = event.sample.float().cpu()
        if found.shape != self.x_init.shape or not torch.allclose(
            found, self.x_init, rtol=TOLERANCE, atol=TOLERANCE
        ):
            raise InputError(
                "the call did not begin with the recorded noise: give the seeds, size and options "
                "of the recording (replay(..., call=...))"
            )

    def after_step(self, event: StepEvent, next_sample: Tensor) -> None:
        """Keep the end."""
        if event.step + 1 == event.steps:
            self.end, self.steps = next_sample.float().cpu(), event.steps

    def shown(self, sample: Tensor | None) -> None:
        """Take what the pipeline made of the last step: the last one said counts."""
        if self.end is not None and sample is not None:
            self.end = sample.float().cpu()


TELLING = (
    "negative_prompt",
    "image",
    "mask_image",
    "control_image",
    "ip_adapter_image",
    "latents",
    "eta",
    "guidance_rescale",
    "timesteps",
    "sigmas",
)
"""Arguments that change what is sampled, the likelier ones first."""


def likely_missing(
    recording: Recording, pipe: Any, *, called: bool = False, given: Collection[str] = ()
) -> str:
    """What is likely to be missing where runs did not come back, as a sentence.

    Parameters
    ----------
    recording : Recording
    pipe : DiffusionPipeline
    called : bool
        Whether the call was repeated by a function of the caller's.
    given : collection of str
        Arguments that the caller gave.
    """
    if isinstance(pipe, LoopSampler):
        return (
            "The loop samples otherwise than it did: another network or guidance, or noise that it "
            "draws (step.seeds says how the runs were seeded)."
        )
    if called:
        return "What `call` does is not what was recorded: compare its arguments."
    attributes = recording.attributes
    if attributes.get("unseeded_noise"):
        return (
            "The recorded calls drew noise from torch's own generator beside those of their runs, "
            "which no seed tells: such runs do not come back. Record with a scheduler that draws "
            "none, or with a pipeline that hands its generator to the scheduler."
        )
    if (np.asarray(recording.dataset["seed"].values) < 0).any():
        return "The seeds of these runs are not known: give one fresh generator a run."
    named = list(attributes.get("call_missing") or ())
    if not named:
        takes = call_parameters(pipe)
        kept = attributes.get("call") or {}
        named = [name for name in TELLING if name in takes and name not in kept][:3]
    if given:
        named = [name for name in named if name not in given]
        others = f", or of {', '.join(named)}" if named else ""
        return (
            f"Likely what was given of {', '.join(sorted(given))} is not what the recorded call "
            f"was given (one image for all, or a list with one a run){others}."
        )
    if not named:
        return "Something outside the call's arguments was different: a hook, or another process."
    return (
        f"Likely an argument of the call that the store does not hold ({', '.join(named)}): give "
        "it with call_options={...} (--call-option NAME=VALUE)."
    )


def repeat_calls(
    recording: Recording,
    pipe: Any,
    call: Call | None = None,
    options: Mapping[str, Any] | None = None,
) -> None:
    """Say how the recorded calls are repeated, and refuse before any work what cannot be.

    Parameters
    ----------
    recording : Recording
    pipe : DiffusionPipeline
    call : callable, optional
        ``call(pipe, batch)`` repeats a call; ``batch.seeds``, ``batch.runs`` and ``batch.scalars``
        say what was sampled together.
    options : mapping, optional
        Arguments that the store does not hold, added to the recorded call.

    Raises
    ------
    InputError
        Where the store does not hold what the calls were made with, and nobody gives it.
    """
    if call is not None and options:
        raise InputError("give call or call_options, not both")
    if options:
        unknown = sorted(set(options) - set(call_parameters(pipe)))
        if unknown:
            raise InputError(f"{type(pipe).__name__} takes no argument {', '.join(unknown)}")
    recording.call, recording.call_options = call, options or {}
    called = not (isinstance(pipe, LoopSampler) or recording.is_ours(pipe))
    if called and call is None:
        batch = next(recording.batches())
        recorded_arguments(recording, batch, pipe, given=options or ())


def recorded_arguments(
    recording: Recording, batch: Batch, pipe: Any, *, given: Collection[str] = ()
) -> dict[str, Any]:
    """Arguments of the recorded call, as far as the store knows them.

    Raises
    ------
    InputError
        Where the recording was made with options or prompts that the store does not hold.
    """
    attributes, takes = recording.attributes, call_parameters(pipe)
    arguments, missing = arguments_again(attributes, batch.scalars, len(batch.runs))
    missing = [name for name in missing if name not in given]
    if missing:
        raise InputError(
            f"the store does not hold {', '.join(missing)} of its calls: give call_options={{...}} "
            "(--call-option NAME=VALUE), or repeat the call with call=lambda pipe, batch: pipe(...)"
        )
    if "prompt" in takes and not any(
        name in arguments or name in given
        for name in ("prompt", "prompt_embeds", "num_inference_steps")
    ):
        raise InputError(
            "the store does not hold the prompts: repeat the call with "
            "replay(..., call=lambda pipe, batch: pipe(...))"
        )
    arguments.setdefault("num_inference_steps", int(attributes.get("steps", recording.steps)))
    arguments["generator"] = call_generator(run_generators([int(seed) for seed in batch.seeds]))
    return {name: value for name, value in arguments.items() if name in takes}


def undecoded_output(recording: Recording, pipe: Any) -> dict[str, str]:
    """Argument by which a pipeline hands over its latents and decodes nothing, where it has one."""
    if recording.own_decoding or is_modular(pipe):  # many of those know no latents
        return {}
    try:
        source = inspect.getsource(inspect.unwrap(type(pipe).__call__))
    except (OSError, TypeError):
        return {}
    return {"output_type": "latent"} if KNOWS_LATENT.search(source) else {}


def call_arguments(
    recording: Recording,
    batch: Batch,
    pipe: Any,
    *,
    options: Mapping[str, Any] | None = None,
    decoded: bool = False,
) -> dict[str, Any]:
    """Arguments of a batch's call, which asks for latents where the pipeline hands them over.

    Parameters
    ----------
    recording : Recording
    batch : Batch
    pipe : DiffusionPipeline
    options : mapping, optional
        Arguments that the store does not hold; by default the recording's `call_options`.
    decoded : bool
        Ask for what the recorded call asked for.
    """
    own = options_of_batch(recording.call_options if options is None else options, batch)
    asked = {} if decoded else undecoded_output(recording, pipe)
    return recorded_arguments(recording, batch, pipe, given=own) | asked | own


def call_again(
    recording: Recording,
    batch: Batch,
    pipe: Any,
    listener: TapListener | None,
    *,
    begin: FromCheckpoint | None = None,
    anew: bool = False,
    told: Callable[[Any], None] | None = None,
    revise: Revise | None = None,
) -> NDArray[np.float32]:
    """Call a pipeline for a recorded batch, and return the ends of its runs.

    Some pipelines break after their last step where they are asked for latents. They are called
    once more to come to the end, with networks that repeat their first answer, and are not asked
    for latents again.

    Parameters
    ----------
    recording : Recording
    batch : Batch
    pipe : DiffusionPipeline
    listener : TapListener or None
        For example a corrector.
    begin : FromCheckpoint, optional
        Begin at a checkpoint; it stands around the listener.
    anew : bool
        The batch's seeds are not the recorded ones: do not expect the recorded noise.
    told : callable, optional
        Told what the pipeline returned, decoded as in the recorded call.
    revise : callable, optional
        Makes the call's arguments of the recorded ones.
    """
    ends = Ends(None if anew else recording.read(batch, "x_init"))
    watch = begin if begin is not None else listener
    chain: TapListener = ends if watch is None else ListenerChain(watch, ends)
    idle = nullcontext() if begin is None else idle_denoisers(pipe, begin)

    known: dict[str, Any] = {}

    def lay_out(more: dict[str, Any]) -> None:
        adapter.layout = layout_of(pipe, known | more)

    def blends(arguments: dict[str, Any]) -> dict[str, Any]:
        known.update(arguments)
        return end_of_call(pipe, arguments, show)

    def show(sample: Tensor) -> None:
        ends.shown(adapter.rearranged(sample))

    def call() -> None:
        if recording.call is not None:
            recording.call(pipe, batch)
            return
        arguments = call_arguments(recording, batch, pipe, decoded=told is not None)
        pipe(**(arguments if revise is None else revise(arguments)))

    try:
        with (
            idle,
            adapted_tap(pipe, chain) as adapter,
            CallWatch(pipe, blends, lambda _, output: told and told(output), lambda: None),
            loops_shown(pipe, show, lay_out),
        ):
            call()
    except (AscedError, MemoryError, torch.OutOfMemoryError):  # not for want of latents
        raise
    except Exception as error:  # whatever a stranger's pipeline raises
        by_us = recording.call is None and told is None and undecoded_output(recording, pipe)
        if ends.end is None or not by_us:
            raise
        LOG.info("%s hands over no latents (%r): it decodes", type(pipe).__name__, error)
        recording.own_decoding = True
        finish = FromCheckpoint(None, ends.steps, ends.end)
        return call_again(recording, batch, pipe, None, begin=finish, anew=anew, revise=revise)
    if not ends.seen and recording.call is not None:
        raise InputError(
            "call(pipe, batch) did not sample with the pipeline that it is given, which has the "
            "recorded scheduler: call that one"
        )
    if ends.end is None:
        raise InputError("the call did not come to the recorded schedule's end")
    return ends.end.numpy()
