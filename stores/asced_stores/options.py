"""Options of a call, said once: name, type, default, meaning and check.

A frozen class of options is what a function takes by keyword (`takes`) and hands on as one object;
help, documentation and the command line are made from it.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import Field, dataclass, field, fields
from functools import wraps
from typing import (
    Any,
    Concatenate,
    ParamSpec,
    Protocol,
    TypeVar,
    dataclass_transform,
    overload,
)

from asced_stores.errors import UnknownOptionError, nearest

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
O = TypeVar("O", covariant=True)  # noqa: E741  # the options
T = TypeVar("T")
P = ParamSpec("P")


class _Takes(Protocol[P, O]):
    """A decorator of functions of one to four arguments before the options."""

    @overload
    def __call__(self, function: Callable[[A, O], T], /) -> Callable[Concatenate[A, P], T]: ...
    @overload
    def __call__(
        self, function: Callable[[A, B, O], T], /
    ) -> Callable[Concatenate[A, B, P], T]: ...
    @overload
    def __call__(
        self, function: Callable[[A, B, C, O], T], /
    ) -> Callable[Concatenate[A, B, C, P], T]: ...
    @overload
    def __call__(
        self, function: Callable[[A, B, C, D, O], T], /
    ) -> Callable[Concatenate[A, B, C, D, P], T]: ...


def option(default: Any, meaning: str) -> Any:
    """A field of a class of options.

    Parameters
    ----------
    default : object
        What never changes.
    meaning : str
        Its first sentence is the help of the command line too.
    """
    return field(default=default, metadata={"meaning": textwrap.dedent(meaning).strip()})


def others(meaning: str) -> Any:
    """The field that takes all other keywords, as ``**name`` does."""
    return field(default_factory=dict, metadata={"meaning": meaning, "others": True})


@dataclass_transform(frozen_default=True, kw_only_default=True)
def options(kind: type[T]) -> type[T]:
    """Make a frozen dataclass of options; its docstring lists them before what it raises."""
    made = dataclass(frozen=True, kw_only=True, eq=False)(kind)  # nobody compares: 0.3 ms a class
    about, raises, errors = inspect.cleandoc(kind.__doc__ or "").partition("Raises\n------\n")
    listed = entries(made, wrapped=False)
    made.__doc__ = f"{about.rstrip()}\n\nParameters\n----------\n{listed}\n{raises}{errors}"
    return made


def entries(kind: type, *, wrapped: bool = True) -> str:
    """Name, type, default and meaning of each option, as numpydoc has them.

    Not wrapped they take a tenth of the time, of which every ``--help`` waits for each class.
    """

    def paragraph(text: str) -> str:
        return textwrap.indent(textwrap.fill(text, 92), "    ") if wrapped else f"    {text}"

    return "".join(
        (f"**{one.name}\n" if one.metadata.get("others") else f"{one.name} : {_type(one)}\n")
        + f"{paragraph(one.metadata['meaning'])}\n"
        for one in fields(kind)
    )


def _type(one: Field[Any]) -> str:
    return f"{one.type}, default {one.default!r}"


def takes(kind: Callable[P, O]) -> _Takes[P, O]:
    """Let a function take options by keyword, which it is handed as its last argument.

    The signature shows every option, and so does the docstring where it has ``options : ...``. A
    name that is none is a TypeError that says which was meant.
    """
    return _decorator(kind)  # type: ignore[no-any-return]


def documents(kind: type) -> Callable[[type[T]], type[T]]:
    """List the options in the docstring of a class whose ``__init__`` takes them."""

    def decorate(made: type[T]) -> type[T]:
        made.__doc__ = _listed(made.__doc__, kind)
        return made

    return decorate


def takes_others(
    kind: type[O],
) -> Callable[[Callable[[A, B, O], T]], Callable[Concatenate[A, B, ...], T]]:
    """The same where one field of the options takes all other keywords (`others`)."""
    return _decorator(kind)  # type: ignore[no-any-return]


def check_names(given: Iterable[str], known: Iterable[str], function: str) -> None:
    """Refuse a keyword that is no option.

    Raises
    ------
    UnknownOptionError
        Naming the one that was meant.
    """
    names = list(known)
    for name in given:
        if name not in names:
            near = nearest(name, names)
            hint = f": did you mean {near!r}?" if near else f"; it takes {', '.join(names)}"
            raise UnknownOptionError(
                f"{function}() got an unexpected keyword argument {name!r}{hint}"
            )


def _decorator(kind: Any) -> Any:
    def decorate(function: Callable[..., T]) -> Callable[..., T]:
        shown = inspect.signature(function)
        first = [one for one in shown.parameters.values() if one.name != "options"]
        names = {one.name: one for one in fields(kind) if not one.metadata.get("others")}
        rest = next((one.name for one in fields(kind) if one.metadata.get("others")), None)

        @wraps(function)
        def call(*given: Any, **named: Any) -> T:
            own = {one.name: named.pop(one.name) for one in first if one.name in named}
            shown.bind(*given, **own, options=None)  # before the options are looked at
            chosen = {name: named.pop(name) for name in names if name in named}
            if rest is not None:
                chosen[rest] = named
            else:
                check_names(named, names, function.__qualname__)
            return function(*given, **own, options=kind(**chosen))

        more = [
            inspect.Parameter(
                one.name, inspect.Parameter.KEYWORD_ONLY, default=one.default, annotation=one.type
            )
            for one in names.values()
        ]
        if rest is not None:
            more.append(inspect.Parameter(rest, inspect.Parameter.VAR_KEYWORD))
        call.__signature__ = shown.replace(parameters=[*first, *more])  # type: ignore[attr-defined]
        call.__doc__ = _listed(function.__doc__, kind)
        return call

    return decorate


def _listed(doc: str | None, kind: type) -> str | None:
    """A docstring with every option in the place of ``options : ...`` and its line."""
    before, found, after = inspect.cleandoc(doc or "").partition("options : ")
    return before + entries(kind) + after.split("\n", 2)[2] if found else doc
