"""What a run leaves behind, gathered step by step into one buffer a batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from asced_recorders.tap.layouts import Layout, as_stepped
from asced_recorders.tap.schedulers import StepTable, same_levels
from asced_recorders.tap.tap import StepEvent, TapListener
from asced_recorders.writing.device_copier import STREAMED, DeviceCopier, Streams
from asced_recorders.writing.options import Settings
from asced_stores.errors import InputError
from asced_stores.format.steps_on_disk import StepsOnDisk

if TYPE_CHECKING:
    from torch import Tensor

STEPWISE = ("eps", "x0")
LARGE_RUN_BYTES = 1 << 28
"""Steps of runs larger than this go to a file as they come, and not into memory."""


class RunBuffer:
    """One batch on the host: tensors with the step first, so that each step is one copy.

    From an accelerator with streams, a step is cast into a slot on the device, and a side stream
    copies the slot to pinned memory while the model goes on; nothing waits for the device until the
    batch is written. This has not been run on a GPU yet; its order is tested with streams that take
    any other order which events allow.

    Parameters
    ----------
    key : tuple
        ``(kept steps, checkpoints, count, sample_shape, dtype, fields, device type)``.

    Attributes
    ----------
    kept : dict of int to int
        Where each step that is kept lies; others are let go.
    """

    SLOTS = 4

    def __init__(self, key: tuple[Any, ...]) -> None:
        import torch

        self.key = key
        kept, checkpoints, count, shape, dtype, fields, device = key
        self.kept = {step: place for place, step in enumerate(kept)}
        self.count: int = count
        steps = len(kept)
        pinned = device in STREAMED
        half = getattr(torch, dtype)
        sizes = {
            "eps": ((steps, count, *shape), half),
            "x0": ((steps, count, *shape), half),
            "x_init": ((count, *shape), torch.float32),
            "checkpoint_sample": ((checkpoints, count, *shape), torch.float32),
            "sample": ((count, *shape), torch.float32),
        }
        # Not in the caller's inference mode: what is made there cannot be written outside of it.
        wanted = {
            name: size
            for name, size in sizes.items()
            if name in fields and not (name == "checkpoint_sample" and not checkpoints)
        }
        stepwise = [
            math.prod(wanted[name][0]) * half.itemsize for name in STEPWISE if name in wanted
        ]
        large = sum(stepwise) > LARGE_RUN_BYTES * count
        with torch.inference_mode(False):
            self.tensors: dict[str, Tensor | StepsOnDisk] = {
                name: StepsOnDisk((count, steps, *shape), dtype)
                if large and name in STEPWISE
                else torch.empty(size, dtype=kind, pin_memory=pinned)
                for name, (size, kind) in wanted.items()
            }
        self._copier: DeviceCopier | None = None

    def put(self, name: str, value: Tensor, index: int | None = None) -> None:
        """Copy one variable of one step, cast to the recorded precision."""
        target = self.tensors.get(name)
        if target is None:
            return
        if name in STEPWISE:
            if index not in self.kept:
                return
            index = self.kept[index]
        if isinstance(target, StepsOnDisk):
            assert index is not None
            import torch

            kind = getattr(torch, target.dtype.name)
            target.put(index, value.detach().to("cpu", kind).contiguous().numpy())
            return
        if index is not None:
            target = target[index]
        if value.device.type in STREAMED:
            if self._copier is None:
                self._copier = DeviceCopier(Streams(value.device), self.SLOTS)
            self._copier.copy(value, target)
        else:
            target.copy_(value.detach())

    def arrays(self) -> dict[str, Any]:
        """The variables with the run first, once every copy has arrived."""
        if self._copier is not None:
            self._copier.wait()
        by_step = ("eps", "x0", "checkpoint_sample")
        found: dict[str, Any] = {}
        for name, tensor in self.tensors.items():
            if isinstance(tensor, StepsOnDisk):
                found[name] = tensor
                continue
            array = tensor.numpy()
            # A contiguous copy here is made in the writer's thread, not in the sampler's.
            found[name] = np.ascontiguousarray(array.swapaxes(0, 1)) if name in by_step else array
        return found


def take_buffer(
    take: Callable[..., RunBuffer],
    steps: int,
    sample: Tensor,
    settings: Settings,
) -> RunBuffer:
    """Take a buffer for a batch whose first sample (run, ...) is known, a used one if there is."""
    shape = tuple(sample.shape[1:])
    key = (
        settings.kept(steps),
        len(settings.checkpoints),
        len(sample),
        shape,
        settings.dtype,
        settings.fields,
        sample.device.type,
    )
    return take(lambda: RunBuffer(key), key)


class Capture(TapListener):
    """Fills one `RunBuffer` a batch from the steps of a run.

    Parameters
    ----------
    take : callable
        ``take(make, key)`` hands out a buffer (`BackgroundWriter.take`).
    settings : Settings, optional
        What to keep; all by default.
    check : callable, optional
        Called at each step; raises what should stop the sampling.
    on_first : callable, optional
        Told the schedule and the shape of a sample at the very first step.

    Attributes
    ----------
    layout : Layout
        How the pipeline's tensors become (run, [frame,] channel, y, x).
    expected_runs : int or None
        How many rows a batch must have, where that is known.
    most_runs : int or None
        How many rows a batch may have, where the store is there.
    ran : callable, optional
        Says at each step whether the network computed since the last one (`EvaluationWatch`).
    evaluated : list of bool
        What it said of each step of the batch.
    activations : callable, optional
        Gives at each step the activations of so many runs since the last (`ActivationWatch`).
    watches : sequence
        Watches over the networks, which pause inside the scheduler's calls (``pause(inside)``).
    known : dict of int to StepEvent
        Steps that were sampled before, and are shown in the place of idle ones (pruning).
    scheduler : SchedulerMixin
        The one that steps.
    """

    def __init__(
        self,
        take: Callable[..., RunBuffer],
        *,
        settings: Settings | None = None,
        check: Callable[[], None] | None = None,
        on_first: Callable[[StepTable, tuple[int, ...]], None] | None = None,
    ) -> None:
        self.take = take
        self.settings = settings or Settings()
        self.checkpoints = {step: i for i, step in enumerate(self.settings.checkpoints)}
        self.layout = Layout()
        self.check = check
        self.on_first = on_first
        self.expected_runs: int | None = None
        self.most_runs: int | None = None
        self.ran: Callable[[], bool] | None = None
        self.evaluated: list[bool] = []
        self.activations: Callable[[int], Tensor | None] | None = None
        self._activations: list[Tensor] = []
        self.watches: Sequence[Any] = ()
        self.known: dict[int, StepEvent] = {}
        self.raw_shape: tuple[int, ...] = ()
        self.changed: list[Any] = []
        self.shown = False
        self.scheduler: Any = None
        self.table: StepTable | None = None
        self.expected: StepTable | None = None
        self.buffer: RunBuffer | None = None
        self.end: Tensor | None = None
        self.done = 0

    def begin(self, table: StepTable) -> None:
        """Check that the schedule is the store's."""
        if self.buffer is not None:
            raise InputError(
                "a second run began before the first was written: this pipeline samples in several "
                "passes or with several schedulers, and cannot be recorded as one trajectory"
            )
        if beyond := [step for step in self.checkpoints if step >= table.steps]:
            raise InputError(
                f"checkpoints {beyond} lie beyond the {table.steps} steps of this run: "
                f"give steps from 0 to {table.steps - 1}"
            )
        if (expected := self.expected) is not None and not same_levels(expected, table):
            raise InputError(
                f"this run has {table.steps} noise levels that differ from those of the runs "
                f"before it ({expected.steps}): one store holds one schedule"
            )
        self.table = table
        self.evaluated = []
        self._activations = []
        self.changed = []
        self.shown = False
        self.done = 0
        self.end = None

    def watched_by(self, evaluations: Any, activations: Any) -> None:
        """Take watches over the networks of the call that begins."""
        self.ran, self.activations = evaluations.since, activations.since
        self.watches = evaluations, activations

    def calling(self, inside: bool) -> None:
        """Let those who watch the networks pass over what listeners ask of them inside a call."""
        for watch in self.watches:
            watch.pause(inside)

    def before_step(self, event: StepEvent) -> None:
        """Keep eps, x0 and, where asked for, the entering sample."""
        if self.check is not None:
            self.check()
        rearrange = self.layout.rearrange
        event = self.known.pop(event.step, event)
        if event.step == 0 or self.buffer is None:
            sample = rearrange(event.sample)
            self.raw_shape = tuple(event.sample.shape)
            self._check_rows(event, sample.shape[0])
            self._keep_activations(len(sample))
            if self.on_first is not None:
                self.on_first(event.table, tuple(sample.shape[1:]))
                self.on_first = None
            self.buffer = take_buffer(self.take, event.steps, sample, self.settings)
            self.buffer.put("x_init", sample)
        else:
            self._keep_activations(self.buffer.count)
        buffer = self.buffer
        if "eps" in buffer.tensors:
            buffer.put("eps", rearrange(event.eps), event.step)
        if "x0" in buffer.tensors:
            buffer.put("x0", rearrange(event.x0), event.step)
        if event.step in self.checkpoints:
            at = self.checkpoints[event.step]
            buffer.put("checkpoint_sample", rearrange(event.sample), at)
        self.changed.append(event.changed)
        self.evaluated.append(True if self.ran is None else self.ran())
        self.done += 1

    def _keep_activations(self, runs: int) -> None:
        """Keep what the network's modules gave for this step."""
        found = None if self.activations is None else self.activations(runs)
        if found is not None:
            self._activations.append(found)

    def by_step(self, buffer: RunBuffer) -> dict[str, Any]:
        """What was seen of each step that is kept, beside the tensors, the run first."""
        kept = list(buffer.kept)
        ran = np.asarray(self.evaluated, np.bool_)[kept]
        found: dict[str, Any] = {"evaluated": np.tile(ran, (buffer.count, 1))}
        if self._activations:
            by_run = [self._activations[step].cpu().numpy() for step in kept]
            found["activations"] = np.stack(by_run, axis=1)
        return found

    def after_step(self, event: StepEvent, next_sample: Tensor) -> None:
        """Keep the end."""
        if event.step == event.steps - 1:
            self.finish(next_sample)

    def show(self, sample: Tensor) -> None:
        """See the sample with which a loop goes on; after the last step it is the end."""
        if self.table is None or self.buffer is None or self.done < self.table.steps:
            return
        found = as_stepped(sample, self.raw_shape)
        if found is not None:
            self.shown = True
            self.finish(found)

    def finish(self, sample: Tensor) -> None:
        """Take a sample as the end of the runs."""
        assert self.buffer is not None
        self.end = self.layout.rearrange(sample)
        self.buffer.put("sample", self.end)

    def release(self) -> RunBuffer:
        """Hand over the batch that is now complete.

        Raises
        ------
        InputError
            If the pipeline took no step or fewer than its schedule has.
        """
        table, buffer = self.table, self.buffer
        if table is None or buffer is None:
            raise InputError(
                "the pipeline took no step through its scheduler: there is nothing to record. "
                "Record its loop with Recorder.custom."
            )
        if self.done != table.steps or self.end is None:
            raise InputError(
                f"the pipeline stopped after {self.done} of {table.steps} steps: such a run is "
                "not recorded"
            )
        if not self.shown and any(bool(changed) for changed in self.changed):
            raise InputError(
                "this pipeline changes its samples after the scheduler's steps, and what it makes "
                "of the last one was not seen: give the call a callback_on_step_end (one that "
                "returns {} will do) where it takes one, or record its loop with Recorder.custom"
            )
        self.expected = table
        self.buffer = None
        return buffer

    def drop(self) -> RunBuffer | None:
        """Forget the batch that was begun, and hand back its buffer for another one."""
        buffer, self.buffer = self.buffer, None
        self.table, self.end, self.done = None, None, 0
        return buffer

    def _check_rows(self, event: StepEvent, rows: int) -> None:
        """Refuse a batch that is not made of one row a run, by one scheduler."""
        if self.expected_runs is not None and rows != self.expected_runs:
            raise InputError(
                f"the pipeline steps {rows} samples for {self.expected_runs} runs: how they belong "
                "together is not known, so it is not recorded"
            )
        if self.most_runs is not None and rows > self.most_runs:
            raise InputError(
                f"this call makes {rows} runs, and a batch of the store holds {self.most_runs}: "
                "make the largest call first, or give batch_size"
            )
        self.scheduler = event.scheduler
