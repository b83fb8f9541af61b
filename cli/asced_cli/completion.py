"""What the shell offers for a half-typed word; nothing heavy is imported for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import click
from click.shell_completion import CompletionItem

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def stores(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Stores that begin so, and folders that may hold some."""
    return _folders(incomplete, "zarr.json")


def pipelines(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Embedded models and folders of pipelines that begin so, and folders that may hold some."""
    from asced_recorders.pipelines.loading import embedded_models

    return _starting(embedded_models(), incomplete) + _folders(incomplete, "model_index.json")


def schedulers() -> Iterable[str]:
    """Short names of schedulers."""
    from asced_recorders.pipelines.scheduler_names import SHORT_NAMES

    return SHORT_NAMES


def files(ending: str) -> Completer:
    """Files with this ending, and the folders on the way to them."""

    def complete(
        _context: click.Context, _parameter: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        parent, start = _split(incomplete)
        found = [
            CompletionItem(_shown(path, incomplete))
            for path in _entries(parent, start)
            if path.is_file() and path.name.endswith(ending)
        ]
        return found or [CompletionItem(incomplete, type="file")]

    return complete


def stores_and_thresholds(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """What can be pushed to the Hub."""
    found = stores(context, parameter, incomplete) + files(".json")(context, parameter, incomplete)
    return [item for item in found if item.type == "plain"] or found[:1]


def _starting(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _folders(incomplete: str, mark: str) -> list[CompletionItem]:
    """Folders that hold the file `mark`; where there are none, the shell goes on with folders."""
    parent, start = _split(incomplete)
    found = [
        CompletionItem(_shown(path, incomplete))
        for path in _entries(parent, start)
        if (path / mark).is_file()
    ]
    return found or [CompletionItem(incomplete, type="dir")]


def _split(incomplete: str) -> tuple[Path, str]:
    """The folder to look in, and what a name there begins with."""
    head, slash, start = incomplete.rpartition("/")
    return Path(head + slash if slash else ".").expanduser(), start


def _entries(parent: Path, start: str) -> list[Path]:
    try:
        return sorted(path for path in parent.iterdir() if path.name.startswith(start))
    except OSError:
        return []


def _shown(path: Path, incomplete: str) -> str:
    """The path as the user began to type it."""
    head, slash, _ = incomplete.rpartition("/")
    return f"{head}{slash}{path.name}"
