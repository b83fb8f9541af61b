"""The one place that hooks schedulers: see every step of a pipeline, and change it.

A scheduler's class is swapped for a subclass of the same name that overrides ``set_timesteps`` and
``step``. Patching the instance or wrapping it in a proxy is silently wrong: pipelines inspect the
signature of ``step`` to decide what to pass, and copies of a patched instance call the original's
step. The swap leaves outputs bit-identical.
"""

from __future__ import annotations

import copy
import functools
import inspect
import weakref
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from asced_recorders.tap.events import ListenerChain, StepEvent, TapListener
from asced_recorders.tap.schedulers import StepTable, begin_index, scheduler_class, step_table
from asced_recorders.tap.solver_history import renew_history
from asced_stores.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ListenerChain", "StepEvent", "Tap", "TapListener"]

CORRECTORS = ("multistep_uni_c_bh_update", "stochastic_adams_moulton_update")


class Tap:
    """Listen to every ``*scheduler`` of a pipeline, as a context manager.

    Parameters
    ----------
    pipeline_or_scheduler : DiffusionPipeline or SchedulerMixin
        A pipeline that is built (constructors rebuild schedulers), or a scheduler.
    listener : TapListener
        What to tell.
    whole_schedule : bool
        Number the steps by the whole schedule even where the run starts in its middle, as a
        replay from a checkpoint does. By default step 0 is the first one that is taken.
    within : callable, optional
        Says whether a call of the pipeline is going on, where that is known: steps outside are
        counted and not told, and copies that are made outside are plain schedulers.

    Attributes
    ----------
    outside : int
        Steps that were taken outside a call.

    Raises
    ------
    InputError
        On entering, where a scheduler cannot be recorded, or another tap numbers its steps
        otherwise, or has a `within` of its own as this one does; while sampling, where the
        schedule is left, or a sample is replaced where the solver forbids it.
    """

    def __init__(
        self,
        pipeline_or_scheduler: Any,
        listener: TapListener,
        *,
        whole_schedule: bool = False,
        within: Callable[[], bool] | None = None,
    ) -> None:
        self.source = pipeline_or_scheduler
        self.schedulers = list(_schedulers(pipeline_or_scheduler))
        self.listener = listener
        self.whole_schedule = whole_schedule
        self.by_call = within is not None
        self.within = within or (lambda: True)
        self.outside = 0
        self._streams: list[_Stream] = []

    def __enter__(self) -> Self:
        if self._streams:
            raise InputError("this tap is already attached: make another, or leave it first")
        for scheduler in self.schedulers:
            self._check(scheduler)
        self._streams = [self._stream(scheduler) for scheduler in self.schedulers]
        return self

    def follow(self) -> None:
        """Listen to schedulers too that the pipeline was given meanwhile; forget a broken run."""
        for stream in self._streams:
            stream.rewind()
        for scheduler in _schedulers(self.source):
            if not any(scheduler is known for known in self.schedulers):
                self._check(scheduler)
                self.schedulers.append(scheduler)
                self._streams.append(self._stream(scheduler))

    def beside(self) -> list[TapListener]:
        """Listeners of other taps that hear of the same steps."""
        taps = {id(tap): tap for stream in self._streams for tap in stream.taps if tap is not self}
        return [tap.listener for tap in taps.values()]

    def _check(self, scheduler: Any) -> None:
        """Refuse what cannot be listened to, before anything is changed."""
        scheduler_class(scheduler)
        stream = getattr(type(scheduler), "_asced_stream", None)
        if stream is not None and stream.whole_schedule != self.whole_schedule:
            raise InputError(
                f"another tap listens to this {type(scheduler).__name__} and numbers its steps "
                "otherwise: leave it first"
            )
        if self.by_call and stream is not None and any(tap.by_call for tap in stream.taps):
            raise InputError(
                f"another tap already listens to the calls that use this "
                f"{type(scheduler).__name__}: record a pipeline once at a time, and leave the "
                "other recorder first"
            )

    def _stream(self, scheduler: Any) -> _Stream:
        """A stream of a scheduler: its own, or that of a tap that listens already."""
        stream: _Stream | None = getattr(type(scheduler), "_asced_stream", None)
        if stream is None:
            return _Stream(scheduler, self)
        stream.join(self)  # a recorder and a corrector of one call
        return stream

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for stream in self._streams:
            stream.leave(self)
        self._streams = []


class _Stream:
    """One scheduler's run: counts calls, tells the listener, applies what it changes."""

    def __init__(self, scheduler: Any, tap: Tap) -> None:
        self.owner = scheduler
        self.copies: list[weakref.ref[Any]] = []
        self.plain = type(scheduler)
        self.tap = tap
        self.listener = tap.listener
        self.whole_schedule = tap.whole_schedule
        self.taps = [tap]
        self.active = True
        self.rewind()
        names = list(inspect.signature(self.plain.step).parameters)[1:]
        self.position = {name: names.index(name) for name in ("model_output", "timestep", "sample")}
        scheduler.__class__ = _tapped_class(self.plain, self)

    def join(self, tap: Tap) -> None:
        """Let another tap's listener be told as well: it sees what the ones before it changed."""
        self.taps.append(tap)
        self.listener = ListenerChain(*(one.listener for one in self.taps))

    def leave(self, tap: Tap) -> None:
        """Tell a tap's listener nothing more; after the last, the scheduler has its class back."""
        self.taps.remove(tap)
        if self.taps:
            self.listener = ListenerChain(*(one.listener for one in self.taps))
            return
        self.active = False
        for scheduler in (self.owner, *(copied() for copied in self.copies)):
            if scheduler is not None:
                scheduler.__class__ = self.plain

    def rewind(self) -> None:
        """Forget the run: a new schedule was set."""
        self.table: StepTable | None = None
        self.event: StepEvent | None = None
        self.edited: Tensor | None = None
        self.call = 0
        self.walker: Any = None
        self.shape: Any = None

    def step(self, scheduler: Any, real: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Stand in for ``scheduler.step``."""
        timestep = self._argument("timestep", args, kwargs)
        if scheduler is not self.walker and self._is_beside(args, kwargs):
            return real(scheduler, *args, **kwargs)
        if self.table is None or self.call >= len(self.table.calls):
            self._begin(scheduler, timestep)
        table = self.table
        assert table is not None
        self._check_place(scheduler, timestep, table)
        row = int(table.calls[self.call])
        if row >= 0:
            args, kwargs = self._before(scheduler, row, table, args, kwargs)
        output = real(scheduler, *args, **kwargs)
        self.edited = None
        self.call += 1
        finished = self.call == len(table.calls) or table.calls[self.call] >= 0
        if finished and self.event is not None:
            output = self._after(scheduler, table, output)
        return output

    def _is_beside(self, args: Any, kwargs: Any) -> bool:
        """Whether a copy walks other samples beside the run: the sound of a video."""
        shape = getattr(self._argument("sample", args, kwargs), "shape", None)
        return self.walker is not None and self.shape is not None and shape != self.shape

    def _begin(self, scheduler: Any, timestep: Any) -> None:
        self.call = 0
        begin = begin_index(scheduler, timestep)
        if self.whole_schedule:
            self.table = step_table(scheduler)
            self.call = begin
        else:
            self.table = step_table(scheduler, begin=begin)
        self.walker = scheduler
        self.shape = None
        self.listener.begin(self.table)

    def _check_place(self, scheduler: Any, timestep: Any, table: StepTable) -> None:
        """Refuse a loop that leaves the schedule, or that mixes copies of the scheduler."""
        if scheduler is not self.walker:
            raise InputError(
                f"two copies of the {table.scheduler_class} step in one run: this pipeline cannot "
                "be recorded"
            )
        at = getattr(scheduler, "_step_index", None)
        if at is not None and at != table.begin + self.call:
            raise InputError(
                f"{table.scheduler_class} is at entry {at} of its schedule where "
                f"{table.begin + self.call} was expected: this loop leaves the schedule and "
                "cannot be recorded. Record it with Recorder.custom."
            )
        row = table.calls[self.call]
        on_host = not hasattr(timestep, "device") or timestep.device.type == "cpu"
        if row >= 0 and at is None and on_host and getattr(timestep, "ndim", 0) == 0:
            expected = table.timestep[row]
            if abs(float(timestep) - expected) > 1e-3 * max(1.0, abs(expected)):
                raise InputError(
                    f"{table.scheduler_class} was called with timestep {float(timestep)} where "
                    f"{expected} was expected: this loop leaves the schedule and cannot be "
                    "recorded. Record it with Recorder.custom."
                )

    def _before(
        self, scheduler: Any, row: int, table: StepTable, args: Any, kwargs: Any
    ) -> tuple[Any, Any]:
        sample = self._argument("sample", args, kwargs)
        output = self._argument("model_output", args, kwargs)
        if not hasattr(output, "shape") or not hasattr(sample, "shape"):
            raise InputError(f"{table.scheduler_class}.step was not given tensors")
        learned_variance = None
        if output.shape != sample.shape:
            channels = sample.shape[1] if sample.ndim > 1 else 0
            if output.ndim != sample.ndim or output.shape[1] != 2 * channels:
                raise InputError(
                    f"the model's output has shape {tuple(output.shape)} and the sample "
                    f"{tuple(sample.shape)}: this pipeline cannot be recorded"
                )
            learned_variance = output[:, channels:]
            output = output[:, :channels]
        self.shape = sample.shape
        following = self.call + 1
        first_order = following >= len(table.calls) or bool(table.calls[following] >= 0)
        self.event = StepEvent(table, row, sample, output, scheduler, first_order)
        changed = self.listener.before_step(self.event)
        if changed is not None:
            self.event = self.event.replaced(changed)
        if self.edited is not None:
            renew_history(self.event, self.edited)
        if changed is None:
            return args, kwargs
        if learned_variance is not None:
            import torch

            changed = torch.cat([changed, learned_variance], dim=1)
        return self._with_argument("model_output", changed, args, kwargs)

    def _after(self, scheduler: Any, table: StepTable, output: Any) -> Any:
        event = self.event
        assert event is not None
        self.event = None
        following = event.step + 1
        changed = self.listener.after_step(event, output[0])
        if changed is None:
            return output
        if following < table.steps and not table.editable[following]:
            allowed = [int(k) for k in table.editable.nonzero()[0] if k]
            raise InputError(
                f"{table.scheduler_class} does not allow the sample entering step {following} to "
                f"be changed; it allows it at steps {allowed}"
            )
        self.edited = changed != output[0]
        if isinstance(output, tuple):
            return (changed, *output[1:])
        output.prev_sample = changed
        return output

    def _argument(self, name: str, args: Any, kwargs: Any) -> Any:
        if name in kwargs:
            return kwargs[name]
        position = self.position[name]
        return args[position] if position < len(args) else None

    def _with_argument(self, name: str, value: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
        if name in kwargs:
            return args, {**kwargs, name: value}
        position = self.position[name]
        return (*args[:position], value, *args[position + 1 :]), kwargs


def forget_edit(scheduler: Any) -> None:
    """Let a solver that was put back whole keep its history: the sample it meets was not edited.

    To be called by a listener before the step is taken, where it gave back both the sample and the
    solver's state of an earlier call.
    """
    stream: _Stream | None = getattr(type(scheduler), "_asced_stream", None)
    if stream is not None:
        stream.edited = None


def _tapped_class(plain: type, stream: _Stream) -> type:
    """A subclass of the same name that tells the stream what happens."""
    plain_step: Callable[..., Any] = plain.step  # type: ignore[attr-defined]
    plain_set: Callable[..., Any] = plain.set_timesteps  # type: ignore[attr-defined]

    @functools.wraps(plain_set)
    def set_timesteps(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = plain_set(self, *args, **kwargs)
        if stream.active:
            stream.rewind()
        return result

    @functools.wraps(plain_step)
    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not stream.active:
            return plain_step(self, *args, **kwargs)
        if not stream.tap.within():
            stream.tap.outside += 1
            return plain_step(self, *args, **kwargs)
        return stream.step(self, plain_step, args, kwargs)

    def correct(method: Callable[..., Any]) -> Callable[..., Any]:
        # A solver's corrector goes on from the sample before an edit, and would undo it.
        @functools.wraps(method)
        def corrected(self: Any, *args: Any, **kwargs: Any) -> Any:
            result = method(self, *args, **kwargs)
            if stream.edited is None or not stream.active:
                return result
            return kwargs["this_sample"].where(stream.edited, result)

        return corrected

    def deep_copy(self: Any, memo: dict[int, Any]) -> Any:
        # A copy made in a call keeps telling the same stream: some pipelines sample with a copy.
        told = stream.active and stream.tap.within()
        twin: Any = object.__new__(type(self) if told else plain)
        if told:
            stream.copies.append(weakref.ref(twin))
        memo[id(self)] = twin
        twin.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return twin

    def new(cls: type, *args: Any, **kwargs: Any) -> Any:
        # What is made anew, by from_config, is a plain scheduler.
        return plain(*args, **kwargs)

    def reduce(self: Any, protocol: Any) -> Any:
        # What is pickled is the plain scheduler.
        return _blank, (plain,), self.__dict__.copy()

    correctors = {
        name: correct(getattr(plain, name)) for name in CORRECTORS if hasattr(plain, name)
    }
    return type(
        plain.__name__,
        (plain,),
        {
            **correctors,
            "__module__": plain.__module__,
            "__qualname__": plain.__qualname__,
            "__doc__": plain.__doc__,
            "_asced_stream": stream,
            "set_timesteps": set_timesteps,
            "step": step,
            "__deepcopy__": deep_copy,
            "__new__": new,
            "__reduce_ex__": reduce,
        },
    )


def _blank(plain: type) -> Any:
    """An instance without a state, which unpickling fills."""
    return object.__new__(plain)


def _schedulers(pipeline_or_scheduler: Any) -> Iterator[Any]:
    """Every scheduler of a pipeline that takes steps, or the scheduler itself."""
    if hasattr(pipeline_or_scheduler, "set_timesteps"):
        yield pipeline_or_scheduler
        return
    components = getattr(pipeline_or_scheduler, "components", {})
    seen: list[int] = []
    for name, component in components.items():
        if not name.endswith("scheduler") or component is None or name == "low_res_scheduler":
            continue
        if id(component) not in seen:
            seen.append(id(component))
            yield component
    if not seen:
        raise InputError(
            f"{type(pipeline_or_scheduler).__name__} has no scheduler to listen to; record its "
            "loop with Recorder.custom"
        )
