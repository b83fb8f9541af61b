"""Options of what samples recorded runs again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from asced_analysis.correction.options import EditOptions
from asced_stores.errors import InputError
from asced_stores.options import option, options, others

if TYPE_CHECKING:
    from asced_analysis.correction.controls import Control
    from asced_analysis.correction.detecting import Network
    from asced_analysis.correction.loops import Loop
    from asced_analysis.correction.strategy import Strategy
    from asced_analysis.realism import RealismModel
    from asced_analysis.replay.recording import Call, Recording
    from asced_analysis.thresholds.document import Thresholds


@options
class SamplerOptions:
    """What samples recorded runs again: a pipeline, or a loop of one's own."""

    pipeline: Any = option(
        None,
        "Name, folder, or module:function that makes it, or a pipeline, instead of the one the "
        "store names.",
    )
    loop: Loop | str | None = option(
        None,
        "A sampling loop of your own, f(x_init, step), in the place of a pipeline, or its "
        "``FILE.py:function`` or ``module:function``. It samples from `x_init`, goes on with what "
        "``step(sample=, "
        "model_output=, alpha=, sigma=, prediction_type=, next_sample=)`` returns, and returns the "
        "end; ``step.seeds``, ``step.runs`` and ``step.scalars`` say what is sampled.",
    )
    call: Call | None = option(
        None,
        "``call(pipe, batch)`` repeats the recorded call of a pipeline that takes prompts or other "
        "options, where the store does not hold them all: ``batch.seeds``, ``batch.runs`` and "
        "``batch.scalars`` say what was sampled together.",
    )
    call_options: Mapping[str, Any] | None = option(
        None,
        "Arguments that the store does not hold (images, ...), added to the recorded call. A "
        "function is called with each batch: ``lambda batch: [images[run] for run in "
        "batch.runs]``.",
    )
    network: Network | None = option(
        None,
        "For thresholds with a lookahead: ``network(sample, table, step)`` gives predicted x0; "
        "beside a loop of your own ``network(sample, alpha, sigma)``. By default that of an "
        "unconditional pipeline.",
    )

    def sampler(self, recording: Recording) -> Any:
        """Load the pipeline, or take the loop, and say how the recorded calls are repeated.

        Raises
        ------
        InputError
            Where it is not the recorded model's, or its calls cannot be repeated.
        """
        from asced_analysis.correction.loops import LoopSampler, pipeline_or_loop
        from asced_analysis.replay.calls import repeat_calls

        pipe = pipeline_or_loop(self.pipeline, self.loop)
        if not isinstance(pipe, LoopSampler):
            pipe = recording.pipeline(pipe)
        repeat_calls(recording, pipe, self.call, self.call_options)
        return pipe


@options
class ReplayOptions(SamplerOptions, EditOptions):
    """How recorded runs are sampled again.

    Raises
    ------
    InputError
        For a batch size below 1.
    """

    thresholds: Thresholds | str | Path | None = option(
        None,
        "Which runs to correct, where and when (asced calibrate). Not needed with `masks` or with "
        "strategy ``none``.",
    )
    strategy: str | Strategy | None = option(
        None,
        "Correction; none reproduces the recording. By default the thresholds' own, with their "
        "parameters; ``ttc`` with masks alone.",
    )
    start: Literal["init"] | int = option(
        "init", "init, or a recorded checkpoint, from which only the remaining steps are paid for."
    )
    control: Control | None = option(
        None,
        "Correct the same runs at the wrong place (shuffled, foreground, everywhere); where a "
        "strategy takes whole runs, shuffled corrects as many others.",
    )
    teacher: str | RealismModel | None = option(
        None,
        "Teacher that chooses among several draws (best_of): by default the embedded teacher for "
        "the embedded fashion, else patches of the recorded population's own samples. It looks at "
        "predicted x0 in the space that is sampled in: at the latents of a latent model.",
    )
    masks: Any = option(
        None,
        "Masks from outside: a mapping of run to bool array (y, x), or a bool array (run, y, x); "
        "runs with an empty mask are left alone.",
    )
    only_flagged: bool = option(
        False,
        "Sample flagged runs alone, together; copy the others. It is much less work, and last bits "
        "may differ from a replay in the recorded batches.",
    )
    batch_size: int | None = option(
        None,
        "Sample this many runs together instead of the recorded batches; what that changes in the "
        "last bits is measured (exactness).",
    )
    threads: int | None = option(
        None,
        "Threads of torch; by default as recorded (else last digits differ, which is measured).",
    )
    override: bool = option(False, "Use thresholds of another model anyway.")
    overwrite: bool = option(False, "Replace an existing store.")
    resume: bool = option(
        False,
        "Go on with a replay that was interrupted. Its whole batches stay as they are, and the "
        "rest comes out as if nothing had happened.",
    )
    progress: Callable[[int, int], None] | None = option(
        None, "Called with batches done and batches in all."
    )
    parameters: Mapping[str, Any] = others("Of the strategy.")

    def __post_init__(self) -> None:
        EditOptions.__post_init__(self)
        if self.batch_size is not None and self.batch_size < 1:
            raise InputError(f"batch_size is {self.batch_size}: expected at least 1")
