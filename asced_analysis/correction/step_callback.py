"""A corrector as ``callback_on_step_end``, for those who can't write a ``with``.

What such a callback is shown is the sample after each step: neither what the network said, nor the
sample of the first step, nor what a solver remembers. So the callback says which calls are to be
corrected, and the corrector listens to their scheduler as it does inside a ``with``.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from asced_recorders.pipelines.calls import CallWatch, call_parameters
from asced_stores.errors import InputError

NAME = "callback_on_step_end"


class StepCallback:
    """Corrects the calls of a pipeline that it is given to, and no others.

    Once nothing refers to it any more, the pipeline is as it was.

    Parameters
    ----------
    attach : callable
        `Corrector.attach`.
    pipeline : DiffusionPipeline
        The one that is to be called.

    Raises
    ------
    InputError
        If the pipeline takes no callback; in a call, if the callback was given in a way in which it
        could not be seen when the call began.
    """

    tensor_inputs = ("latents",)  # in a container of diffusers' own callbacks

    def __init__(self, attach: Callable[..., AbstractContextManager[Any]], pipeline: Any) -> None:
        if NAME not in call_parameters(pipeline):
            raise InputError(
                f"{type(pipeline).__name__} takes no {NAME}: use `with corrector.attach(pipe):`, "
                "or the block AscedCorrect in a modular pipeline"
            )
        self._attach = attach
        self._attached: ExitStack | None = None
        _watch(weakref.ref(self), pipeline)
        weakref.finalize(self, _leave, pipeline, type(pipeline))

    def __call__(
        self, pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]
    ) -> dict[str, Any]:
        """Take note of a step; what was edited is in the tensors already."""
        if self._attached is None:
            raise InputError(
                f"the call began without this callback: hand it over itself ({NAME}="
                "corrector.callback(pipe), or in diffusers' MultiPipelineCallbacks), not inside "
                "another function, and to the pipeline that it was made for"
            )
        return tensors

    def begin(self, pipeline: Any, arguments: dict[str, Any]) -> None:
        """Listen to a call that is about to begin, if this callback was given to it."""
        if not _holds(arguments.get(NAME), self):
            return
        others = {name: value for name, value in arguments.items() if name != NAME}  # no circle
        with ExitStack() as stack:
            stack.enter_context(self._attach(pipeline, others))
            self._attached = stack.pop_all()

    def end(self) -> None:
        """Leave the pipeline's schedulers as they were."""
        attached, self._attached = self._attached, None
        if attached is not None:
            attached.close()


def _watch(callback: weakref.ref[StepCallback], pipeline: Any) -> None:
    """Watch a pipeline's calls without keeping the callback."""

    def before(arguments: dict[str, Any]) -> None:
        known = callback()
        if known is not None:
            known.begin(pipeline, arguments)

    def over(*_: Any) -> None:
        known = callback()
        if known is not None:
            known.end()

    CallWatch(pipeline, before, over, over).__enter__()


def _leave(pipeline: Any, watched: type) -> None:
    """Give a pipeline its class back, once those who came after us have left."""
    watched._asced_left = True  # type: ignore[attr-defined]
    while vars(type(pipeline)).get("_asced_left"):
        pipeline.__class__ = type(pipeline).__bases__[0]


def _holds(given: Any, callback: StepCallback) -> bool:
    """Whether a callback is ours, or a container that holds it."""
    return given is callback or any(
        _holds(each, callback) for each in getattr(given, "callbacks", ())
    )
