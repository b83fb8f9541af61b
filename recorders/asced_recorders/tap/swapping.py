"""A scheduler's class, swapped for one of the same name that tells a stream what happens."""

from __future__ import annotations

import copy
import functools
import weakref
from collections.abc import Callable
from typing import Any

from asced_recorders.tap.stream import Listening, Stream

CORRECTORS = ("multistep_uni_c_bh_update", "stochastic_adams_moulton_update")


def swapped(scheduler: Any, tap: Listening) -> Stream:
    """Give a scheduler a class that tells a tap what happens; `Stream.leave` takes it back."""
    stream = Stream(scheduler, tap)
    scheduler.__class__ = tapped_class(stream.plain, stream)
    return stream


def tapped_class(plain: type, stream: Stream) -> type:
    """A subclass of the same name that tells the stream what happens."""
    plain_step: Callable[..., Any] = plain.step  # type: ignore[attr-defined]
    plain_set: Callable[..., Any] = plain.set_timesteps  # type: ignore[attr-defined]

    @functools.wraps(plain_set)
    def set_timesteps(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = plain_set(self, *args, **kwargs)
        if stream.active:
            stream.rewind()
            if self is stream.owner and stream.tap.within():
                stream.listener.scheduled(self)
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
            if stream.edited is None or not stream.active or self is not stream.walker:
                return result  # a copy walks the sound or the actions of a video beside it
            return kwargs["this_sample"].where(stream.edited, result)

        return corrected

    def deep_copy(self: Any, memo: dict[int, Any]) -> Any:
        # A copy made in a call keeps telling the same stream: some pipelines sample with a copy.
        told = stream.active and stream.tap.within()
        copied: Any = object.__new__(type(self) if told else plain)
        if told:
            stream.copies.append(weakref.ref(copied))
        memo[id(self)] = copied
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return copied

    def new(cls: type, *args: Any, **kwargs: Any) -> Any:
        # What is made anew, by from_config, is a plain scheduler.
        return plain(*args, **kwargs)

    def reduce(self: Any, protocol: Any) -> Any:
        # What is pickled is the plain scheduler.
        return _blank, (plain,), self.__dict__.copy()

    correctors = {
        name: correct(getattr(plain, name)) for name in CORRECTORS if hasattr(plain, name)
    }
    tapped: type = _kind_of(plain)(
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
    return tapped


def _kind_of(plain: Any) -> Any:
    """A metaclass whose classes equal the plain one: some pipelines compare the type itself."""
    kind: Any = type(plain)

    def equal(self: Any, other: Any) -> bool:
        return other is self or other is plain

    return type(kind.__name__, (kind,), {"__eq__": equal, "__hash__": lambda self: hash(plain)})


def _blank(plain: type) -> Any:
    """An instance without a state, which unpickling fills."""
    return object.__new__(plain)
