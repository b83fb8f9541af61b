"""Options of a recording: how the model is loaded, what is sampled, what is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asced_recorders.pipelines.prompts import check_guidance
from asced_recorders.writing.options import ModuleOptions
from asced_stores.errors import InputError
from asced_stores.options import option, options

if TYPE_CHECKING:
    from asced_recorders.pipelines.pruning import Pruning


@options
class LoadOptions:
    """How a pipeline is loaded by name or path."""

    device: Any = option(None, "cpu, cuda, cuda:1, xpu, mps; by default the accelerator.")
    variant: str | None = option(None, "Variant of the files on the hub, for example fp16.")
    revision: str | None = option(None, "Branch, tag or commit on the hub.")
    local_files_only: bool = option(False, "Never contact the hub.")
    allow_pickle: bool = option(False, "Accept weights that are not safetensors.")
    trust_remote_code: bool = option(False, "Run code that the pipeline brings.")


@options
class SchedulerOptions:
    """Another scheduler than the pipeline's own."""

    scheduler: str | None = option(
        None, "Another scheduler, by a short name or a class of diffusers."
    )
    scheduler_options: Mapping[str, Any] | None = option(
        None, "Entries of the scheduler's configuration."
    )


@options
class PipelineOptions(LoadOptions, SchedulerOptions):
    """How a pipeline is loaded, ready to be recorded."""

    dtype: Any = option(None, "Of the weights, for example ``float16``; by default float32.")


@options
class RecordOptions(LoadOptions, SchedulerOptions, ModuleOptions):
    """Everything that a recording of many runs is asked to do.

    Raises
    ------
    InputError
        If something cannot be recorded as asked.
    """

    runs: int | None = option(None, "Number of runs; by default one a prompt.")
    steps: int = option(25, "Steps of sampling.")
    batch_size: int = option(64, "Runs sampled and committed together.")
    seed: int = option(0, "Seed of run 0.")
    precision: str | None = option(None, "Precision of the weights while sampling.")
    labels: Sequence[int] | None = option(
        None, "Classes of a class-conditional model, repeated to the number of runs."
    )
    prompts: str | Path | Iterable[Any] | None = option(
        None,
        "A file (text, CSV or JSONL) or a sequence of prompts, one a run, repeated to the number "
        "of runs.",
    )
    negative_prompt: str | None = option(None, "For prompts without their own.")
    guidance_scale: float | None = option(
        None, "For prompts without their own; the pipeline's default otherwise."
    )
    keep_prompts: bool = option(True, "Write the prompts to the store, not keyed hashes of them.")
    call_options: Mapping[str, Any] | None = option(
        None,
        "Further arguments of the pipeline's call, such as height and width; a function is asked "
        "for each batch (``lambda batch: [images[run] for run in batch.runs]``).",
    )
    keep: str = option(
        "all",
        "Which runs are kept in full: ``all``, those ``flagged`` by the thresholds, or a random "
        "share, ``sample:P``. Of all runs what the observers saw is kept.",
    )
    pruning: Pruning | None = option(
        None,
        "Several runs are drawn for each that is recorded, and the most promising finished "
        "(`asced_analysis.correction.Pruner`). The store holds those alone, from their first step; "
        "batches and numbers of runs count what is finished.",
    )
    ignore_disk: bool = option(False, "Begin even if the disk looks too small.")
    progress: Callable[[dict[str, Any]], None] | None = option(
        None, "Told each event: a dict with ``event`` start, batch, interrupting, done."
    )

    def __post_init__(self) -> None:
        from asced_stores.format.metadata import MAX_BATCHES

        super().__post_init__()
        least = {"runs": self.runs, "steps": self.steps, "batch_size": self.batch_size}
        if self.runs is None and self.prompts is not None:
            del least["runs"]
        for name, value in least.items():
            if value is None or isinstance(value, bool) or int(value) < 1:
                raise InputError(f"{name} is {value}: give a number of at least 1")
        check_guidance(self.guidance_scale)
        self.check_steps(self.steps)
        if (self.runs or 0) > MAX_BATCHES * self.batch_size:
            raise InputError(
                f"{self.runs} runs are more than {MAX_BATCHES} batches of {self.batch_size}: raise "
                "the batch size"
            )
