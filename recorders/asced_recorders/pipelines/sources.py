"""Where the runs of a recording come from: our own loop, or a pipeline that is called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from asced_recorders.pipelines.call_facts import CallFacts, own_arguments, read_call
from asced_recorders.pipelines.calls import (
    call_parameters,
    default_arguments,
    options_of_batch,
    with_guidance,
)
from asced_recorders.pipelines.data_range import Range
from asced_recorders.pipelines.decoding import has_image, shown_images, to_image
from asced_recorders.pipelines.ends import end_of_call, loops_shown
from asced_recorders.pipelines.options import RecordOptions
from asced_recorders.pipelines.prompts import Prompt, prompt_key, prompts_hash
from asced_recorders.pipelines.run_source import RunSource
from asced_recorders.pipelines.sampling import (
    call_generator,
    initial_noise,
    run_generators,
    sample_shape,
    sample_unconditional,
)
from asced_recorders.pipelines.unseeded import NoiseWatch
from asced_recorders.tap.layout_choice import layout_of
from asced_recorders.tap.schedulers import StepTable, scheduler_class, step_table
from asced_recorders.tap.tap import Tap
from asced_recorders.writing.capture import Capture
from asced_stores.errors import InputError
from asced_stores.format.calls import hidden_prompt

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from asced_stores import TrajectorySpec


LOOP = "asced_recorders.pipelines.sampling"
"""What a store says of itself whose runs our own loop sampled."""


class UnconditionalSource(RunSource):
    """Our own loop around a UNet of pixels, with any scheduler; see `RunSource`."""

    loop = LOOP
    call = CallFacts({})

    def __init__(self, pipe: Any, name: str, options: RecordOptions) -> None:
        super().__init__(pipe, name, options)
        self.labels = labels = options.labels
        classes = pipe.unet.config.get("num_class_embeds")
        if classes and not labels:
            raise InputError(f"the model has {classes} classes: give labels (--classes)")
        if labels and not classes:
            raise InputError("the model has no classes: leave the labels out")
        pipe.unet.eval()
        try:
            pipe.scheduler.set_timesteps(self.steps)
        except ValueError as error:  # more than it was trained with, or than its options allow
            raise InputError(f"steps is {self.steps}: {error}") from error
        self.table: StepTable = step_table(pipe.scheduler)
        options.check_steps(self.table.steps)

    @property
    def conditioned(self) -> bool:
        """Whether the model has classes."""
        return bool(self.labels)

    def known_spec(self) -> TrajectorySpec | None:
        """Everything is known beforehand, but how many activations there are."""
        if self.settings.activations:
            return None
        shape = sample_shape(self.pipe)
        return self.spec(self.table, shape, self.expected_image(shape))

    def conditions(self) -> dict[str, Any]:
        """A hash of the classes."""
        if not self.labels:
            return {}
        return {"labels_sha256": prompts_hash([Prompt(label=int(v)) for v in self.labels])}

    def expected_image(self, shape: Sequence[int]) -> tuple[int, int, int] | None:
        """The sample is the image, if it is grey or RGB."""
        channel, y, x = shape
        return (y, x, channel) if has_image(self.pipe, (channel, y, x)) else None

    def sample(
        self,
        runs: Sequence[int],
        capture: Capture,
        generators: Sequence[torch.Generator] | None = None,
    ) -> tuple[dict[str, Any], Any]:
        """Draw a batch."""
        import torch

        self.model.check()

        pipe = self.pipe
        seeds = self.seeds(runs)
        scalars: dict[str, Any] = {"seed": seeds}
        classes = None
        if self.labels:
            chosen = [int(self.labels[run % len(self.labels)]) for run in runs]
            scalars["label"] = chosen
            classes = torch.tensor(chosen)
        generators = generators or run_generators(seeds)
        pipe.scheduler.set_timesteps(self.steps)
        x_init = initial_noise(pipe, generators)
        with self.evaluations as watch, self.activations as activations:
            capture.watched_by(watch, activations)
            end = sample_unconditional(
                pipe,
                x_init=x_init,
                steps=self.steps,
                generators=generators,
                listener=capture,
                labels=classes,
            )
        return scalars, end

    def images(self, output: Any, ends: Tensor, value_range: Range) -> NDArray[np.uint8] | None:
        """The ends themselves, if they are grey or RGB."""
        shown = has_image(self.pipe, tuple(ends.shape[1:]))
        return to_image(self.pipe, ends, value_range) if shown else None


class PipelineSource(RunSource):
    """A pipeline that is called with prompts, classes, or only a number of images.

    Parameters
    ----------
    pipe, name, options
        As of `RunSource`.
    prompts : sequence of Prompt
        Or classes; repeated to the number of runs, empty for a pipeline that takes none.
    """

    def __init__(
        self, pipe: Any, name: str, options: RecordOptions, prompts: Sequence[Prompt] = ()
    ) -> None:
        super().__init__(pipe, name, options)
        self.loop, self.prompts = type(pipe).__name__, tuple(prompts)
        self.guidance_scale, self.negative_prompt = options.guidance_scale, options.negative_prompt
        self.keep_prompts, self.options = options.keep_prompts, dict(options.call_options or {})
        self.parameters = call_parameters(pipe)
        self.defaults = default_arguments(pipe)
        scheduler_class(pipe.scheduler)
        self._check()
        self.call = self._call()

    def _check(self) -> None:
        kind, takes = type(self.pipe).__name__, self.parameters
        if "num_inference_steps" not in takes or "generator" not in takes:
            raise InputError(
                f"{kind} does not take num_inference_steps and generator: record it with "
                "`with Recorder(pipe, store): pipe(...)`"
            )
        if ("prompt" in takes or "class_labels" in takes) and not self.prompts:
            what = "prompts (--prompts FILE)" if "prompt" in takes else "labels (--classes)"
            raise InputError(f"{kind} needs {what}")
        unknown = sorted(set(self.options) - set(takes))
        if unknown:
            raise InputError(f"{kind} takes no {', '.join(unknown)}: it takes {', '.join(takes)}")
        for name, given in (
            ("negative_prompt", self.negative_prompt is not None),
            ("guidance_scale", self.guidance_scale is not None),
            ("negative_prompt", any(p.negative_prompt for p in self.prompts)),
            ("guidance_scale", any(p.guidance_scale is not None for p in self.prompts)),
        ):
            if given and name not in takes:
                raise InputError(f"{kind} takes no {name}")

    @property
    def conditioned(self) -> bool:
        """Whether runs have prompts, classes or arguments of their own."""
        return bool(self.prompts) or any(callable(value) for value in self.options.values())

    def conditions(self) -> dict[str, Any]:
        """Guidance, and a hash of the prompts."""
        facts: dict[str, Any] = {"guidance_scale": self.guidance_scale}
        return facts | ({"prompts_sha256": prompts_hash(self.prompts)} if self.prompts else {})

    def expected_image(self, shape: Sequence[int]) -> tuple[int, int, int] | None:
        """Size of the decoded image, by the autoencoder's factor."""
        vae = getattr(self.pipe, "vae", None) or getattr(self.pipe, "vqvae", None)
        factor = int(getattr(self.pipe, "vae_scale_factor", 8)) if vae is not None else 1
        colours = 3 if vae is not None else shape[-3]
        return shape[-2] * factor, shape[-1] * factor, colours

    def sample(
        self,
        runs: Sequence[int],
        capture: Capture,
        generators: Sequence[torch.Generator] | None = None,
    ) -> tuple[dict[str, Any], Any]:
        """Draw a batch."""
        self.model.check()
        chosen = self._prompts_of(runs)
        seeds = self.seeds(runs)
        arguments = self._arguments(runs, chosen)
        arguments["generator"] = call_generator(generators or run_generators(seeds))
        bound = self.defaults | arguments

        def lay_out(more: dict[str, Any]) -> None:
            capture.layout = layout_of(self.pipe, bound | more)

        lay_out({})
        capture.expected_runs = len(runs)
        arguments |= end_of_call(self.pipe, bound, capture.show)
        loops = loops_shown(self.pipe, capture.show, lay_out)
        self.noise = NoiseWatch(arguments["generator"])
        with (
            Tap(self.pipe, capture),
            self.evaluations as watch,
            self.activations as activations,
            loops,
        ):
            capture.watched_by(watch, activations)
            output = self.pipe(**arguments)
        scalars = self._scalars(seeds, chosen, bound)
        facts = read_call(bound, prompts=self.keep_prompts, defaults=self.defaults)
        scalars["arguments"] = own_arguments(facts, len(runs), self.call.attributes())
        return scalars, output

    def images(self, output: Any, ends: Tensor, value_range: Range) -> NDArray[np.uint8] | None:
        """What the pipeline returned, or its pixels in another range."""
        return shown_images(self.pipe, output, ends, value_range)

    def _call(self) -> CallFacts:
        """Arguments that all batches have in common."""
        bound = self.defaults | {"num_inference_steps": self.steps, **self.options}
        if "output_type" in self.parameters:
            bound.setdefault("output_type", "np")
        if "prompt" in self.parameters:
            bound["prompt"] = [prompt.prompt for prompt in self.prompts]
        if self.guidance_scale is not None:
            bound["guidance_scale"] = self.guidance_scale
        if self.negative_prompt and all(p.negative_prompt is None for p in self.prompts):
            bound["negative_prompt"] = self.negative_prompt
        return read_call(bound, prompts=self.keep_prompts, defaults=self.defaults)

    def _prompts_of(self, runs: Sequence[int]) -> list[Prompt]:
        return [self.prompts[run % len(self.prompts)] for run in runs] if self.prompts else []

    def seeds(self, runs: Sequence[int], draws: int = 1) -> list[int]:
        """Seed of each draw; a prompt's own rises by one with each draw and each time it comes."""
        first = [self.seed + run * draws for run in runs]
        for place, (run, prompt) in enumerate(zip(runs, self._prompts_of(runs), strict=False)):
            if prompt.seed is not None:
                first[place] = prompt.seed + run // len(self.prompts) * draws
        return [seed + draw for seed in first for draw in range(draws)]

    def _arguments(self, runs: Sequence[int], chosen: Sequence[Prompt]) -> dict[str, Any]:
        takes = self.parameters
        own = options_of_batch(self.options, SimpleNamespace(runs=runs))
        arguments: dict[str, Any] = {"num_inference_steps": self.steps, **own}
        if "output_type" in takes:
            arguments.setdefault("output_type", "np")
        if "prompt" in takes:
            arguments["prompt"] = [prompt.prompt for prompt in chosen]
            negative = [
                self.negative_prompt if prompt.negative_prompt is None else prompt.negative_prompt
                for prompt in chosen
            ]
            if any(text is not None for text in negative):
                arguments["negative_prompt"] = [text or "" for text in negative]
        elif "class_labels" in takes:
            arguments["class_labels"] = [prompt.label or 0 for prompt in chosen]
        elif "batch_size" in takes:
            arguments["batch_size"] = len(runs)
        elif len(runs) > 1:
            raise InputError(f"{type(self.pipe).__name__} draws one image at a time: batch size 1")
        scales = {
            self.guidance_scale if prompt.guidance_scale is None else prompt.guidance_scale
            for prompt in chosen
        }
        if len(scales) > 1:
            raise InputError(
                f"runs of one batch have guidance scales {sorted(map(str, scales))}: a pipeline "
                "takes one a call. Sort the prompts by it and choose the batch size to fit."
            )
        if scales and (scale := scales.pop()) is not None:
            arguments["guidance_scale"] = scale
        return arguments

    def _scalars(
        self, seeds: list[int], chosen: Sequence[Prompt], bound: Mapping[str, Any]
    ) -> dict[str, Any]:
        scalars: dict[str, Any] = {"seed": seeds}
        if chosen:
            texts = [prompt.prompt for prompt in chosen]
            key = None if self.keep_prompts else prompt_key(self.prompts)
            scalars["prompt"] = texts if key is None else [hidden_prompt(t, key) for t in texts]
        if any(prompt.label is not None for prompt in chosen):
            scalars["label"] = [-1 if p.label is None else p.label for p in chosen]
        scale = with_guidance(self.pipe, bound).get("guidance_scale")
        if isinstance(scale, (int, float)):
            scalars["guidance_scale"] = float(scale)
        return scalars
