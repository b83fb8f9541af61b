"""Pruning: draw several, look early, finish the most promising of each prompt."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asced_analysis.correction.detecting import (
    ActivationListener,
    LoopDetector,
    Network,
    watched_modules,
)
from asced_analysis.correction.halting import ContinuedCall, HaltedError, Halting, counting
from asced_analysis.correction.layout_adapter import adapted_tap
from asced_analysis.correction.lookahead import pipeline_network
from asced_analysis.detection.registry import needs_network
from asced_recorders.pipelines.model_facts import skips_work
from asced_recorders.pipelines.sampling import (
    initial_noise,
    is_unconditional,
    run_generators,
    sample_unconditional,
)
from asced_stores.errors import InputError

if TYPE_CHECKING:
    from asced_analysis.thresholds import Thresholds
    from asced_recorders.tap.schedulers import StepTable
    from asced_recorders.tap.tap import StepEvent


@dataclass(frozen=True)
class Pruned:
    """What was delivered.

    Attributes
    ----------
    output : object
        As the pipeline returned it, of the finished runs; None for an unconditional model's loop.
    samples : Tensor, shape (run, [frame,] channel, y, x)
        The ends.
    seeds, group : int array, shape (run,)
        Of the finished runs: their seed, and which prompt, class or content they competed in.
    scores : float array, shape (drawn,)
        Of all that were drawn; the smaller, the more promising.
    chosen : int array, shape (run,)
        Which of these were finished.
    step : int
        Whose prediction was the last that was looked at.
    evaluations : float
        Of the network for a delivered run; guidance counts as one with what it guides.

    Examples
    --------
    >>> from asced_analysis.correction import Pruner
    >>> from asced_recorders import load_pipeline
    >>> pruner = Pruner.from_file("thresholds.json", draw=2, finish=1)
    >>> pruned = pruner.sample(load_pipeline("fashion"), groups=1, num_inference_steps=12)
    >>> len(pruned.chosen), pruned.evaluations < 24
    (1, True)
    """

    output: Any
    samples: Tensor
    seeds: NDArray[np.int64]
    group: NDArray[np.int64]
    scores: NDArray[np.float64]
    chosen: NDArray[np.int64]
    step: int
    evaluations: float

    def __repr__(self) -> str:
        """Short."""
        return (
            f"Pruned({len(self.chosen)} of {len(self.scores)} draws finished, chosen at step "
            f"{self.step}, {self.evaluations:.3g} evaluations a run)"
        )


class Pruner:
    """Draw some runs for each prompt, look early, and finish the most promising.

    Draws compete within their own prompt or class. Without either they compete within equal
    content: they are sorted by the brightness of predicted x0 and cut into groups of `draw`, so
    that pruning does not deliver simple images only.

    Parameters
    ----------
    thresholds : Thresholds
        Learnt from outcomes, or of any variant that scores runs: the smaller, the better.
    draw, finish : int
        Of each prompt, class or group.
    network : callable, optional
        For thresholds with a lookahead; the pipeline's own by default.

    Examples
    --------
    >>> from asced_analysis.correction import Pruner
    >>> from asced_recorders import load_pipeline
    >>> pruner = Pruner.from_file("thresholds.json", draw=3, finish=1)
    >>> pruned = pruner.sample(load_pipeline("fashion"), groups=2, num_inference_steps=12)
    >>> tuple(pruned.samples.shape), len(pruned.scores)
    ((2, 1, 32, 32), 6)
    """

    def __init__(
        self,
        thresholds: Thresholds,
        *,
        draw: int = 4,
        finish: int = 1,
        network: Network | None = None,
    ) -> None:
        if not 1 <= finish <= draw:
            raise InputError(f"{finish} of {draw} draws cannot be finished: give 1 to {draw}")
        self.thresholds = thresholds
        self.draw, self.finish = draw, finish
        self.network = network

    @classmethod
    def from_file(cls, path: str | Path, **options: Any) -> Pruner:
        """Read thresholds and make a pruner of them; options as for the class."""
        from asced_analysis.thresholds import Thresholds

        return cls(Thresholds.load(path), **options)

    def sample(self, pipe: Any, *, groups: int = 1, seed: int = 0, **call: Any) -> Pruned:
        """Draw, look, and finish.

        Parameters
        ----------
        pipe : DiffusionPipeline
            Called once for all draws, up to the step that thresholds look at last, and once for
            those that go on from there: what was computed is not computed again.
        groups : int
            How many groups to draw where the call has neither prompts nor classes; else their
            number.
        seed : int
            Of the first draw; the others' follow.
        **call
            Of the pipeline: ``prompt`` (one or several), ``class_labels``,
            ``num_inference_steps`` and so on; not ``generator`` and the number of images.

        Returns
        -------
        Pruned

        Raises
        ------
        InputError
            Where the call cannot be made so, or the sampler cannot be stopped and go on.
        """
        for name in ("generator", "latents", "num_images_per_prompt", "batch_size"):
            if name in call:
                raise InputError(
                    f"{name} is the pruner's own: give groups=, seed= and draw= instead"
                )
        content, groups = _conditions(call, groups)
        group = np.arange(groups * self.draw) // self.draw

        def sample(rows: NDArray[np.int64], generators: list[torch.Generator]) -> Any:
            return _run(pipe, generators, _for_rows(call, content, group[rows]))

        seeds = range(seed, seed + len(group))
        return self.prune(pipe, sample, seeds, group if content else None)

    def prune(
        self,
        pipe: Any,
        call: Callable[[NDArray[np.int64], list[torch.Generator]], Any],
        seeds: Sequence[int],
        group: NDArray[np.int64] | None = None,
    ) -> Pruned:
        """Do the same with a call of one's own, as `asced_recorders.record` does.

        Parameters
        ----------
        pipe : DiffusionPipeline
        call : callable
            ``call(rows, generators)`` samples draws of these numbers.
        seeds : sequence of int
            Of all draws; a multiple of `draw`.
        group : int array, shape (drawn,), optional
            Which prompt or class each belongs to; None: draws of equal content compete.

        Returns
        -------
        Pruned
        """
        if skips_work(pipe):
            raise InputError(
                "a network of this pipeline has a cache or a patched method, which remembers runs "
                "that pruning leaves: take it off"
            )
        count = len(seeds)
        look = _Look(self.thresholds, self._network(pipe))
        generators = run_generators(seeds)
        halting = _HaltingAtLook(look, generators)
        with (
            watched_modules(pipe, self.thresholds) as look.activations,
            counting(pipe) as evaluated,
            suppress(HaltedError),
            adapted_tap(pipe, halting),
        ):
            call(np.arange(count), generators)
        if halting.halt is None or look.scores is None:
            raise InputError(
                "the pipeline ended before the thresholds had seen enough: they look up to step "
                f"{look.last}; give more steps"
            )
        rows = _by_content(look.content, self.draw) if group is None else group
        chosen = _best(look.scores, rows, self.finish)
        generators = run_generators([seeds[row] for row in chosen])
        going_on = ContinuedCall(halting.halt.only(chosen.tolist()), generators)
        with counting(pipe, going_on) as evaluated_later, adapted_tap(pipe, going_on):
            output = call(chosen, generators)
        if going_on.end is None:
            raise InputError("the pipeline's second call did not come to its end")
        later = evaluated_later[0]
        steps, asked = halting.halt.table.steps, count * int(look.network is not None)
        doubled = max(1.0, evaluated[0] / (count * halting.halt.step))
        if later:
            doubled = later / (len(chosen) * (steps - halting.halt.step))
        return Pruned(
            output,
            going_on.end,
            np.asarray(seeds)[chosen],
            rows[chosen],
            look.scores,
            chosen,
            halting.halt.step - 1,
            (evaluated[0] + later) / doubled / len(chosen) + asked / len(chosen),
        )

    def facts(self) -> dict[str, Any]:
        """Say who chooses, for the store of what is recorded."""
        text = json.dumps(self.thresholds.to_dict(), sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()
        return {"variant": self.thresholds.variant, "thresholds_sha256": digest}

    def _network(self, pipe: Any) -> Network | None:
        if not needs_network(self.thresholds):
            return None
        return pipeline_network(pipe) if self.network is None else self.network


class _Look(ActivationListener):
    """Scores draws by what was predicted up to the thresholds' last step."""

    def __init__(self, thresholds: Thresholds, network: Network | None) -> None:
        self.thresholds, self.network = thresholds, network
        self.watch: LoopDetector | None = None
        self.started = False
        self.last = -1
        self.scores: NDArray[np.float64] | None = None
        self.content: NDArray[np.float64] = np.zeros(0)

    def begin(self, table: StepTable) -> None:
        """Make the detector for this schedule."""
        self.watch = LoopDetector(
            self.thresholds, table, self.network, activations=self.activations
        )
        self.last = self.watch.window[1]
        self.started = False

    def before_step(self, event: StepEvent) -> Tensor | None:
        """Take in a step; score at the last."""
        watch = self.watch
        assert watch is not None
        if not self.started:
            watch.start(event.sample)
            self.started = True
        if event.step <= self.last:
            watch.update(event)
        if event.step == self.last:
            self.scores = np.asarray(watch.result().scores, np.float64)
            self.content = event.x0.flatten(1).mean(1).double().cpu().numpy()
        return None


class _HaltingAtLook(Halting):
    """Stops right after the last step that is looked at."""

    def begin(self, table: StepTable) -> None:
        """Learn which step that is."""
        super().begin(table)
        assert isinstance(self.listener, _Look)
        self.after = self.listener.last


def _run(pipe: Any, generators: Sequence[torch.Generator], call: dict[str, Any]) -> Any:
    """Call a pipeline, or run our own loop where it fits."""
    if not is_unconditional(pipe):
        takes = inspect.signature(type(pipe).__call__).parameters
        if "batch_size" in takes:
            call = {**call, "batch_size": len(generators)}
        return pipe(generator=list(generators), **call)
    steps = int(call.get("num_inference_steps", 25))
    pipe.scheduler.set_timesteps(steps)
    labels = call.get("class_labels")
    sample_unconditional(
        pipe,
        x_init=initial_noise(pipe, list(generators)),
        steps=steps,
        generators=list(generators),
        labels=None if labels is None else torch.as_tensor(labels),
    )
    return None


def _conditions(call: dict[str, Any], groups: int) -> tuple[dict[str, list[Any]], int]:
    """What differs from group to group, by argument, and how many groups there are."""
    found: dict[str, list[Any]] = {}
    for name in ("prompt", "negative_prompt", "prompt_2", "class_labels"):
        value = call.get(name)
        if isinstance(value, (list, tuple)):
            found[name] = list(value)
        elif name in ("prompt", "class_labels") and value is not None:
            found[name] = [value]
    sizes = {len(value) for value in found.values()}
    if len(sizes) > 1:
        raise InputError(f"prompts and their like differ in number: {sorted(sizes)}")
    return found, sizes.pop() if sizes else groups


def _for_rows(
    call: dict[str, Any], content: dict[str, list[Any]], group: NDArray[np.int64]
) -> dict[str, Any]:
    """The call's arguments for runs of these groups."""
    return call | {name: [values[g] for g in group.tolist()] for name, values in content.items()}


def _by_content(content: NDArray[np.float64], draw: int) -> NDArray[np.int64]:
    """Groups of neighbours in content."""
    rank = np.argsort(np.argsort(content, kind="stable"), kind="stable")
    return np.asarray(rank // draw, np.int64)


def _best(scores: NDArray[np.float64], group: NDArray[np.int64], finish: int) -> NDArray[np.int64]:
    """The runs of the smallest scores in each group; NaN comes last."""
    order = np.lexsort((np.where(np.isnan(scores), np.inf, scores), group))
    place = np.arange(len(order)) - np.searchsorted(group[order], group[order])
    return np.asarray(order[place < finish], np.int64)
