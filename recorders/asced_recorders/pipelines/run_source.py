"""What a recording asks of whoever draws its runs, and what all of them answer alike."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from asced_recorders.pipelines.activations import ActivationWatch
from asced_recorders.pipelines.call_facts import CallFacts
from asced_recorders.pipelines.decoding import is_pixels
from asced_recorders.pipelines.evaluations import EvaluationWatch
from asced_recorders.pipelines.fingerprint import ModelWatch
from asced_recorders.pipelines.model_facts import compute_facts, skips_work
from asced_recorders.pipelines.options import RecordOptions
from asced_recorders.pipelines.provenance import pipeline_facts
from asced_recorders.pipelines.unseeded import NoiseWatch
from asced_recorders.writing.settings import make_spec

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from asced_recorders.pipelines.data_range import Range
    from asced_recorders.tap.schedulers import StepTable
    from asced_recorders.writing.capture import Capture
    from asced_stores import TrajectorySpec


class RunSource(abc.ABC):
    """Draws batches of runs while a capture listens.

    Parameters
    ----------
    pipe : DiffusionPipeline
    name : str
        What it is called in the store.
    options : RecordOptions

    Attributes
    ----------
    facts : dict
        Further attributes of the store.
    loop : str
        Whose loop samples, as the store says it.
    call : CallFacts
        Arguments that all batches have in common.
    """

    loop: str
    call: CallFacts

    def __init__(self, pipe: Any, name: str, options: RecordOptions) -> None:
        self.pipe, self.name, self.settings = pipe, name, options
        self.facts: dict[str, Any] = {}
        self.model = ModelWatch(pipe)
        self.evaluations = EvaluationWatch(pipe)
        self.activations = ActivationWatch(pipe, options.activations)
        self.noise = NoiseWatch(None)
        self.steps, self.seed = options.steps, options.seed

    @property
    @abc.abstractmethod
    def conditioned(self) -> bool:
        """Whether runs differ in prompt, class or another argument."""

    def seeds(self, runs: Sequence[int], draws: int = 1) -> list[int]:
        """Seed of each draw of each run: the first seed and the number of the draw."""
        return [self.seed + run * draws + draw for run in runs for draw in range(draws)]

    def known_spec(self) -> TrajectorySpec | None:
        """What a run consists of, if that is known before the first one is drawn."""
        return None

    def spec(
        self, table: StepTable, shape: Sequence[int], image_shape: Sequence[int] | None
    ) -> TrajectorySpec:
        """What a run consists of."""
        facts = self.asked() | pipeline_facts(self.pipe, self.pipe.scheduler, table)
        facts |= self.evaluations.facts() | self.noise.facts() | self.activations.facts()
        return make_spec(
            self.settings,
            table,
            shape,
            image_shape,
            facts | self.facts,
            evaluated=skips_work(self.pipe),
            activations=self.activations.values,
        )

    def asked(self) -> dict[str, Any]:
        """What is known of the attributes before anything is sampled."""
        return {
            "pipeline": self.name,
            "pipeline_class": type(self.pipe).__name__,
            "loop": self.loop,
            "steps": self.steps,
            "seed": self.seed,
            **self.call.attributes(),
            "compute": compute_facts(self.pipe),
            **self.activations.asked(),
            **self.facts,
            **self.conditions(),
        }

    @abc.abstractmethod
    def conditions(self) -> dict[str, Any]:
        """What of the runs' prompts or classes stands among the attributes."""

    @abc.abstractmethod
    def expected_image(self, shape: Sequence[int]) -> tuple[int, int, int] | None:
        """Shape of the image of a run, as far as it can be predicted."""

    @abc.abstractmethod
    def sample(
        self,
        runs: Sequence[int],
        capture: Capture,
        generators: Sequence[torch.Generator] | None = None,
    ) -> tuple[dict[str, Any], Any]:
        """Draw a batch; return numbers by run, and what came out.

        The runs' own generators are made where none are given.
        """

    def is_pixels(self, ends: Tensor) -> bool:
        """Whether ends of runs are images themselves, whose range is to be known."""
        return is_pixels(self.pipe, ends)

    @abc.abstractmethod
    def images(self, output: Any, ends: Tensor, value_range: Range) -> NDArray[np.uint8] | None:
        """Images of a batch, of what `sample` returned and the ends of its runs."""
