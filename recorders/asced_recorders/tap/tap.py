"""The one place that hooks schedulers: see every step of a pipeline, and change it.

A scheduler's class is swapped for a subclass of the same name that overrides ``set_timesteps`` and
``step``. Patching the instance or wrapping it in a proxy is silently wrong: pipelines inspect the
signature of ``step`` to decide what to pass, and copies of a patched instance call the original's
step. The swap leaves outputs bit-identical.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Self

from asced_recorders.tap.events import ListenerChain, StepEvent, TapListener
from asced_recorders.tap.schedulers import scheduler_class
from asced_recorders.tap.stream import Listening, Stream, forget_edit
from asced_recorders.tap.swapping import swapped
from asced_stores.errors import InputError

__all__ = ["ListenerChain", "StepEvent", "Tap", "TapListener", "forget_edit"]


class Tap(Listening):
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
        super().__init__(listener, whole_schedule=whole_schedule, within=within)
        self.source = pipeline_or_scheduler
        self.schedulers = list(_schedulers(pipeline_or_scheduler))
        self._streams: list[Stream] = []

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

    def _stream(self, scheduler: Any) -> Stream:
        """A stream of a scheduler: its own, or that of a tap that listens already."""
        stream: Stream | None = getattr(type(scheduler), "_asced_stream", None)
        if stream is None:
            return swapped(scheduler, self)
        stream.join(self)  # a recorder and a corrector of one call
        return stream

    def __exit__(self, *_: object) -> None:
        for stream in self._streams:
            stream.leave(self)
        self._streams = []


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
