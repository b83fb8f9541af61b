"""Schedulers by short names, with options from the command line."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from asced_stores.errors import InputError, nearest

SHORT_NAMES: Mapping[str, str] = {
    "ddim": "DDIMScheduler",
    "ddpm": "DDPMScheduler",
    "deis": "DEISMultistepScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "dpm++2m": "DPMSolverMultistepScheduler",
    "dpm++2s": "DPMSolverSinglestepScheduler",
    "edm-dpm++": "EDMDPMSolverMultistepScheduler",
    "edm-euler": "EDMEulerScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler-a": "EulerAncestralDiscreteScheduler",
    "flow-euler": "FlowMatchEulerDiscreteScheduler",
    "flow-heun": "FlowMatchHeunDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
    "kdpm2": "KDPM2DiscreteScheduler",
    "kdpm2-a": "KDPM2AncestralDiscreteScheduler",
    "lcm": "LCMScheduler",
    "lms": "LMSDiscreteScheduler",
    "pndm": "PNDMScheduler",
    "sasolver": "SASolverScheduler",
    "tcd": "TCDScheduler",
    "unipc": "UniPCMultistepScheduler",
}


def make_scheduler(name: str | None, current: Any, options: Mapping[str, Any] | None = None) -> Any:
    """Build another scheduler from a pipeline's own configuration.

    Parameters
    ----------
    name : str or None
        A short name, a class name of diffusers, or None for the present class.
    current : SchedulerMixin
        The pipeline's scheduler.
    options : mapping, optional
        Entries of the configuration to change.

    Returns
    -------
    SchedulerMixin

    Raises
    ------
    InputError
        If the name or an option is unknown, or the model was not trained for such a scheduler.
    """
    import diffusers

    from asced_recorders.tap.schedulers import REFUSED

    class_name = type(current).__name__ if name is None else SHORT_NAMES.get(name, name)
    if class_name in REFUSED:
        raise InputError(f"{class_name} cannot be recorded: {REFUSED[class_name]}")
    cls: Any = type(current) if name is None else getattr(diffusers, class_name, None)
    if not hasattr(cls, "set_timesteps"):
        near = nearest(name, SHORT_NAMES)
        hint = f" (did you mean {near}?)" if near else ""
        raise InputError(
            f"unknown scheduler {name!r}{hint}: give a class of diffusers or one of "
            f"{', '.join(SHORT_NAMES)}"
        )
    _check_kin(class_name, type(current).__name__, current)
    known = set(inspect.signature(cls).parameters)
    unknown = sorted(set(options or {}) - known)
    if unknown:
        raise InputError(
            f"{class_name} has no option {', '.join(unknown)}; it has {', '.join(sorted(known))}"
        )
    try:
        return cls.from_config(current.config, **dict(options or {}))
    except (ValueError, NotImplementedError, TypeError, ImportError) as error:
        first = str(error).strip().splitlines()[0]
        raise InputError(f"{class_name} cannot be built: {first}") from error


def recorded_scheduler(
    class_name: str,
    config: Mapping[str, Any],
    *,
    module: str | None = None,
    present: Any = None,
) -> Any:
    """Build a scheduler as a store's attributes describe it.

    Parameters
    ----------
    class_name : str
        ``scheduler_class``.
    config : mapping
        ``scheduler_config``.
    module : str, optional
        ``scheduler_module``: where a class that is not diffusers' own comes from.
    present : SchedulerMixin, optional
        The pipeline's, whose class is taken where it bears this name.

    Raises
    ------
    InputError
        If there is no such class here.
    """
    import diffusers

    kind = getattr(diffusers, class_name, None)
    if module is not None and module.partition(".")[0] != "diffusers":
        kind = (
            type(present) if type(present).__name__ == class_name else _foreign(class_name, module)
        )
        if kind is None:
            raise InputError(
                f"the store was recorded with {class_name} of {module}, which cannot be imported "
                "here: give a pipeline that has this scheduler (pipeline=, or --pipeline "
                "module:function of a function that makes it)"
            )
    if kind is None:
        raise InputError(
            f"the installed diffusers {diffusers.__version__} has no {class_name}, with which the "
            "store was recorded; install the version that the store's attributes name"
        )
    return kind.from_config(dict(config))


def _foreign(class_name: str, module: str) -> Any:
    """A class that another package brings; None where it is not installed, or from a notebook."""
    if module == "__main__":
        return None
    try:
        return getattr(importlib.import_module(module), class_name, None)
    except ImportError:
        return None


def _check_kin(wanted: str, present: str, current: Any) -> None:
    """Refuse to give a model a scheduler of another parametrisation: it would sample garbage."""
    from asced_recorders.tap.schedulers import EDM, FLOW

    for family, what in ((FLOW, "flow matching"), (EDM, "EDM preconditioning")):
        flows = current.config.get("use_flow_sigmas") and family is FLOW
        if (wanted in family) != (present in family or bool(flows)):
            if family is FLOW and present in FLOW and _has_flow_sigmas(wanted):
                continue
            raise InputError(
                f"the model was trained for {present}, which {wanted} does not fit: only one of "
                f"them is for {what}"
            )


def _has_flow_sigmas(class_name: str) -> bool:
    """Whether a solver can walk a flow (then the option use_flow_sigmas must be given)."""
    import diffusers

    cls = getattr(diffusers, class_name)
    return "use_flow_sigmas" in inspect.signature(cls.__init__).parameters
