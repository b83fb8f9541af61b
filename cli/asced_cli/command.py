"""A command of ``asced``: outputs are checked first, options have sections, JSON on demand."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem

ENDPOINT = "AWS_ENDPOINT_URL_S3"
JSON = "asced.json"
FIRST = "Options"
"""The section of what people need first."""


class Named(click.ParamType[str]):
    """One of the names of a registry, which is loaded when help or a value asks for it.

    Parameters
    ----------
    names : callable
        The names.
    others : str
        What else may be given; nothing by default.
    """

    name = "name"

    def __init__(self, names: Callable[[], Iterable[str]], *, others: str = "") -> None:
        self.names, self.others = names, others

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """Every name, for ``--help``."""
        return f"[{'|'.join((*self.names(), *([self.others] if self.others else [])))}]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse another name, and say which was meant."""
        known = tuple(self.names())
        if value not in known and not self.others:
            from asced_stores.errors import nearest

            near = nearest(value, known)
            hint = f" (did you mean {near}?)" if near else ""
            message = f"{value!r} is unknown{hint}: expected one of {', '.join(known)}"
            self.fail(message, param, ctx)
        return value

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Names that begin so."""
        return [CompletionItem(name) for name in self.names() if name.startswith(incomplete)]


class OutFile(click.ParamType[str]):
    """A local file, or folder, that a command writes.

    Parameters
    ----------
    suffixes : str
        What its name may end with; any name without.
    folder : bool
        A folder is written.
    own : sequence of str
        See `asced_stores.files.check_out`.
    """

    name = "path"

    def __init__(self, *suffixes: str, folder: bool = False, own: Sequence[str] = ()) -> None:
        self.suffixes, self.folder, self.own = suffixes, folder, own

    def check(self, value: str, options: Mapping[str, Any]) -> None:
        """Refuse what could not be written at the end."""
        from asced_stores.files import check_out

        check_out(
            value,
            overwrite=bool(options.get("overwrite")),
            suffixes=self.suffixes,
            folder=self.folder,
            own=self.own,
        )


SHARE = click.FloatRange(0, 1, min_open=True, max_open=True)
FIGURE = OutFile(".png", ".svg", ".pdf")


class OutStore(click.ParamType[str]):
    """A store that a command writes: a local path, or a URL.

    Parameters
    ----------
    joined : bool
        Several processes write it, and the first makes it: the command looks itself whether one
        may lie there.
    """

    name = "store"

    def __init__(self, *, joined: bool = False) -> None:
        self.joined = joined

    def check(self, value: str, options: Mapping[str, Any]) -> None:
        """Refuse what could not be made, or gone on with."""
        from asced_stores.backends.opening import check_store_out

        check_store_out(
            value,
            overwrite=bool(options.get("overwrite")),
            resume=self.joined or bool(options.get("resume")),
        )


class Command(click.Command):
    """Checks every output before any work, and shows options in named sections.

    Parameters
    ----------
    sections : mapping of str to str, optional
        Names of options by section, with spaces between; those in none come first.
    **settings
        Of `click.Command`.
    """

    def __init__(
        self, *settings: Any, sections: Mapping[str, str] | None = None, **more: Any
    ) -> None:
        super().__init__(*settings, **more)
        self.sections = dict(sections or {})

    def invoke(self, ctx: click.Context) -> Any:
        """Check, then work."""
        for parameter in self.params:
            value = ctx.params.get(parameter.name or "")
            if isinstance(parameter.type, (OutFile, OutStore)) and value is not None:
                parameter.type.check(str(value), ctx.params)
        return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, section by section."""
        rows: dict[str, list[tuple[str, str]]] = {FIRST: [], **{name: [] for name in self.sections}}
        of = {option: name for name, options in self.sections.items() for option in options.split()}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                rows[of.get(parameter.name or "", FIRST)].append(record)
        for name, records in rows.items():
            if records:
                with formatter.section(name):
                    formatter.write_dl(records)


def asced_command(
    *examples: tuple[str, str], sections: Mapping[str, str] | None = None, remote: bool = True
) -> Callable[[Callable[..., Any]], Command]:
    """Make a function a command, with ``--json`` and, for what reads stores, ``--endpoint``.

    Parameters
    ----------
    *examples : (str, str)
        Of the help: what each is for, and a line that can be copied whole.
    sections : mapping of str to str, optional
        As in `Command`.
    remote : bool
        Whether its stores may be ``s3://`` paths.
    """
    shown = "\n".join(f"  # {purpose}\n  {line}" for purpose, line in examples)

    def decorate(function: Callable[..., Any]) -> Command:
        epilog = f"\b\nExamples:\n{shown}\n"
        made = click.command(cls=Command, epilog=epilog, sections=sections)(function)
        if remote:
            made.params.append(_ENDPOINT_OPTION)
        made.params.append(_JSON_OPTION)
        return made

    return decorate


def _set_endpoint(context: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is None:
        return
    before = os.environ.get(ENDPOINT)
    os.environ[ENDPOINT] = value

    def restore() -> None:
        os.environ.pop(ENDPOINT)
        if before is not None:
            os.environ[ENDPOINT] = before

    context.call_on_close(restore)


def _set_json(context: click.Context, _: click.Parameter, value: bool) -> None:
    context.meta[JSON] = value


# The endpoint stands in the environment while a command runs, where its threads and processes look.
_ENDPOINT_OPTION = click.Option(
    ["--endpoint"],
    metavar="URL",
    help="URL of the object storage, for s3:// paths (credentials: from the environment).",
    expose_value=False,
    callback=_set_endpoint,
)
_JSON_OPTION = click.Option(
    ["--json", "as_json"],
    is_flag=True,
    help="Print one JSON object.",
    expose_value=False,
    callback=_set_json,
)


def as_json() -> bool:
    """Whether the command prints for machines."""
    return bool(click.get_current_context().meta.get(JSON))


def emit(
    result: Mapping[str, Any],
    table: Iterable[tuple[str, str]] = (),
    *,
    written: Sequence[str | None] = (),
) -> None:
    """Print a result as JSON for machines, or as an aligned table for people.

    Parameters
    ----------
    result : mapping
        What JSON can hold.
    table : iterable of (str, str)
        Name and value.
    written : sequence of str or None
        Files that were written, which end the table.
    """
    if as_json():
        click.echo(json.dumps(result, allow_nan=False))
        return
    rows = [*table, *(("written", path) for path in written if path)]
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        click.echo(f"{name:<{width}}  {value}")


def note_unkept(out: str | None) -> None:
    """Say at once that a long computation will not be kept."""
    if out is None and not as_json():
        click.echo("note: without --out, only what is printed is kept", err=True)
