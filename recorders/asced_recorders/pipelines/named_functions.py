"""Functions by name, as commands take them: ``module:function``; needs no torch."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from asced_stores.errors import InputError


def named_function(name: str) -> Any:
    """A function by its name, ``module:function``; the working folder is looked in as well.

    Raises
    ------
    InputError
        Where there is no such function.
    """
    module, colon, function = name.partition(":")
    if not colon or not module or not function:
        raise InputError(f"a function is given as module:function, not {name!r}")

    here = "" not in sys.path
    if here:
        sys.path.insert(0, "")
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"the module {module} can't be imported: {error}; run from its folder, or "
            "put that on PYTHONPATH"
        ) from error
    finally:
        if here:
            sys.path.remove("")
    one: Any = found
    for part in function.split("."):
        one = getattr(one, part, None)
    if not callable(one):
        raise InputError(f"{module} has no function {function}")
    return one
