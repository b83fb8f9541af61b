"""The ``asced`` command: commands are imported only when they are called."""

from __future__ import annotations

import importlib
import os
import re
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import click

COMMANDS = {
    "record": "Record full score trajectories of a pipeline into a store.",
    "info": "Show what a store holds, how complete it is and who wrote what.",
    "verify": "Check every chunk of a store against its checksum.",
    "seal": "Close a store: cut it to its runs and write one index of them.",
    "merge": "Join stores of the same model and settings.",
    "select": "Copy chosen runs to a new store.",
    "repack": "Rewrite a store to another layout or precision.",
    "stats": "Exact medians, MADs and quantiles of the score dynamics by step.",
    "phases": "Find the boundaries Profiling | Mutation | Refinement.",
    "audit": "Check whether recorded samples fit the noise levels of their schedule.",
    "calibrate": "Calibrate thresholds with a stated false-alarm rate.",
    "detect": "Flag runs and regions by calibrated thresholds.",
    "replay": "Sample recorded runs again from the same noise, with a correction.",
    "tune": "Choose step and strength of a correction, or what helps most at equal cost.",
    "evaluate": "Compare a replay, or any other store, with the recording, by a judge.",
    "report": "Write one page about runs, thresholds and replay: HTML or Markdown.",
    "view": "Look at runs in a browser: gallery, steps, thresholds, masks by hand.",
    "export": "Export thresholds for other deployments.",
    "push": "Put thresholds or runs into a repository of the Hugging Face Hub.",
    "pull": "Bring thresholds or runs from a repository of the Hub.",
    "demo": "Run the whole path, on the embedded model or on your own.",
    "doctor": "Check versions, devices and disk, and what can be done with a pipeline.",
    "completion": "Print the script that makes a shell complete what is typed.",
}


OWN_PACKAGES = {"asced_analysis", "asced_recorders", "asced_stores"}
RECORDING_PACKAGES = {"torch", "diffusers", "transformers", "accelerate", "safetensors"}


class _ClosedPipe(Exception):  # noqa: N818  (no error: the reader has what it wanted)
    """The reader of a pipe has gone; click would end with 1, which means damage here."""


class LazyGroup(click.Group):
    """A group that knows its commands' names and one-line helps without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order in which one uses them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command's module."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"asced_cli.commands.{cmd_name}")
        command: click.Command = module.command
        return command

    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        """Parse the command line; ``--help`` prints while this is done."""
        try:
            return super().make_context(*arguments, **options)
        except BrokenPipeError as error:
            raise _ClosedPipe from error

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _ClosedPipe from error

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command; of one that does not exist, say which was meant."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            from asced_stores.errors import nearest

            near = nearest(args[0], COMMANDS)
            hint = f" Did you mean {near!r}?" if near else ""
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: asced record --pipeline fashion --runs 64 --steps 25 --out runs.zarr",
)
@click.version_option(package_name="asced-analysis", prog_name="asced")
def cli() -> None:
    """Record, analyse, calibrate and correct artifacts in diffusion sampling."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status, with one clear line for an error."""
    from asced_stores.errors import AscedError, install_hint

    try:
        status = cli.main(args=arguments, prog_name="asced", standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("asced: interrupted", err=True)
        return 130
    except KeyboardInterrupt:
        click.echo("asced: interrupted", err=True)
        return 130
    except click.ClickException as error:
        error.show()
        return 2
    except AscedError as error:
        _show(error)
        return error.exit_status
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in RECORDING_PACKAGES:
            raise
        click.echo(f"asced: error: this needs {error.name}: {install_hint('record')}", err=True)
        return 2
    except _ClosedPipe:
        return _closed_pipe()
    except (OSError, MemoryError) as error:
        _show(error)
        return 3
    except Exception as error:
        _show(error)
        click.echo("  unexpected; set ASCED_TRACEBACK=1 to see where", err=True)
        if os.environ.get("ASCED_TRACEBACK"):
            raise
        return 3
    return status if isinstance(status, int) else 0


def _show(error: BaseException) -> None:
    """Print an error and its notes."""
    click.echo(f"asced: error: {_in_flags(str(error)) or type(error).__name__}", err=True)
    for note in getattr(error, "__notes__", ()):
        click.echo(f"  {_in_flags(note)}", err=True)


def _in_flags(text: str) -> str:
    """A library's message, its parameters as options: ``overwrite=True`` is ``--overwrite``."""
    return re.sub(r"\b([a-z][a-z_]+)=True\b", lambda match: "--" + match[1].replace("_", "-"), text)


def _closed_pipe() -> int:
    """Status of a program whose reader went away, as of any other in a shell: 128 + SIGPIPE."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())  # what is still buffered goes there at the end
    return 141


def _no_bars_in_pipes() -> None:
    """Keep huggingface_hub and transformers from drawing bars where no terminal shows them."""
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def _plain_warnings() -> None:
    """Show the packages' own warnings as one line each, and none twice."""
    usual, shown = warnings.showwarning, set()

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if category.__module__.partition(".")[0] not in OWN_PACKAGES:
            usual(message, category, *where, **more)
        elif (text := " ".join(_in_flags(str(message)).split())) not in shown:
            shown.add(text)
            click.echo(f"asced: warning: {text}", err=True)

    warnings.showwarning = show


def main() -> None:
    """Entry point of ``asced``."""
    _no_bars_in_pipes()
    _plain_warnings()
    sys.exit(run())


def record_main() -> None:
    """Entry point of ``asced-record``, the same as ``asced record``."""
    _no_bars_in_pipes()
    _plain_warnings()
    sys.exit(run(["record", *sys.argv[1:]]))
