"""The model of recorded runs, asked once: what it predicts of a sample at one recorded level.

Under each run's own prompt, class and guidance, whatever kind of pipeline it is: our own loop
begins at that step, a pipeline that is called is called as it was recorded and stopped there.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asced_analysis.correction.halting import HaltedError
from asced_analysis.replay.calls import repeat_calls
from asced_analysis.replay.recording import Recording
from asced_analysis.replay.sampling import class_labels, resample_from
from asced_recorders.pipelines.provenance import execution_device
from asced_recorders.pipelines.sampling import is_unconditional, sample_unconditional
from asced_recorders.tap.tap import StepEvent, TapListener
from asced_stores.errors import InputError

AT_ONCE = 32


class _Answer(TapListener):
    """Keeps what is predicted at a step, and stops the run there."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.x0: Tensor | None = None

    def before_step(self, event: StepEvent) -> Tensor | None:
        """Look."""
        if event.step == self.step:
            self.x0 = event.x0.float().cpu()
            raise HaltedError
        return None


def recorded_network(
    store: Any, pipeline: Any, step: int, call_options: Mapping[str, Any] | None = None
) -> Any:
    """The network of a recording at one step of its schedule.

    Parameters
    ----------
    store : TrajectoryStore or path
    pipeline : DiffusionPipeline, str, Path or None
        By default the one that the store names.
    step : int
        At least 1.
    call_options : mapping, optional
        Arguments of the calls that the store does not hold.

    Returns
    -------
    callable
        ``ask(samples, runs)``: float32 samples that enter the step, and the runs whose prompts and
        classes they are asked under, to predicted x0.

    Raises
    ------
    InputError
        Where the pipeline cannot be had, is another model, or its call cannot be made again.
    """
    recording = Recording(store)
    pipe = recording.pipeline(pipeline)
    repeat_calls(recording, pipe, options=call_options)

    def ask(samples: NDArray[np.float32], runs: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        out = np.empty_like(samples)
        asked = np.asarray(runs, np.int64)
        for some in recording.calls_of(asked, AT_ONCE):  # runs of one call share its options
            out[some] = _once(recording, pipe, samples[some], asked[some], step)
        return out

    return ask


def _once(
    recording: Recording,
    pipe: Any,
    samples: NDArray[np.float32],
    runs: NDArray[np.int64],
    step: int,
) -> NDArray[np.float32]:
    """One evaluation for a few runs of one call."""
    batch = recording.select(runs)
    answer = _Answer(step)
    entering = torch.from_numpy(samples).to(execution_device(pipe))
    with suppress(HaltedError):
        if is_unconditional(pipe):
            sample_unconditional(
                pipe,
                x_init=None,
                steps=recording.steps,
                listener=answer,
                start=step,
                x_start=entering,
                labels=class_labels(batch),
                once=True,
            )
        else:
            resample_from(recording, batch, pipe, entering, step, listener=answer)
    if answer.x0 is None:
        raise InputError(f"the recorded call never came to step {step}")
    return np.asarray(answer.x0.numpy(), np.float32)
