"""Pipelines whose samples are packed, doubled or channel-first video while they run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from asced_recorders.pipelines.calls import CallWatch, with_guidance
from asced_recorders.tap.layout_choice import layout_of
from asced_recorders.tap.layouts import Layout, as_stepped
from asced_recorders.tap.tap import StepEvent, Tap, TapListener

if TYPE_CHECKING:
    from torch import Tensor

    from asced_recorders.tap.schedulers import StepTable


class LayoutAdapter(TapListener):
    """Shows a listener samples in the recorded order, and brings back what it changes.

    Parameters
    ----------
    listener : TapListener
        Knows samples of shape (run, [frame,] channel, y, x) only.
    layout : Layout
        Of the pipeline that is listened to.
    """

    def __init__(self, listener: TapListener, layout: Layout) -> None:
        self.listener = listener
        self.layout = layout
        self.event: StepEvent | None = None
        self.shape: Sequence[int] = ()

    def scheduled(self, scheduler: Any) -> None:
        """Pass it on."""
        self.listener.scheduled(scheduler)

    def begin(self, table: StepTable) -> None:
        """Pass it on."""
        self.listener.begin(table)

    def calling(self, inside: bool) -> None:
        """Pass it on."""
        self.listener.calling(inside)

    def before_step(self, event: StepEvent) -> Tensor | None:
        """Show the step; a changed model output is brought back to the pipeline's order."""
        self.shape = event.sample.shape
        shown = StepEvent(
            event.table,
            event.step,
            self.layout.rearrange(event.sample),
            self.layout.rearrange(event.model_output),
            event.scheduler,
            event.first_order,
        )
        changed = self.listener.before_step(shown)
        self.event = shown if changed is None else shown.replaced(changed)
        return None if changed is None else self.layout.restore(changed, event.model_output)

    def after_step(self, event: StepEvent, next_sample: Tensor) -> Tensor | None:
        """Show the next sample; a changed one is brought back to the pipeline's order."""
        assert self.event is not None
        changed = self.listener.after_step(self.event, self.layout.rearrange(next_sample))
        return None if changed is None else self.layout.restore(changed, next_sample)

    def rearranged(self, sample: Tensor) -> Tensor | None:
        """What a loop goes on with, in the recorded order; None where it is another thing."""
        found = as_stepped(sample, self.shape)
        return None if found is None else self.layout.rearrange(found)

    def correction(self) -> dict[str, Any] | None:
        """Pass it on."""
        return self.listener.correction()

    def corrected(self) -> dict[str, Any]:
        """Pass it on."""
        return self.listener.corrected()


@contextmanager
def adapted_tap(
    pipeline: Any,
    listener: TapListener,
    called: Callable[[dict[str, Any]], None] | None = None,
    arguments: dict[str, Any] | None = None,
) -> Iterator[LayoutAdapter]:
    """Attach a listener to a pipeline, or to a scheduler, whatever its samples look like.

    How latents are packed and DiT doubles its samples depends on the call, which is watched; so is
    a scheduler that the pipeline was given meanwhile. `called` is told the call's arguments. Those
    of a call that goes on already are given.
    """
    if not hasattr(pipeline, "components"):
        with Tap(pipeline, listener):
            yield LayoutAdapter(listener, Layout())
        return
    adapter = LayoutAdapter(listener, layout_of(pipeline, {}))
    tap = Tap(pipeline, adapter)

    def before(arguments: dict[str, Any]) -> None:
        tap.follow()
        adapter.layout = layout_of(pipeline, arguments)
        if called is not None:
            called(with_guidance(pipeline, arguments))

    if arguments is not None:
        with tap:
            before(arguments)
            yield adapter
        return
    with tap, CallWatch(pipeline, before, lambda *_: None, lambda: None):
        yield adapter
