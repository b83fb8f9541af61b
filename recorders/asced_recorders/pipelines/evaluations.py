"""Which networks ran at a step, and whether in full, where caches may answer in their place."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Self

from asced_recorders.pipelines.model_facts import skips_work
from asced_recorders.pipelines.networks import denoisers, hook, rows_of

if TYPE_CHECKING:
    from torch import nn


class EvaluationWatch:
    """Counts what the leaves of a pipeline's networks compute, between one step and the next.

    A cache leaves blocks out, attention layers, or half of a doubled batch: then fewer rows go
    through the leaves than at the first step, for each row that the network is given. Nothing is
    hooked where there is no cache and no patched method. A pipeline that gives up guidance on its
    way changes both numbers alike. Of several networks of one class (the experts of Wan 2.2, of
    which one takes over from the other), it is noted which ran.

    Parameters
    ----------
    pipe : DiffusionPipeline or ModularPipeline
    """

    def __init__(self, pipe: Any) -> None:
        self.pipe = pipe
        self.watching = self.paused = False
        self._handles: list[Any] = []
        self._counters: list[_Counter] = []
        self._asked: set[str] = set()
        self._by_step: list[str] = []

    def __enter__(self) -> Self:
        self.watching = skips_work(self.pipe)
        self._asked, self._by_step = set(), []
        self.pause(False)
        found = denoisers(self.pipe)
        kinds = [type(part) for _, part in found]
        for name, module in found:
            if self.watching:
                self._counters.append(_Counter(module, self._handles))
            if kinds.count(type(module)) > 1:
                note = partial(self._note, name)
                self._handles.append(hook(module.register_forward_pre_hook, note))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles, self._counters = [], []

    def pause(self, inside: bool) -> None:
        """Pass over evaluations that are not the pipeline's own, or count them again."""
        self.paused = inside
        for counter in self._counters:
            counter.paused = inside

    def since(self) -> bool:
        """End a step: whether every network that was asked for it answered by computing."""
        self._by_step.append("+".join(sorted(self._asked)))
        self._asked = set()
        if not self.watching:
            return True
        answers = [counter.since() for counter in self._counters]
        asked = [answer for answer in answers if answer is not None]
        return bool(asked) and all(asked)

    def facts(self) -> dict[str, Any]:
        """Names of the networks by step, where one took over from another."""
        return {"networks_by_step": self._by_step} if len(set(self._by_step)) > 1 else {}

    def _note(self, name: str, *_: Any) -> None:
        if not self.paused:
            self._asked.add(name)


class _Counter:
    """Rows through the leaves of one network, for each row that goes into it."""

    def __init__(self, module: nn.Module, handles: list[Any]) -> None:
        self.paused = False
        self.inside = 0
        self.rows = 1
        self.full = 0.0
        self.shares: list[float] = []
        handles.append(hook(module.register_forward_pre_hook, self._begin, with_kwargs=True))
        handles.append(hook(module.register_forward_hook, self._end))
        handles += [
            hook(part.register_forward_pre_hook, self._leaf, with_kwargs=True)
            for part in module.modules()
            if part is not module and not list(part.children()) and list(part.parameters())
        ]

    def since(self) -> bool | None:
        """Whether all evaluations since the last time were whole; None where there was none."""
        shares, self.shares = self.shares, []
        self.full = max([self.full, *shares])
        return all(share >= self.full for share in shares) if shares else None

    def _begin(self, module: Any, args: Any, kwargs: Any) -> None:
        self.inside, self.rows = 0, max(1, rows_of(args, kwargs))

    def _leaf(self, module: Any, args: Any, kwargs: Any) -> None:
        self.inside += rows_of(args, kwargs)

    def _end(self, module: Any, args: Any, output: Any) -> None:
        if not self.paused:
            self.shares.append(self.inside / self.rows)
