"""Stop a pipeline's call after a step, and go on with some of its runs in another call.

Pipelines keep their samples where nobody can take rows out. So the second call is made for the
chosen runs alone; its networks answer with zeros, at no cost, until the step at which the first
one stopped; then samples, the solver's history and the generators are put back as they were. No
evaluation is made twice, whatever the solver remembers.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from asced_analysis.correction.replaced_networks import denoisers, replaced_forward
from asced_recorders.tap.tap import TapListener, forget_edit
from asced_stores.errors import InputError

if TYPE_CHECKING:
    from asced_recorders.tap.schedulers import StepTable
    from asced_recorders.tap.tap import StepEvent


class HaltedError(Exception):
    """The call was stopped on purpose: enough is known."""


@dataclass(frozen=True)
class Halt:
    """What a call left behind.

    Attributes
    ----------
    step : int
        Enters next.
    sample : Tensor, shape (run, ...)
        That enters it.
    solver : dict
        The scheduler's state.
    generators : list of Tensor
        States of the runs' generators.
    table : StepTable
    """

    step: int
    sample: Tensor
    solver: dict[str, Any]
    generators: list[Tensor]
    table: StepTable

    def only(self, rows: Sequence[int]) -> Halt:
        """Of some runs."""
        index = torch.as_tensor(list(rows))
        count = len(self.sample)
        return Halt(
            self.step,
            self.sample[index.to(self.sample.device)],
            {name: _rows(value, index, count) for name, value in self.solver.items()},
            [self.generators[row] for row in rows],
            self.table,
        )


class Halting(TapListener):
    """Passes steps on to a listener, and stops the call after one of them.

    Parameters
    ----------
    listener : TapListener
    generators : sequence of torch.Generator
        Of the runs.
    """

    def __init__(self, listener: TapListener, generators: Sequence[torch.Generator]) -> None:
        self.listener = listener
        self.generators = generators
        self.after: int | None = None
        self.halt: Halt | None = None
        self.table: StepTable | None = None

    def begin(self, table: StepTable) -> None:
        """Pass it on."""
        self.table = table
        self.listener.begin(table)

    def calling(self, inside: bool) -> None:
        """Pass it on."""
        self.listener.calling(inside)

    def before_step(self, event: StepEvent) -> Tensor | None:
        """Pass it on."""
        return self.listener.before_step(event)

    def after_step(self, event: StepEvent, next_sample: Tensor) -> Tensor | None:
        """Keep everything, and stop."""
        if event.step != self.after:
            return None
        assert self.table is not None
        self.halt = Halt(
            event.step + 1,
            next_sample.detach().clone(),
            _state(event.scheduler),
            [one.get_state() for one in self.generators],
            self.table,
        )
        raise HaltedError


class ContinuedCall(TapListener):
    """Puts back what a call left behind, once its step is reached.

    Parameters
    ----------
    halt : Halt
    generators : sequence of torch.Generator
        That the call was given; their states are set.
    """

    def __init__(self, halt: Halt, generators: Sequence[torch.Generator]) -> None:
        self.halt = halt
        self.generators = generators
        self.idle = True
        self.end: Tensor | None = None

    def before_step(self, event: StepEvent) -> Tensor | None:
        """Put the solver back before its first real step."""
        if event.step == self.halt.step:
            event.scheduler.__dict__.update(self.halt.solver)
            forget_edit(event.scheduler)
        return None

    def after_step(self, event: StepEvent, next_sample: Tensor) -> Tensor | None:
        """Put the samples back after the last idle step; keep the end."""
        if event.step + 1 != self.halt.step:
            if event.step + 1 == event.steps:
                self.end = next_sample
            return None
        if next_sample.shape != self.halt.sample.shape:
            raise InputError(
                f"the call has samples of shape {tuple(next_sample.shape)} where the one before "
                f"had {tuple(self.halt.sample.shape)}: give it the same size and options"
            )
        self.idle = False
        for generator, state in zip(self.generators, self.halt.generators, strict=True):
            generator.set_state(state)
        self.end = self.halt.sample.to(next_sample)
        return self.end


@contextmanager
def counting(pipe: Any, listener: ContinuedCall | None = None) -> Iterator[list[int]]:
    """Count evaluated rows of the sample's networks, and let them be idle while a listener is.

    Yields
    ------
    list of int
        Evaluations of one sample so far, as its only entry (doubled by guidance).
    """
    count = [0]
    with ExitStack() as stack:
        for part in denoisers(pipe):
            stack.enter_context(_watched(part, count, listener))
        yield count


@contextmanager
def _watched(
    network: torch.nn.Module, count: list[int], listener: ContinuedCall | None
) -> Iterator[None]:
    """The same for one network; it is left as it was."""
    real = network.forward
    shapes: Any = getattr(network, "_asced_answer", None)

    def forward(*args: Any, **kwargs: Any) -> Any:
        given = args[0] if args else next(v for v in kwargs.values() if isinstance(v, Tensor))
        if listener is not None and listener.idle and shapes is not None:
            return _zeros(shapes, len(given))
        answer = real(*args, **kwargs)
        count[0] += len(given)
        if listener is None:
            vars(network)["_asced_answer"] = _zeros(answer, 1)
        return answer

    try:
        with replaced_forward(network, forward):
            yield
    finally:
        if listener is not None:
            vars(network).pop("_asced_answer", None)


def _zeros(answer: Any, rows: int) -> Any:
    """An answer of the same kind for so many rows, of zeros."""
    if isinstance(answer, Tensor):
        return answer.new_zeros((rows, *answer.shape[1:]))
    if isinstance(answer, (list, tuple)):
        return type(answer)(_zeros(one, rows) for one in answer)
    if hasattr(answer, "keys"):
        return type(answer)(**{name: _zeros(answer[name], rows) for name in answer})
    return answer


def _state(scheduler: Any) -> dict[str, Any]:
    """Everything that a scheduler holds, but its configuration."""
    held = {name: value for name, value in vars(scheduler).items() if name != "_internal_dict"}
    try:
        return copy.deepcopy(held)
    except (TypeError, RuntimeError) as error:
        raise InputError(
            f"{type(scheduler).__name__} holds what cannot be kept while runs are chosen "
            f"({error}): choose another scheduler"
        ) from error


def _rows(value: Any, index: Tensor, count: int) -> Any:
    """Rows of the chosen runs of whatever holds one a run (twice, where a batch is doubled)."""
    if isinstance(value, Tensor) and value.ndim > 1 and len(value) in (count, 2 * count):
        chosen = torch.cat([index + part for part in range(0, len(value), count)])
        return value[chosen.to(value.device)]
    if isinstance(value, (list, tuple)):
        return type(value)(_rows(one, index, count) for one in value)
    return value
