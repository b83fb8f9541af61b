"""What is kept of each run, and how a store is written: options that all recorders have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from asced_stores.errors import InputError
from asced_stores.options import option, options

if TYPE_CHECKING:
    from asced_recorders.writing.observers import RunObserver

FIELDS = ("eps", "x0", "x_init", "checkpoint_sample", "sample", "image")


@options
class Settings:
    """What to record of each run.

    Raises
    ------
    InputError
        If one of them cannot be.
    """

    fields: Sequence[str] = option(
        FIELDS, "Some of eps, x0, x_init, checkpoint_sample, sample, image."
    )
    checkpoints: Sequence[int] = option(
        (),
        "Steps whose entering sample is kept in float32, for replays that start there, for "
        "example 8,12,16.",
    )
    dtype: str = option("float16", "Precision of eps and x0 in the store: float16 or float32.")
    every: int = option(
        1, "Keep eps and x0 of every K-th step of the window: enough to analyse, not to replay."
    )
    window: tuple[int, int] | None = option(
        None,
        "First and last step whose eps and x0 are kept, counted from 0; all by default: fewer are "
        "enough to analyse, not to replay.",
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", tuple(self.fields))
        object.__setattr__(self, "checkpoints", tuple(sorted({int(c) for c in self.checkpoints})))
        unknown = sorted(set(self.fields) - set(FIELDS))
        if unknown or not self.fields:
            raise InputError(f"unknown fields {unknown}: give some of {', '.join(FIELDS)}")
        if self.dtype not in ("float16", "float32"):
            advice = " (bfloat16 loses up to 8 % of a dynamic)" if self.dtype == "bfloat16" else ""
            raise InputError(f"eps and x0 cannot be {self.dtype}{advice}: give float16 or float32")
        if self.checkpoints and self.checkpoints[0] < 0:
            raise InputError(f"checkpoint {self.checkpoints[0]} is negative: steps count from 0")
        if self.checkpoints and "checkpoint_sample" not in self.fields:
            raise InputError("checkpoints need the field checkpoint_sample: add it to the fields")
        if isinstance(self.every, bool) or self.every < 1:
            raise InputError(f"every is {self.every}: give 1 for each step, 2 for every second one")
        if self.window is not None:
            first, last = (int(step) for step in self.window)
            object.__setattr__(self, "window", (first, last))
            if not 0 <= first <= last:
                raise InputError(
                    f"the window is {first} to {last}: give the first and the last step to keep, "
                    "counted from 0"
                )
        if self.checkpoints and (self.every > 1 or self.window is not None):
            raise InputError(
                "checkpoints are for replay, which needs every step: leave out either them, or "
                "every and window"
            )

    def kept(self, steps: int) -> tuple[int, ...]:
        """Steps, of so many, whose eps and x0 are kept.

        Raises
        ------
        InputError
            If the window ends beyond the last step.
        """
        first, last = (0, steps - 1) if self.window is None else self.window
        if last >= steps:
            raise InputError(
                f"the window ends at step {last} of {steps}: give steps from 0 to {steps - 1}"
            )
        return tuple(range(first, last + 1, self.every))

    def check_steps(self, steps: int) -> None:
        """Raise an `InputError` if a checkpoint or the window lies beyond the last step."""
        self.kept(steps)
        if len(self.checkpoints) > steps:
            raise InputError(f"{len(self.checkpoints)} checkpoints are more than {steps} steps")
        beyond = [step for step in self.checkpoints if step >= steps]
        if beyond:
            raise InputError(
                f"checkpoints {beyond} lie beyond the last step: give steps from 0 to {steps - 1}"
            )


@options
class StoreOptions(Settings):
    """What to record of each run, and how its store is written."""

    runs: int | None = option(None, "Number of runs planned, where it is known.")
    batch_size: int | None = option(
        None, "Runs committed together; by default as many as the first call makes."
    )
    resume: bool = option(False, "Go on with a store that was begun with the same options.")
    overwrite: bool = option(False, "Replace a store that exists.")
    value_range: Sequence[float] | None = option(
        None,
        "Between which pixels lie, where it is not -1 to 1; by default as the first batch shows. "
        "Images are scaled to it, and the store says it.",
    )
    observers: Sequence[RunObserver] = option(
        (),
        "Shown each batch before it is written, for example those of "
        "`asced_analysis.statistics.observing`.",
    )
    rank: int | None = option(None, "Which process this is; torchrun and SLURM set it.")
    world_size: int | None = option(None, "Number of processes.")
    storage_options: Mapping[str, Any] | None = option(None, "For object storage.")
    fsync: bool = option(
        True,
        "Wait for the disk before a batch counts as committed. Without it a killed process still "
        "loses nothing, but a loss of power may tear the batches of the last half minute.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resume and self.overwrite:
            raise InputError("resume and overwrite exclude each other: choose one")


@options
class ModuleOptions(StoreOptions):
    """The same of recordings whose network is at hand, activations of its modules among it."""

    activations: Sequence[str] = option(
        (),
        "Modules of the network of which pooled activations are kept by step, for example "
        "mid_block,up_blocks.0: some hundred numbers a module.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.activations, str):
            raise InputError(f"activations is {self.activations!r}: give a list of names")
        object.__setattr__(self, "activations", tuple(self.activations))
        for observer in self.observers:
            wanted = tuple(getattr(observer, "activations", ()))
            if wanted and wanted != self.activations:
                raise InputError(
                    f"{type(observer).__name__} looks at activations of the network: record them "
                    f"with --activations {','.join(wanted)}, in code activations={list(wanted)}"
                )
