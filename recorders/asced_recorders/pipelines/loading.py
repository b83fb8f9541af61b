"""Find a pipeline: an embedded model by name, a local folder, or a name on the hub."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from asced_recorders.pipelines.devices import available_devices, default_device
from asced_recorders.pipelines.networks import copied_pipeline
from asced_recorders.pipelines.options import PipelineOptions, SchedulerOptions
from asced_recorders.pipelines.scheduler_names import make_scheduler
from asced_stores.errors import InputError, nearest
from asced_stores.named_functions import named_function
from asced_stores.options import takes

MODELS = Path(__file__).parents[1] / "models"
FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
CLASSIC, MODULAR = "model_index.json", "modular_model_index.json"


def embedded_models() -> list[str]:
    """Names of the models inside this package."""
    return sorted(path.parent.name for path in MODELS.glob("*/model_index.json"))


@takes(PipelineOptions)
def load_pipeline(name_or_path: str | Path, options: PipelineOptions) -> Any:
    """Load a diffusers pipeline, ready to be recorded.

    Parameters
    ----------
    name_or_path : str or Path
        An embedded model (``fashion``), a folder with ``model_index.json`` (of a modular pipeline
        ``modular_model_index.json``), a name on the hub (``owner/name``), or ``module:function`` of
        a function of yours without arguments that makes one: with adapters, with a scheduler class
        of your own. It decides on device and precision, unless `device` is given.
    options : PipelineOptions
        Each by keyword. Pickled weights can run any code.

    Returns
    -------
    DiffusionPipeline

    Raises
    ------
    InputError
        If there is no such pipeline or device, or the pipeline may not be loaded.

    Examples
    --------
    >>> from asced_recorders import load_pipeline
    >>> pipe = load_pipeline("fashion", scheduler="euler")
    >>> type(pipe.scheduler).__name__
    'EulerDiscreteScheduler'
    """
    import diffusers

    if is_function(str(name_or_path)):
        pipe = _made_by(str(name_or_path))
        pipe = with_scheduler(pipe, options)
        return pipe if options.device is None else _move(pipe, options.device, name_or_path)
    device = default_device() if options.device is None else options.device
    check_device(device)
    folder, where = _locate(str(name_or_path))
    torch_dtype = _dtype(options.dtype)
    given: dict[str, Any] = {"local_files_only": options.local_files_only or folder}
    if torch_dtype is not None:
        newer = hasattr(diffusers.utils.deprecation_utils, "_resolve_dtype")  # warns of the other
        given["dtype" if newer else "torch_dtype"] = torch_dtype
    if options.variant:
        given["variant"] = options.variant
    if options.revision:
        given["revision"] = options.revision
    given["use_safetensors"] = None if options.allow_pickle else True
    diffusers.utils.logging.disable_progress_bar()
    if "transformers" in sys.modules:  # which diffusers has then loaded, and which has bars too
        from transformers.utils import logging

        bars: Any = logging
        bars.disable_progress_bar()
    load = _load_modular if folder and (Path(where) / MODULAR).is_file() else _load_classic
    try:
        pipe = load(where, folder, options.trust_remote_code, given)
    except (OSError, ValueError, ImportError, AttributeError, KeyError, TypeError) as error:
        raise _explain(str(name_or_path), error, options.allow_pickle) from error
    pipe = with_scheduler(pipe, options)
    pipe.set_progress_bar_config(disable=True)
    return _move(pipe, device, name_or_path)


def with_scheduler(pipe: Any, options: SchedulerOptions) -> Any:
    """The pipeline, or a copy with the scheduler that is asked for: the given one keeps its own."""
    if options.scheduler is None and not options.scheduler_options:
        return pipe
    pipe = copied_pipeline(pipe, "scheduler")
    pipe.scheduler = make_scheduler(options.scheduler, pipe.scheduler, options.scheduler_options)
    return pipe


def is_function(name: str) -> bool:
    """Whether a name is that of a function that makes a pipeline, and of no folder."""
    return FUNCTION.fullmatch(name) is not None and not Path(name).is_dir()


def _made_by(name: str) -> Any:
    """The pipeline that a function of the user's makes."""
    pipe = named_function(name)()
    if not hasattr(pipe, "components") or not hasattr(pipe, "set_progress_bar_config"):
        raise InputError(f"{name} returned a {type(pipe).__name__}: expected a diffusers pipeline")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def check_device(device: Any) -> None:
    """Put one number on a device, to see whether it is there.

    Parameters
    ----------
    device : str or torch.device

    Raises
    ------
    InputError
        If there is no such device here, naming those that are.
    """
    import torch

    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError, TypeError, ValueError) as error:
        raise InputError(
            f"device {str(device)!r} cannot be used here ({_first_line(error)}): give one of "
            f"{', '.join(available_devices())}"
        ) from error


def pipeline_name(name_or_path: str | Path) -> str:
    """What may stand in a store: a name, but of a local folder only its last part."""
    text = str(name_or_path)
    return Path(text).resolve().name if Path(text).is_dir() else text


def _load_classic(where: str, folder: bool, trust: bool, options: dict[str, Any]) -> Any:
    """Load a pipeline that diffusers saved as a whole."""
    import diffusers

    pipelines: Any = diffusers.DiffusionPipeline
    absent = dict.fromkeys(_absent(Path(where))) if folder else {}
    return pipelines.from_pretrained(where, trust_remote_code=trust, **options, **absent)


def _load_modular(where: str, folder: bool, trust: bool, options: dict[str, Any]) -> Any:
    """Load a modular pipeline, and the components that it names, from its folder if they are there.

    Raises
    ------
    ValueError
        Where a component that it names cannot be loaded; diffusers only logs it.
    """
    import diffusers

    pipelines: Any = diffusers.ModularPipeline
    pipe = pipelines.from_pretrained(where, trust_remote_code=trust, local_files_only=folder)
    here = {name: where for name in pipe.component_names if (Path(where) / name).is_dir()}
    pipe.load_components(pretrained_model_name_or_path=here, **options)
    absent = [name for name in here if getattr(pipe, name, None) is None]
    if absent:
        raise ValueError(f"its {', '.join(absent)} cannot be read (safetensors are expected)")
    return pipe


def _absent(folder: Path) -> list[str]:
    """Parts that a saved pipeline was without, such as text encoders: None, so that it loads."""
    index = json.loads((folder / CLASSIC).read_text())
    return [name for name, kind in index.items() if kind == [None, None]]


def _locate(text: str) -> tuple[bool, str]:
    """Whether it is a local folder, and what to hand to diffusers."""
    if text in embedded_models():
        return True, str(MODELS / text)
    path = Path(text).expanduser()
    if path.is_dir():
        if not any((path / name).is_file() for name in (CLASSIC, MODULAR)):
            raise InputError(
                f"{text} is a folder without model_index.json: give a pipeline that diffusers "
                "saved (pipe.save_pretrained)"
            )
        return True, str(path)
    looks_local = path.is_absolute() or text.startswith((".", "~")) or text.count("/") != 1
    if looks_local:
        near = nearest(text, embedded_models())
        hint = f" (did you mean {near}?)" if near else ""
        raise InputError(
            f"unknown pipeline {text!r}{hint}: give an embedded model "
            f"({', '.join(embedded_models())}), "
            "a folder with model_index.json, or a hub name like owner/name"
        )
    return False, text


def _move(pipe: Any, device: Any, name: str | Path) -> Any:
    """Move the weights there, or say what to do where they do not fit."""
    import torch

    try:
        return pipe.to(device)
    except torch.OutOfMemoryError as error:
        raise InputError(
            f"the weights of {name} do not fit on {device} ({_first_line(error)}): load them in "
            "half precision (--precision float16), or on another device (--device)"
        ) from error


def _dtype(dtype: Any) -> Any:
    import torch

    if dtype is None or isinstance(dtype, torch.dtype):
        return dtype
    found = getattr(torch, str(dtype), None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise InputError(f"unknown precision {dtype!r}: give float32, float16 or bfloat16")
    return found


def _explain(name: str, error: Exception, allow_pickle: bool) -> InputError:
    """Say in one line why a pipeline was not loaded."""
    advice = "check the name, or give a local folder"
    if "safetensors" in str(error) and not allow_pickle:
        advice = "it has no safetensors weights; --allow-pickle accepts pickled ones, which can "
        advice += "run any code"
    elif "trust_remote_code" in str(error):
        advice = "it brings code of its own; --trust-remote-code runs it"
    return InputError(f"pipeline {name!r} cannot be loaded ({_first_line(error)}): {advice}")


def _first_line(error: Exception) -> str:
    """The first line of what an error says, or its name."""
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__
