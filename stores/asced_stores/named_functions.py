"""Functions by name, as commands take them: ``module:function`` or ``FILE.py:function``.

Needs no torch.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from asced_stores.errors import InputError


def named_function(name: str) -> Any:
    """A function by its name; modules are looked for in the working folder as well.

    Parameters
    ----------
    name : str
        ``module:function`` or ``FILE.py:function``.

    Raises
    ------
    InputError
        Where there is no such function.
    """
    module, colon, function = name.rpartition(":")
    if not colon or not module or not function:
        raise InputError(
            f"a function is given as module:function or FILE.py:function, not {name!r}"
        )
    one: Any = _file(Path(module)) if module.endswith(".py") else _module(module)
    for part in function.split("."):
        one = getattr(one, part, None)
    if not callable(one):
        raise InputError(f"{module} has no function {function}")
    return one


def _module(module: str) -> ModuleType:
    here = "" not in sys.path
    if here:
        sys.path.insert(0, "")
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"the module {module} can't be imported: {error}; run from its folder, or "
            "put that on PYTHONPATH"
        ) from error
    finally:
        if here:
            sys.path.remove("")


def _file(path: Path) -> ModuleType:
    """A module by its file, which need not lie where modules are looked for."""
    name = f"asced_file_{path.stem}"  # a file may be called like a module
    spec = importlib.util.spec_from_file_location(name, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise InputError(f"there is no file {path}; a function in it is given as FILE.py:function")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look there
    sys.path.insert(0, str(path.parent))  # what lies beside it may be imported
    try:
        spec.loader.exec_module(module)
    except ImportError as error:
        raise InputError(f"{path} can't be imported: {error}") from error
    finally:
        sys.path.remove(str(path.parent))
    return module
