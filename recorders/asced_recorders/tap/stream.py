"""One scheduler's run, call by call: what the listeners are told, and what they may change."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from asced_recorders.tap.events import ListenerChain, StepEvent, TapListener
from asced_recorders.tap.schedulers import StepTable, begin_index, step_table
from asced_recorders.tap.solver_history import renew_history
from asced_stores.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


class Listening:
    """Who listens to schedulers, and when: what a tap's streams know of it.

    Parameters
    ----------
    listener : TapListener
    whole_schedule : bool
    within : callable, optional
        See `asced_recorders.tap.tap.Tap`.

    Attributes
    ----------
    outside : int
        Steps that were taken outside a call.
    """

    def __init__(
        self,
        listener: TapListener,
        *,
        whole_schedule: bool = False,
        within: Callable[[], bool] | None = None,
    ) -> None:
        self.listener = listener
        self.whole_schedule = whole_schedule
        self.by_call = within is not None
        self.within = within or (lambda: True)
        self.outside = 0


def step_arguments(kind: type) -> list[str]:
    """Names of what a scheduler's ``step`` takes, in order.

    Of one that passes on ``*args`` and ``**kwargs``, those of the class that it derives from too.
    """
    passed_on = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    names: list[str] = []
    for each in kind.__mro__:
        if "step" not in vars(each):
            continue
        taken = list(inspect.signature(vars(each)["step"]).parameters.values())[1:]
        own = [one.name for one in taken if one.kind not in passed_on]
        names += own[len(names) :] if own[: len(names)] == names else []
        if len(own) == len(taken):
            break
    return names


class Stream:
    """One scheduler's run: counts calls, tells the listener, applies what it changes."""

    def __init__(self, scheduler: Any, tap: Listening) -> None:
        self.owner = scheduler
        self.copies: list[weakref.ref[Any]] = []
        self.plain = type(scheduler)
        self.tap = tap
        self.listener = tap.listener
        self.whole_schedule = tap.whole_schedule
        self.taps = [tap]
        self.active = True
        self.rewind()
        self.position = {name: i for i, name in enumerate(step_arguments(self.plain))}

    def join(self, tap: Listening) -> None:
        """Let another tap's listener be told as well: it sees what the ones before it changed."""
        self.taps.append(tap)
        self.listener = ListenerChain(*(one.listener for one in self.taps))

    def leave(self, tap: Listening) -> None:
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
        self.returned: tuple[Tensor, int] | None = None

    def step(self, scheduler: Any, real: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Stand in for ``scheduler.step``."""
        timestep = self._argument("timestep", args, kwargs)
        if scheduler is not self.walker and self._is_beside(args, kwargs):
            return real(scheduler, *args, **kwargs)
        self.listener.calling(True)
        try:
            return self._step(scheduler, real, timestep, args, kwargs)
        finally:
            self.listener.calling(False)

    def _step(
        self, scheduler: Any, real: Callable[..., Any], timestep: Any, args: Any, kwargs: Any
    ) -> Any:
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
        self.returned = output[0], _writes(output[0])
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
        self.returned = None
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
        told = self._argument("per_token_timesteps", args, kwargs)
        held = None if told is None else _held(told, table.timestep[row])
        learned_variance = None
        if held is not None:
            output = output.neg().masked_fill(held, 0)
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
        self.event.changed = self._changed(sample)
        changed = self.listener.before_step(self.event)
        if changed is not None:
            self.event = self.event.replaced(changed)
        if self.edited is not None:
            renew_history(self.event, self.edited)
        if changed is None:
            return args, kwargs
        if held is not None:
            changed = changed.neg().where(~held, self._argument("model_output", args, kwargs))
        if learned_variance is not None:
            import torch

            changed = torch.cat([changed, learned_variance], dim=1)
        return self._with_argument("model_output", changed, args, kwargs)

    def _changed(self, sample: Tensor) -> bool | Tensor:
        """Whether a loop goes on with another sample than it was given, as inpainting does."""
        if self.returned is None:
            return False
        given, writes = self.returned
        if sample is given:
            return _writes(given) != writes
        if sample.shape != given.shape or _writes(given) != writes:
            return True
        given = given.to(sample)
        both = given.isnan() & sample.isnan()  # a failed run that goes on as it was
        return ((given != sample) & ~both).any()  # not waited for: a device says it later

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
        position = self.position.get(name, len(args))
        return args[position] if position < len(args) else None

    def _with_argument(self, name: str, value: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
        if name in kwargs:
            return args, {**kwargs, name: value}
        position = self.position[name]
        return (*args[:position], value, *args[position + 1 :]), kwargs


def _writes(tensor: Tensor) -> int:
    """How often a tensor was written to; inference mode does not count."""
    return 0 if tensor.is_inference() else int(tensor._version)


def _held(told: Tensor, timestep: float) -> Tensor:
    """Tokens (run, token, 1) that are cleaner than the step's level: the pipeline holds them.

    Where tokens are told timesteps of their own, diffusers' flow scheduler takes the velocity
    negated. That of a held token is none: it stays as it is, and its predicted x0 is the token.
    """
    return (told < timestep * (1 - 1e-5))[..., None]


def forget_edit(scheduler: Any) -> None:
    """Let a solver that was put back whole keep its history: the sample it meets was not edited.

    To be called by a listener before the step is taken, where it gave back both the sample and the
    solver's state of an earlier call.
    """
    stream: Stream | None = getattr(type(scheduler), "_asced_stream", None)
    if stream is not None:
        stream.edited = None
