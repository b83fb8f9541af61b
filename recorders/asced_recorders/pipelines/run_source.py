"""What a recording asks of whoever draws its runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from asced_recorders.pipelines.data_range import Range
    from asced_recorders.pipelines.options import RecordOptions
    from asced_recorders.tap.schedulers import StepTable
    from asced_recorders.writing.capture import Capture
    from asced_stores import TrajectorySpec


class RunSource(Protocol):
    """Draws batches of runs while a capture listens."""

    pipe: Any
    settings: RecordOptions
    facts: dict[str, Any]

    @property
    def conditioned(self) -> bool:
        """Whether runs differ in prompt, class or another argument."""

    def seeds(self, runs: Sequence[int], draws: int = 1) -> list[int]:
        """Seed of each draw of each run."""

    def known_spec(self) -> TrajectorySpec | None:
        """What a run consists of, if that is known before the first one is drawn."""

    def asked(self) -> dict[str, Any]:
        """What is known of the attributes before anything is sampled."""

    def spec(
        self, table: StepTable, shape: Sequence[int], image_shape: Sequence[int] | None
    ) -> TrajectorySpec:
        """What a run consists of."""

    def expected_image(self, shape: Sequence[int]) -> tuple[int, int, int] | None:
        """Shape of the image of a run, as far as it can be predicted."""

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

    def images(self, output: Any, ends: Tensor, value_range: Range) -> NDArray[np.uint8] | None:
        """Images of a batch, of what `sample` returned and the ends of its runs."""
