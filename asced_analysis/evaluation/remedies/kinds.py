"""What can be tried on a pipeline, within a budget of evaluations a delivered image.

One function a kind of remedy, each of which says what it would draw and what a user would write to
get it, or why it does not apply. `KINDS` lists them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asced_analysis.correction.corrector import Corrector
from asced_analysis.correction.detecting import LoopDetector, Network
from asced_analysis.correction.noise_normalisation import normalised_noise
from asced_analysis.correction.pruner import Pruner
from asced_analysis.correction.registry import STRATEGIES
from asced_analysis.replay.calls import call_arguments
from asced_analysis.replay.other_settings import (
    AT_ONCE,
    Drawn,
    draw_runs,
    guidance_scale,
    is_called,
    revised,
    with_sampler,
)
from asced_analysis.replay.recording import Recording
from asced_analysis.replay.sampling import schedule_of
from asced_analysis.thresholds.document import Thresholds
from asced_stores.errors import AscedError, InputError

Runs = NDArray[np.int64]
Draw = Callable[[Runs, Runs], Drawn]
"""``draw(runs, seeds)``: the recorded runs whose conditions are taken, and seeds."""

SAMPLERS: tuple[tuple[str, Mapping[str, Any], int, str], ...] = (
    ("ddpm", {}, 1, "ancestral"),
    ("euler-a", {}, 1, "ancestral"),
    ("dpm++", {}, 1, "second order"),
    ("dpm++", {"algorithm_type": "sde-dpmsolver++"}, 1, "second order, stochastic"),
    ("heun", {}, 2, "second order"),
    ("flow-euler", {"stochastic_sampling": True}, 1, "stochastic"),
    ("flow-heun", {}, 2, "second order"),
)
"""Short name, options, evaluations a step, what it is."""

GUIDANCE = (0.75, 1.5)


@dataclass(frozen=True)
class RemedyContext:
    """What remedies are tried on.

    Attributes
    ----------
    recording : Recording
    pipe : DiffusionPipeline
        As it was recorded.
    budget : int
        Evaluations a delivered image.
    thresholds : Thresholds or None
        For corrections and pruning.
    network : callable or None
        That these ask.
    options : mapping
        Arguments of the call that the store does not hold.
    """

    recording: Recording
    pipe: Any
    budget: int
    thresholds: Thresholds | None = None
    network: Network | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """Of a recorded run, as the call names them."""
        return int(self.recording.attributes.get("steps", self.recording.steps))


@dataclass(frozen=True)
class Remedy:
    """One thing to try.

    Attributes
    ----------
    title : str
    code : str
        What a user writes to get it.
    draw : callable
    """

    title: str
    code: str
    draw: Draw = field(repr=False)


@dataclass(frozen=True)
class Skipped:
    """What was not tried, and why."""

    title: str
    reason: str


Kind = Callable[[RemedyContext], Iterator[Remedy | Skipped]]


def more_steps(context: RemedyContext) -> Iterator[Remedy | Skipped]:
    """The same sampler with all steps that the budget pays for."""
    if context.budget <= context.steps:
        yield Skipped("more steps", f"the budget is that of the recorded {context.steps} steps")
        return
    yield Remedy(
        f"{context.budget} steps",
        f"pipe(..., num_inference_steps={context.budget})",
        sampling(context, context.pipe, context.budget),
    )


def other_samplers(context: RemedyContext) -> Iterator[Remedy | Skipped]:
    """Samplers that the model was trained for as well."""
    present = type(context.pipe.scheduler).__name__
    for name, options, each, what in SAMPLERS:
        try:
            pipe = with_sampler(context.pipe, name, options)
        except InputError as held:  # by a cache of its networks, whatever the sampler
            yield Skipped("other samplers", str(held))
            return
        kind = type(getattr(pipe, "scheduler", None)).__name__
        if pipe is None or (kind == present and not options):
            continue
        given = "".join(f", {key}={value!r}" for key, value in options.items())
        steps = context.budget // each
        yield Remedy(
            f"{kind.removesuffix('Scheduler')} ({what}), {steps} steps",
            f"pipe.scheduler = {kind}.from_config(pipe.scheduler.config{given})\n"
            f"pipe(..., num_inference_steps={steps})",
            sampling(context, pipe, steps),
        )


def other_guidance(context: RemedyContext) -> Iterator[Remedy | Skipped]:
    """Less and more guidance than was recorded."""
    pipe = context.pipe
    if not is_called(pipe):
        return
    first = context.recording.select(context.recording.dataset["run"].values[:1])
    scale = guidance_scale(
        pipe, call_arguments(context.recording, first, pipe, options=context.options)
    )
    if scale <= 1:
        yield Skipped("guidance", f"the runs were drawn at scale {scale:g}: without guidance")
        return
    for factor in GUIDANCE:
        yield Remedy(
            f"guidance {factor * scale:g} instead of {scale:g}, {context.budget} steps",
            f"pipe(..., guidance_scale={factor * scale:g}, num_inference_steps={context.budget})",
            sampling(context, pipe, context.budget, guidance=factor),
        )


def starting_noise(context: RemedyContext) -> Iterator[Remedy | Skipped]:
    """Noise of one energy after the first step."""

    def draw(runs: Runs, seeds: Runs) -> Drawn:
        with normalised_noise(context.pipe):
            return sampling(context, context.pipe, context.budget)(runs, seeds)

    yield Remedy(
        f"noise normalisation, {context.budget} steps",
        "from asced_analysis.correction import normalised_noise\n\n"
        f"with normalised_noise(pipe):\n    pipe(..., num_inference_steps={context.budget})",
        draw,
    )


def corrections(context: RemedyContext) -> Iterator[Remedy | Skipped]:
    """What corrects flagged runs in the loop, at the recorded number of steps."""
    if context.thresholds is None:
        yield Skipped("corrections", "they need thresholds (asced calibrate)")
        return
    own = context.thresholds.correction.strategy
    for name in dict.fromkeys((own, *STRATEGIES)):
        kind = STRATEGIES.get(name)
        if not kind.edits or not kind.in_loop:
            continue
        try:
            _corrector(context, name)
        except AscedError as error:
            yield Skipped(f"correction {name}", str(error))
            continue
        own_words = "" if name == own else f", strategy={name!r}"
        yield Remedy(
            f"correction {name} of flagged runs, {context.steps} steps",
            "from asced_analysis import Corrector\n\n"
            f'with Corrector.from_file("thresholds.json"{own_words}).attach(pipe):\n'
            f"    pipe(..., num_inference_steps={context.steps})",
            _correcting(context, name),
        )


def pruning(context: RemedyContext) -> Iterator[Remedy | Skipped]:
    """Draw several, look early, finish the most promising."""
    if context.thresholds is None:
        yield Skipped("pruning", "it needs thresholds (asced calibrate)")
        return
    thresholds, steps = context.thresholds, context.steps
    looked = _last_look(context, thresholds) + 1 + int(context.network is not None)
    draws = 1 + (context.budget - steps) // looked
    if draws < 2:
        yield Skipped(
            "pruning", f"two draws looked at up to step {looked - 1} cost {steps + looked}"
        )
        return

    pruner = Pruner(thresholds, draw=draws, finish=1, network=context.network)

    def draw(runs: Runs, seeds: Runs) -> Drawn:
        ends, cost = [], 0.0
        together = 1 if is_called(context.pipe) else max(1, AT_ONCE // draws)
        for at in range(0, len(runs), together):
            some, first = runs[at : at + together], int(seeds[at]) * draws
            call: dict[str, Any] = {"num_inference_steps": steps}
            if is_called(context.pipe):
                batch = context.recording.select(some)
                known = call_arguments(
                    context.recording, batch, context.pipe, options=context.options
                )
                call = revised(context.pipe, known, steps=steps)
                call.pop("generator")
            pruned = pruner.sample(context.pipe, groups=len(some), seed=first, **call)
            ends.append(pruned.samples.float().cpu().numpy())
            cost += pruned.evaluations * len(some)
        return Drawn(np.concatenate(ends), evaluations=cost / len(runs), paired=False)

    yield Remedy(
        f"pruning, the best of {draws} draws, {steps} steps",
        "from asced_analysis.correction import Pruner\n\n"
        f'pruner = Pruner.from_file("thresholds.json", draw={draws}, finish=1)\n'
        f"pruner.sample(pipe, ..., num_inference_steps={steps})",
        draw,
    )


KINDS: tuple[Kind, ...] = (
    more_steps,
    other_samplers,
    other_guidance,
    starting_noise,
    corrections,
    pruning,
)


def sampling(context: RemedyContext, pipe: Any, steps: int, *, guidance: float = 1.0) -> Draw:
    """Plain sampling under some setting."""
    return partial(
        draw_runs, context.recording, pipe, steps=steps, guidance=guidance, options=context.options
    )


def _corrector(context: RemedyContext, strategy: str) -> Corrector:
    """A corrector of the thresholds, refused here where the sampler does not allow it."""
    corrector = Corrector(context.thresholds, strategy=strategy, network=context.network)
    corrector.target(schedule_of(context.pipe, context.recording))
    return corrector


def _correcting(context: RemedyContext, strategy: str) -> Draw:
    """Sampling with a correction in the loop."""

    def draw(runs: Runs, seeds: Runs) -> Drawn:
        corrector = _corrector(context, strategy)
        return draw_runs(
            context.recording,
            context.pipe,
            runs,
            seeds,
            steps=context.steps,
            corrector=corrector,
            options=context.options,
        )

    return draw


def _last_look(context: RemedyContext, thresholds: Thresholds) -> int:
    """The last step that thresholds look at."""
    table = schedule_of(context.pipe, context.recording)
    return LoopDetector(thresholds, table, context.network).window[1]
