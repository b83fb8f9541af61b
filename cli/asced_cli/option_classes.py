"""Click options made from the options of a call: name, type, default and meaning are said there."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import Field, fields
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])
TYPES = {"int": int, "float": float, "str": str, "bool": bool}


class ListOf(click.ParamType[tuple[Any, ...]]):
    """Values with a separator between them, as one word.

    Parameters
    ----------
    kind : type
        Of each value.
    wanted : str
        What to give, for messages.
    separator : str
    length : int, optional
        How many there must be.
    """

    name = "list"

    def __init__(
        self, kind: type, wanted: str, separator: str = ",", length: int | None = None
    ) -> None:
        self.kind, self.wanted, self.separator, self.length = kind, wanted, separator, length

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Any, ...]:
        """Read the values."""
        try:
            found = tuple(self.kind(one.strip()) for one in value.split(self.separator) if one)
        except ValueError:
            found = ()
        if not found or self.length not in (None, len(found)):
            self.fail(f"{value!r}: give {self.wanted}", param, ctx)
        return found


def options_of(kind: type) -> Callable[..., Callable[[F], F]]:
    """A decorator that adds the click option of one field of a class of options.

    ``option("labels", "--classes", type=...)``: the field, the flag where it is not the field's
    name, and whatever `click.option` takes in the place of what the field says.
    """
    known = {one.name: one for one in fields(kind)}

    def option(name: str, *flags: str, **settings: Any) -> Callable[[F], F]:
        words, made = _option(known[name])
        return click.option(*(flags or words[:1]), name, **{**made, **settings})

    return option


def all_options(kind: type) -> Callable[[click.Command], click.Command]:
    """A decorator that gives a command a flag for every other field of a class of options.

    Those that are numbers, words or yes and no: what else a field holds, its command says how to
    read. A new field is so an option of the command, in its first section unless it is listed in
    another.
    """

    def decorate(command: click.Command) -> click.Command:
        there = [one.name for one in command.params]
        made = [
            click.Option(words, **settings)
            for field in fields(kind)
            if field.name not in there and _plain(field) in TYPES
            for words, settings in [_option(field)]
        ]
        last = ("endpoint", "as_json")  # what every command has stands last
        before = min(there.index(name) for name in last if name in there)
        command.params[before:before] = made
        return command

    return decorate


def _option(field: Field[Any]) -> tuple[list[str], dict[str, Any]]:
    """Flag and name of a field, and what click is told of it."""
    meaning = re.split(r"(?<=\.)\s", field.metadata["meaning"])[0].replace("`", "")
    made: dict[str, Any] = {"help": meaning, "show_default": field.type != "bool"}
    if field.type == "bool":
        made |= {"is_flag": True, "flag_value": not field.default, "default": field.default}
    else:
        made["type"] = TYPES.get(_plain(field), str)
        if isinstance(field.default, (int, float, str)):
            made["default"] = field.default
    return [f"--{field.name.replace('_', '-')}", field.name], made


def _plain(field: Field[Any]) -> str:
    return str(field.type).removesuffix(" | None")


def given(options: dict[str, Any]) -> dict[str, Any]:
    """Options without those that were left out: the call's own defaults are taken."""
    return {name: value for name, value in options.items() if value is not None}
