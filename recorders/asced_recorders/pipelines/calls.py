"""What a pipeline was called with: prompts, seeds and labels of its runs."""

from __future__ import annotations

import copy
import functools
import inspect
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from asced_recorders.pipelines.call_facts import COPIES
from asced_stores.errors import InputError
from asced_stores.format.calls import hidden_prompt

UNKNOWN_SEED = -1


class CallWatch:
    """Watches a pipeline's ``__call__`` by the same swap of class as the tap, and as briefly.

    Parameters
    ----------
    pipe : DiffusionPipeline
    before : callable
        ``before(arguments)`` with every argument by name; may return keywords to add.
    after : callable
        ``after(arguments, output)``.
    failed : callable
        Told that the call raised.
    """

    def __init__(
        self,
        pipe: Any,
        before: Callable[[dict[str, Any]], dict[str, Any] | None],
        after: Callable[[dict[str, Any], Any], None],
        failed: Callable[[], None],
    ) -> None:
        self.pipe = pipe
        self.plain = type(pipe)
        self.before, self.after, self.failed = before, after, failed
        self.depth = 0
        self.thread = 0

    def __enter__(self) -> Self:
        plain = self.plain
        real: Callable[..., Any] = plain.__call__
        watch = self

        @functools.wraps(real)
        def call(pipe: Any, *args: Any, **kwargs: Any) -> Any:
            if watch.depth and watch.thread != threading.get_ident():
                raise InputError(
                    f"another thread is sampling with this {plain.__name__}, whose scheduler holds "
                    "one run at a time: give each thread a pipeline of its own (deepcopy, or "
                    "from_pipe with its own scheduler), and a recorder each"
                )
            if watch.depth:  # a pipeline that calls itself
                return real(pipe, *args, **kwargs)
            watch.thread = threading.get_ident()
            arguments = bound_arguments(pipe, args, kwargs, real)
            more = watch.before(arguments) or {}
            watch.depth += 1
            try:
                output = real(pipe, *args, **{**kwargs, **more})
                watch.after(arguments, output)
            except BaseException:
                watch.failed()
                raise
            finally:
                watch.depth -= 1
            return output

        def deep_copy(pipe: Any, memo: dict[int, Any]) -> Any:
            copied: Any = object.__new__(plain)
            memo[id(pipe)] = copied
            copied.__dict__.update(copy.deepcopy(pipe.__dict__, memo))
            return copied

        def reduce(pipe: Any, protocol: Any) -> Any:
            return object.__new__, (plain,), pipe.__dict__.copy()

        own = {
            "__module__": plain.__module__,
            "__qualname__": plain.__qualname__,
            "__call__": call,
            "__deepcopy__": deep_copy,
            "__reduce_ex__": reduce,
        }
        self.pipe.__class__ = type(plain.__name__, (plain,), own)
        return self

    def __exit__(self, *_: object) -> None:
        self.pipe.__class__ = self.plain


def bound_arguments(pipe: Any, args: Any, kwargs: Any, call: Callable[..., Any]) -> dict[str, Any]:
    """Every argument of a call by name, defaults filled in.

    A modular pipeline's stand in its blocks, and in the state of a call that it goes on from.
    """
    if is_modular(pipe):
        state = kwargs.get("state", args[0] if args else None)
        known = {} if state is None else given(state)
        own = {name: value for name, value in kwargs.items() if name != "state"}
        return default_arguments(pipe) | known | own
    bound = inspect.signature(call).bind(pipe, *args, **kwargs)
    bound.apply_defaults()
    found = dict(bound.arguments)
    del found[next(iter(found))]  # the pipeline itself
    for parameter in inspect.signature(call).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            found |= found.pop(parameter.name, {})
    return found


def given(state: Any) -> dict[str, Any]:
    """What the state of a modular pipeline's call holds, by name."""
    return {name: value for name, value in state.values.items() if value is not None}


def is_modular(pipe: Any) -> bool:
    """Whether a pipeline is one of Modular Diffusers."""
    return hasattr(pipe, "default_call_parameters")


def call_parameters(pipe: Any) -> list[str]:
    """Names that a pipeline's call takes."""
    if is_modular(pipe):
        return [name for name in pipe.default_call_parameters if name is not None]
    return list(inspect.signature(type(pipe).__call__).parameters)[1:]


def default_arguments(pipe: Any) -> dict[str, Any]:
    """What a pipeline's call takes where it is told nothing."""
    if is_modular(pipe):
        return {name: v for name, v in pipe.default_call_parameters.items() if name is not None}
    parameters = inspect.signature(type(pipe).__call__).parameters
    empty = inspect.Parameter.empty
    return {name: p.default for name, p in parameters.items() if p.default is not empty}


def options_of_batch(options: Mapping[str, Any], batch: Any) -> dict[str, Any]:
    """Arguments for one batch: a function is asked for it, unless it is a callback of the call.

    Parameters
    ----------
    options : mapping
        Arguments by name.
    batch : object
        With ``runs``, the numbers of its runs.
    """
    return {
        name: value(batch) if callable(value) and not name.startswith("callback") else value
        for name, value in options.items()
    }


def expected_runs(arguments: dict[str, Any]) -> int | None:
    """How many runs a call makes; None where the arguments do not say."""
    copies = math.prod(int(arguments.get(name) or 1) for name in COPIES)
    for name in ("prompt", "class_labels"):
        value = arguments.get(name)
        if isinstance(value, (list, tuple)):
            return len(value) * copies
        if isinstance(value, (str, int)):
            return copies
    embeds = arguments.get("prompt_embeds")
    if hasattr(embeds, "shape"):
        return int(embeds.shape[0]) * copies  # type: ignore[union-attr]
    size = arguments.get("batch_size")
    return int(size) if isinstance(size, int) else None


def with_guidance(pipe: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A call's arguments, with ``guidance_scale`` where a modular pipeline's guider holds it."""
    scale = getattr(getattr(pipe, "guider", None), "guidance_scale", None)
    return ({} if scale is None else {"guidance_scale": scale}) | dict(arguments)


def run_facts(
    arguments: Mapping[str, Any],
    runs: int,
    seeds: Sequence[int],
    *,
    hidden: bytes | None = None,
) -> dict[str, Any]:
    """Seed, prompt, label and guidance of each run of a call.

    Parameters
    ----------
    arguments : mapping
        Of the call, by name (`with_guidance`).
    runs : int
        How many there were.
    seeds : sequence of int
        As `fresh_seeds` read them before the call.
    hidden : bytes, optional
        Key to hash prompts with that may not be kept.

    Returns
    -------
    dict
        Numbers by run, as a store takes them.
    """
    facts: dict[str, Any] = {"seed": spread_seeds(seeds, runs)}
    texts = _spread(arguments.get("prompt"), runs, "")
    facts["prompt"] = texts if hidden is None else [hidden_prompt(str(t), hidden) for t in texts]
    labels = arguments.get("class_labels")
    if labels is not None:
        facts["label"] = [int(v) for v in _spread(labels, runs, -1)]
    guidance = arguments.get("guidance_scale")
    if isinstance(guidance, (int, float)):
        facts["guidance_scale"] = float(guidance)
    return facts


def fresh_seeds(generator: Any, /) -> list[int]:
    """Seeds of a call's generators, read before it; -1 where one has been drawn from already.

    Parameters
    ----------
    generator : torch.Generator, sequence of them, or None
    """
    if generator is None:
        return []
    listed = list(generator) if isinstance(generator, (list, tuple)) else [generator]
    return [
        UNKNOWN_SEED if any(one is before for before in listed[:i]) else _fresh_seed(one)
        for i, one in enumerate(listed)
    ]


def spread_seeds(seeds: Sequence[int], runs: int) -> list[int]:
    """Seed of each run; -1 where it has no generator of its own."""
    return list(seeds) if len(seeds) == runs else [UNKNOWN_SEED] * runs


def _fresh_seed(generator: Any) -> int:
    """Seed of a generator whose state is that of a new one with this seed, else -1."""
    import torch

    if not isinstance(generator, torch.Generator):
        return UNKNOWN_SEED
    seed = int(generator.initial_seed())
    again = torch.Generator(generator.device)
    again.manual_seed(seed)
    fresh = seed < 1 << 63 and torch.equal(again.get_state(), generator.get_state())
    return seed if fresh else UNKNOWN_SEED


def _spread(value: Any, runs: int, missing: Any) -> list[Any]:
    """One value a run: a list is repeated image by image, as pipelines do."""
    if value is None:
        return [missing] * runs
    if isinstance(value, (str, int)):
        return [value] * runs
    values = [value_ if isinstance(value_, (str, int)) else missing for value_ in list(value)]
    if not values or runs % len(values):
        return [missing] * runs
    return [each for each in values for _ in range(runs // len(values))]
