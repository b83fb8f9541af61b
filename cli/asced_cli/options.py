"""What commands share: the store, the sampler, settings by name, and progress bars."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from asced_cli import completion

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


store_argument = click.argument("store", shell_complete=completion.stores, metavar="STORE")

pipeline_option = click.option(
    "--pipeline",
    shell_complete=completion.pipelines,
    help="Name, folder, or module:function that makes it, instead of the one the store names.",
)


def function_named(_: click.Context, __: click.Parameter, name: str | None) -> Any:
    """The function that an option names (`asced_stores.named_functions`)."""
    from asced_stores.named_functions import named_function

    return None if name is None else named_function(name)


def sampler_options(function: F) -> F:
    """Add what samples recorded runs again: ``--pipeline`` or ``--loop``, and their arguments."""
    loop = click.option(
        "--loop",
        metavar="FILE.py:FUNCTION",
        help="A sampling loop of your own, f(x_init, step), in the place of a pipeline.",
    )
    network = click.option(
        "--network",
        metavar="FILE.py:FUNCTION",
        callback=function_named,
        help="Beside --loop, for thresholds with a lookahead: f(sample, alpha, sigma) -> x0.",
    )
    return pipeline_option(loop(call_option(network(function))))


def note_memory(
    runs: Any,
    variant: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    *,
    statistics: bool = False,
) -> None:
    """Say beforehand what runs too large to hold will take; nothing where they are small.

    Parameters
    ----------
    runs : xarray.Dataset, str or Path
    variant : str, optional
        That detects; without one, statistics are read.
    parameters : mapping, optional
        The variant's, where they are not its defaults.
    statistics : bool
        Whether statistics are read as well.
    """
    from asced_analysis.compute.source import open_source
    from asced_analysis.compute.stepped import STEPS_HELD, memory_need, memory_note, run_bytes
    from asced_analysis.detection.registry import VARIANTS

    ds = open_source(runs).dataset
    needs: list[tuple[list[str], int]] = []
    if variant is None or statistics:
        needs.append(([name for name in ("eps", "x0") if name in ds], STEPS_HELD))
    if variant is not None:
        own = VARIANTS.get(variant)
        reads = own.reads({**own.parameters(), **(parameters or {})})
        names = [name for name in reads if name in ds]
        step = run_bytes(ds, names) / max(1, ds.sizes["step"])
        large_image = step > 0 and "frame" not in ds.dims
        held = own.blocks(step, ds.sizes["y"] * ds.sizes["x"]) if large_image else STEPS_HELD
        needs.append((names, held))
    names, held = max(needs, key=lambda one: memory_need(ds, one[0], held=one[1]))
    if said := memory_note(ds, names, held=held):
        click.echo(f"note: {ds.sizes['run']} runs{said}", err=True)


def call_option(function: F) -> F:
    """Add ``--call-option``: arguments of a recorded call that its store does not hold."""
    return settings_option(
        "--call-option",
        "call_options",
        help="An argument of the recorded call that the store does not hold; @FILE is an image or "
        "an array (.npy), @FOLDER has one a run (<run>.png, <run>.npy).",
        files=True,
    )(function)


def settings_option(*names: str, help: str, files: bool = False) -> Callable[[F], F]:
    """Add an option that takes ``NAME=VALUE`` several times; its value is a dict.

    With `files`, a value that begins with @ is read (`call_arguments`).
    """
    return click.option(
        *names,
        multiple=True,
        metavar="NAME=VALUE",
        callback=_arguments if files else _settings,
        help=f"{help} Repeatable.",
    )


def _arguments(
    context: click.Context, parameter: click.Parameter, pairs: Sequence[str]
) -> dict[str, Any]:
    from asced_cli.call_arguments import call_arguments

    return call_arguments(_settings(context, parameter, pairs))


def _settings(_: click.Context, parameter: click.Parameter, pairs: Sequence[str]) -> dict[str, Any]:
    """Read the pairs; values are JSON where they can be, else text."""
    settings: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or not equals or name in settings:
            wrong = "comes twice" if name in settings else "is no NAME=VALUE, such as combine=peak"
            raise click.BadParameter(f"{pair!r} {wrong}", param=parameter)
        try:
            word = value.lower() if value in ("True", "False") else value
            settings[name] = json.loads(word, parse_constant=_no_number)
        except ValueError:
            settings[name] = value
    return settings


def _no_number(constant: str) -> None:
    """NaN and Infinity are no JSON, and stay text."""
    raise ValueError(constant)


def progress(items: Iterable[T], *, length: int | None = None, label: str = "") -> Iterator[T]:
    """Iterate with a progress bar on a terminal (standard error), and silently in a pipe."""
    if not sys.stderr.isatty():
        yield from items
        return
    with click.progressbar(items, length=length, label=label, file=sys.stderr) as bar:
        yield from bar


@contextmanager
def progress_callback(label: str) -> Iterator[Callable[[int, int], None] | None]:
    """Callback ``(done, total)`` that moves a bar on a terminal; None in a pipe."""
    if not sys.stderr.isatty():
        yield None
        return
    with click.progressbar(length=1, label=label, file=sys.stderr) as bar:

        def tell(done: int, total: int) -> None:
            bar.length = total
            bar.update(done - bar.pos)

        yield tell
