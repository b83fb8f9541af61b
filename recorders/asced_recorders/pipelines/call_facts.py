"""What a pipeline was called with, as a store keeps it and gives it back.

`read_call` is the only reader of a call's arguments and `arguments_again` the only writer: a
recording, a resumed recording, a merge and a replay go by the same facts. In a store they are

- ``call``, an attribute: every argument of the first call that is not by run and can be kept;
- ``call_missing``, an attribute: names of those that were given and cannot be kept;
- ``arguments``, a number by run: what a later call, or one of its runs, had of its own (JSON);
- ``prompt, label, guidance_scale, seed``, by run.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from asced_stores.errors import InputError
from asced_stores.format.calls import CONDITIONS, HIDDEN, TEXT, call_differences

COPIES = ("num_images_per_prompt", "num_videos_per_prompt")
ELSEWHERE = frozenset({"generator", "class_labels", "state"})  # seeds, labels; modular's state
MOST_NUMBERS = 1024
_LEFT_OUT = object()


@dataclass(frozen=True)
class CallFacts:
    """Arguments of one call.

    Attributes
    ----------
    call : dict
        Those that can be kept, as JSON; without those that are None and need not be given.
    missing : tuple of str
        Names of those that cannot.
    text : dict
        Prompts of every kind but the first, one text a run where they differ.
    """

    call: dict[str, Any]
    missing: tuple[str, ...] = ()
    text: Mapping[str, list[str]] = field(default_factory=dict)

    def attributes(self) -> dict[str, Any]:
        """What a store says of its calls."""
        return {"call": self.call, "call_missing": list(self.missing)}


def read_call(
    arguments: Mapping[str, Any],
    *,
    prompts: bool = True,
    defaults: Mapping[str, Any] | None = None,
) -> CallFacts:
    """Read the arguments of a call, by name, into what a store can keep.

    Parameters
    ----------
    arguments : mapping
        Every argument by name, defaults filled in.
    prompts : bool
        Whether prompts may be kept; otherwise they are named as missing.
    defaults : mapping, optional
        What the call takes where it is told nothing: a None that stands in for another default is
        kept.
    """
    defaults = defaults or {}
    call: dict[str, Any] = {}
    missing: list[str] = []
    text: dict[str, list[str]] = {}
    for name, value in arguments.items():
        if name in ELSEWHERE:
            continue
        if value is None:
            if defaults.get(name) is not None:
                call[name] = None
            continue
        if TEXT.fullmatch(name):
            if not prompts:
                missing.append(name)
            elif isinstance(value, str):
                call[name] = value
            elif _is_texts(value):
                if name != "prompt" and len(set(value)) == 1:
                    call[name] = value[0]
                elif name != "prompt":
                    text[name] = list(value)
            else:
                missing.append(name)
            continue
        kept = to_json(value)
        if kept is _LEFT_OUT:
            missing.append(name)
        else:
            call[name] = kept
    return CallFacts(call, tuple(sorted(missing)), text)


def own_arguments(
    facts: CallFacts, runs: int, attributes: Mapping[str, Any] | None = None
) -> list[str]:
    """What each run of a call has of its own, beside the store's ``call``: JSON, or nothing.

    Parameters
    ----------
    facts : CallFacts
    runs : int
    attributes : mapping, optional
        Of the store, where it exists; by default this call is its first.

    Raises
    ------
    InputError
        If an argument differs that all calls of a store have in common.
    """
    first = facts.attributes() if attributes is None else attributes
    before: Mapping[str, Any] = first.get("call") or {}
    check_call(before, facts.call)
    names = [
        name
        for name in {**before, **facts.call}
        if TEXT.fullmatch(name) or CONDITIONS.fullmatch(name) or name in COPIES
    ]
    shared = {
        name: facts.call.get(name)
        for name in names
        if name != "prompt" and name not in facts.text and facts.call.get(name) != before.get(name)
    }
    if set(facts.missing) != set(first.get("call_missing") or ()):
        shared["call_missing"] = list(facts.missing)
    rows = [dict(shared) for _ in range(runs)]
    for name, values in facts.text.items():
        copies = runs // len(values) if runs % len(values) == 0 else 1
        for row, value in zip(rows, [v for v in values for _ in range(copies)], strict=False):
            row[name] = value
    return [json.dumps(row, sort_keys=True, ensure_ascii=False) if row else "" for row in rows]


def check_call(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse a call that differs where all calls of a store agree.

    Raises
    ------
    InputError
        That names what differs.
    """
    differing = call_differences(before, now, by_run=True)
    if differing:
        raise InputError(
            f"this call differs from those before it in the store ({'; '.join(differing)}): one "
            "store holds one way of sampling; record it to another store"
        )


def arguments_again(
    attributes: Mapping[str, Any], scalars: Mapping[str, Sequence[Any]], runs: int
) -> tuple[dict[str, Any], list[str]]:
    """Arguments with which a recorded batch was called, but for its generators.

    Parameters
    ----------
    attributes : mapping
        Of the store: ``call`` and ``call_missing``.
    scalars : mapping
        Numbers by run: ``prompt``, ``label``, ``guidance_scale``, ``arguments``.
    runs : int
        In the batch.

    Returns
    -------
    arguments : dict
        By name. Whatever was None is not among them.
    missing : list of str
        Names of those that the store does not hold.
    """
    call = dict(attributes.get("call") or {})
    missing = list(attributes.get("call_missing") or ())
    own = [json.loads(str(text)) if str(text) else {} for text in scalars.get("arguments", ())]
    own = own or [{} for _ in range(runs)]
    for name in own[0]:
        if name == "call_missing":
            missing = list(own[0][name])
        elif not TEXT.fullmatch(name):
            call[name] = own[0][name]
    found = {name: from_json(value) for name, value in call.items()}
    copies = math.prod(int(found.get(name) or 1) for name in COPIES)
    prompts = [str(prompt) for prompt in scalars.get("prompt", ())]
    prompts = [prompt for prompt in prompts if not prompt.startswith(HIDDEN)]
    single = isinstance(call.get("prompt"), str) and runs == copies
    texts = {name for row in own for name in row if TEXT.fullmatch(name)}
    texts |= {name for name in call if TEXT.fullmatch(name) and name != "prompt"}
    for name in texts:
        values = [row.get(name, call.get(name)) for row in own][::copies]
        if all(value is None for value in values):
            found[name] = None
            continue
        values = ["" if value is None else value for value in values]
        alike = len(set(values)) == 1
        found[name] = values[0] if single or (alike and not any(prompts)) else values
    if any(prompts) or call.get("prompt") is not None:
        found["prompt"] = prompts[0] if single else prompts[::copies]
    labels = [int(label) for label in scalars.get("label", ())]
    if labels and min(labels) >= 0:
        found["class_labels"] = labels[::copies]
    if "batch_size" in found:
        found["batch_size"] = runs
    scale = np.asarray(scalars.get("guidance_scale", ()), np.float64).reshape(-1)
    if isinstance(call.get("guidance_scale"), (int, float)) and len(scale) and scale[0] == scale[0]:
        found["guidance_scale"] = float(scale[0])
    return found, missing


def to_json(value: Any, /) -> Any:
    """A value as JSON that `from_json` turns back, or a mark that it cannot be kept."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, str):
        return _LEFT_OUT if _is_path(value) else value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, np.generic):
        return to_json(value.item())
    if isinstance(value, np.ndarray):
        return _numbers("array", value, str(value.dtype))
    if hasattr(value, "detach") and hasattr(value, "dtype"):
        if value.numel() > MOST_NUMBERS:
            return _LEFT_OUT
        name = str(value.dtype).removeprefix("torch.")
        value = value.detach().to("cpu")
        if value.is_floating_point():
            value = value.double()
        return _numbers("tensor", value.numpy(), name)
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            return _LEFT_OUT
        found = {key: to_json(each) for key, each in value.items()}
        return _LEFT_OUT if any(each is _LEFT_OUT for each in found.values()) else found
    if isinstance(value, (list, tuple)):
        row = [to_json(each) for each in value]
        if any(each is _LEFT_OUT for each in row):
            return _LEFT_OUT
        return {"tuple": row} if isinstance(value, tuple) else row
    return _LEFT_OUT


def from_json(value: Any, /) -> Any:
    """Inverse of `to_json`: tuples, arrays and tensors as they were."""
    if isinstance(value, list):
        return [from_json(each) for each in value]
    if not isinstance(value, Mapping):
        return value
    if set(value) == {"tuple"}:
        return tuple(from_json(each) for each in value["tuple"])
    if set(value) == {"float"}:
        return float(value["float"])
    if set(value) == {"array", "dtype"}:
        return np.asarray(from_json(value["array"]), value["dtype"])
    if set(value) == {"tensor", "dtype"}:
        import torch

        return torch.tensor(from_json(value["tensor"]), dtype=getattr(torch, value["dtype"]))
    return {key: from_json(each) for key, each in value.items()}


def _numbers(kind: str, array: np.ndarray[Any, Any], dtype: str) -> Any:
    if array.size > MOST_NUMBERS or array.dtype.kind not in "biuf":
        return _LEFT_OUT
    return {kind: to_json(array.tolist()), "dtype": dtype}


def _is_texts(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and bool(value)
        and all(isinstance(each, str) for each in value)
    )


def _is_path(text: str) -> bool:
    """Whether a text names a file of this machine, which is nobody's affair."""
    return text.startswith(("/", "~", "\\")) and (os.sep in text[1:] or "\\" in text[1:])
