"""The pipeline and the conditions under which a store was recorded, set up again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from asced_recorders.pipelines.fingerprint import model_fingerprint
from asced_recorders.pipelines.loading import is_function, load_pipeline
from asced_recorders.pipelines.model_facts import adapter_scales, compute_facts
from asced_recorders.pipelines.networks import copied_pipeline
from asced_recorders.pipelines.provenance import execution_device, public_config
from asced_recorders.pipelines.scheduler_names import recorded_scheduler
from asced_stores.errors import InputError
from asced_stores.format.recorded_loops import is_loop_recording

NOT_IN_JSON = ("inf", "-inf", "nan")  # recorded as text: DPM++ clips log-SNR at -inf


def matching_pipeline(attributes: Mapping[str, Any], pipeline: Any = None) -> Any:
    """Load the pipeline of a store, or check the one that is given.

    Parameters
    ----------
    attributes : mapping
        Of the recorded store.
    pipeline : DiffusionPipeline, str or Path, optional
        A pipeline, or a name or folder to load; by default the name in the store.

    Returns
    -------
    DiffusionPipeline
        With a scheduler of the recorded class and configuration.

    Raises
    ------
    InputError
        When the model's fingerprint differs from the recorded one, or nothing names a pipeline that
        can be loaded.
    """
    pipe = pipeline
    if pipe is None:
        pipe = _named_pipeline(attributes)
    elif isinstance(pipe, (str, Path)):
        pipe = load_pipeline(pipe, dtype=_precision(attributes))
    recorded, found = attributes.get("model_fingerprint"), model_fingerprint(pipe)
    if recorded is not None and found != recorded:
        raise InputError(
            f"this is another model than the one that was recorded: fingerprint {found[:19]}... "
            f"where the store has {str(recorded)[:19]}...; "
            + (other_adapters(attributes, pipe) or "give the recorded one (--pipeline)")
        )
    return with_guider(with_scheduler(pipe, attributes), attributes)


def other_adapters(attributes: Mapping[str, Any], pipe: Any) -> str | None:
    """How a pipeline's adapters differ from the recorded ones, and what to do; None where not."""
    recorded, here = attributes.get("adapters") or {}, adapter_scales(pipe)
    if recorded == here:
        return None
    wanted = {name: scale for scales in recorded.values() for name, scale in scales.items()}
    there = {name for scales in here.values() for name in scales}
    if absent := sorted(set(wanted) - there):
        do = (
            f"load {', '.join(absent)} (pipe.load_lora_weights, then pipe.set_adapters), in a "
            "function of yours for --pipeline module:function"
        )
    elif wanted:
        do = f"call pipe.set_adapters({list(wanted)}, {list(wanted.values())})"
    else:
        do = "call pipe.disable_lora(), or unload them"
    return f"it was recorded with {_scales(recorded)}, and this one has {_scales(here)}: {do}"


def _scales(adapters: Mapping[str, Mapping[str, float]]) -> str:
    """Adapters by network, for people."""
    found = [
        f"{name} at {scale:g} in {network}"
        for network, scales in adapters.items()
        for name, scale in scales.items()
    ]
    return f"adapters {', '.join(found)}" if found else "no adapters"


def _precision(attributes: Mapping[str, Any]) -> str | None:
    """Precision to load a model in, where it was not recorded in its own."""
    recorded = attributes.get("model_dtype")
    return None if recorded in (None, "float32") else str(recorded)


def _named_pipeline(attributes: Mapping[str, Any]) -> Any:
    """Load the pipeline that a store names; of a local one, only a name is known."""
    name = str(attributes.get("pipeline") or "")
    if is_loop_recording(attributes):
        raise InputError(
            "the store was recorded from a sampling loop of one's own, which it does not hold: "
            "give it with --loop FILE.py:FUNCTION (in code: loop=...)"
        )
    if is_function(name):  # code is run where somebody asks for it, not because a store names it
        raise InputError(
            f"the store was recorded from what {name} made: give that again (--pipeline {name})"
        )
    if not name:
        raise InputError(
            "the store does not name the pipeline it was recorded from; give it (--pipeline)"
        )
    try:
        return load_pipeline(name, dtype=_precision(attributes))
    except InputError as error:
        if "/" in name:  # on the hub: what went wrong there is the news
            raise
        raise InputError(
            f"the store was recorded from a pipeline of one's own, called {name!r}: where that "
            "lies is not recorded; give it with --pipeline FOLDER (in code: pipeline=...)"
        ) from error


def with_scheduler(pipe: Any, attributes: Mapping[str, Any]) -> Any:
    """Return the pipeline with the recorded scheduler; the one given keeps its own.

    It is the very one where its scheduler is the recorded one: callbacks and caches may hold it.
    """
    name = attributes.get("scheduler_class")
    if not name or _has_scheduler(pipe, attributes):
        return pipe
    copied = copied_pipeline(pipe, "scheduler")
    config = dict(attributes.get("scheduler_config") or {})
    config |= {key: float(value) for key, value in config.items() if value in NOT_IN_JSON}
    module = attributes.get("scheduler_module")
    copied.scheduler = recorded_scheduler(
        str(name), config, module=module, present=getattr(pipe, "scheduler", None)
    )
    return copied


def _has_scheduler(pipe: Any, attributes: Mapping[str, Any]) -> bool:
    """Whether a pipeline samples with the recorded scheduler, its configuration included."""
    present: Any = getattr(pipe, "scheduler", None)
    kind = type(present)
    named = kind.__name__, attributes.get("scheduler_module", kind.__module__)
    return named == (attributes["scheduler_class"], kind.__module__) and (
        public_config(present.config) == attributes.get("scheduler_config")
    )


def with_guider(pipe: Any, attributes: Mapping[str, Any]) -> Any:
    """Return a modular pipeline with the recorded guidance; the one given keeps its own.

    Raises
    ------
    InputError
        Where guidance of another kind was recorded.
    """
    copied = pipe
    for name in ("guider", "guider_2"):
        recorded, guider = attributes.get(name), getattr(pipe, name, None)
        if not recorded or guider is None:
            continue
        config = {key: value for key, value in recorded.items() if key != "class"}
        now = {"class": type(guider).__name__, **public_config(guider.config)}
        if now == recorded:
            continue
        if now["class"] != recorded["class"]:
            raise InputError(
                f"the store was recorded with the {name} {recorded['class']}, and this pipeline "
                f"has {now['class']}: give it the recorded one (pipe.update_components({name}=...))"
            )
        copied = copied_pipeline(pipe, name) if copied is pipe else copied
        setattr(copied, name, guider.from_config({**guider.config, **config}))
    return copied


@contextmanager
def recorded_threads(attributes: Mapping[str, Any], threads: int | None = None) -> Iterator[None]:
    """Use as many torch threads as the recording did: results depend on them in the last bits.

    Parameters
    ----------
    attributes : mapping
        Of the recorded store.
    threads : int, optional
        Instead of the recorded number.
    """
    if threads is not None and threads < 1:
        raise InputError(f"threads is {threads}: expected at least 1")
    before = torch.get_num_threads()
    wanted = attributes.get("threads") if threads is None else threads
    try:
        if isinstance(wanted, int) and wanted > 0:
            torch.set_num_threads(wanted)
        yield
    finally:
        torch.set_num_threads(before)


def differences(
    attributes: Mapping[str, Any], pipe: Any, *, batch_size: int | None = None
) -> list[str]:
    """How this place differs from the recording's, as far as last bits may depend on it.

    Parameters
    ----------
    attributes : mapping
        Of the recorded store.
    pipe : DiffusionPipeline
    batch_size : int, optional
        Runs that are sampled together, where not those of the recorded batches.

    Returns
    -------
    list of str
        Empty where a replay is expected to be bit-exact.
    """
    found: list[str] = []
    versions = attributes.get("versions") or {}
    for name, here in (("torch", torch.__version__), ("diffusers", version("diffusers"))):
        if name in versions and versions[name] != here:
            found.append(f"{name} {here} instead of {versions[name]}")
    device, recorded = execution_device(pipe).type, attributes.get("device")
    if recorded is not None and recorded != device:
        found.append(f"device {device} instead of {recorded}")
    threads, used = attributes.get("threads"), torch.get_num_threads()
    if device == "cpu" and isinstance(threads, int) and threads != used:
        found.append(f"{used} threads instead of {threads}")
    if (computed := attributes.get("compute")) is not None and hasattr(pipe, "components"):
        found += _computes_otherwise(computed, compute_facts(pipe))
    if batch_size is not None:
        found.append(f"{batch_size} runs together instead of the recorded batches")
    return found


def _computes_otherwise(recorded: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Ways of computing that differ, by network; torch's own hooks mostly watch, and are left."""
    found = []
    for name in ("precision", "autocast", "attention", "compiled", "quantisation"):
        sides = [each.get(name) for each in (recorded, here)]
        by_network = any(isinstance(side, Mapping) for side in sides)
        parts = [(side or {}) if by_network else {"": side} for side in sides]
        for network in sorted({*parts[0], *parts[1]}):
            before, now = (_said(part.get(network)) for part in parts)
            if before != now:
                what = f"{name} of {network}" if network else name
                found.append(f"{what} {now} instead of {before}")
    return found


def _said(value: Any) -> str:
    return ", ".join(value) if isinstance(value, (list, tuple)) else str(value or "none")
