"""``asced record``: draw runs from a pipeline and keep their trajectories."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from asced_cli import completion
from asced_cli.command import Named, OutStore, as_json, asced_command, emit
from asced_cli.option_classes import ListOf, all_options, given, options_of
from asced_cli.options import settings_option
from asced_recorders.pipelines.options import RecordOptions

option = options_of(RecordOptions)
NUMBERS = ListOf(int, "whole numbers, for example 3,8")
PRUNING = ListOf(int, "how many to draw and to finish, for example 4:1", ":", 2)
WINDOW = ListOf(int, "the first and the last step, for example 4:17", ":", 2)


@all_options(RecordOptions)
@asced_command(
    (
        "The embedded model",
        "asced record --pipeline fashion --runs 64 --steps 25 --out runs.zarr",
    ),
    (
        "A folder of your own, another sampler; the same line goes on where it stopped",
        "asced record --pipeline ./my-model --scheduler euler --runs 200 --out runs.zarr --resume",
    ),
    (
        "Prompts, one a line",
        "asced record --pipeline owner/name --prompts prompts.txt --batch-size 4 --out runs.zarr",
    ),
    (
        "Two processes",
        "torchrun --nproc-per-node 2 -m asced_cli record --pipeline fashion "
        "--runs 64 --batch-size 32 --out runs.zarr",
    ),
    (
        "Statistics of every run, trajectories of flagged ones only",
        "asced record --pipeline fashion --runs 200 --keep flagged "
        "--thresholds thresholds.json --out runs.zarr",
    ),
    (
        "Draw four runs for each that is recorded; finish the one with the lowest early score",
        "asced record --pipeline fashion --runs 64 --steps 12 --prune 4:1 "
        "--thresholds thresholds.json --out pruned.zarr",
    ),
    sections={
        "Sampling": "scheduler scheduler_options negative_prompt guidance_scale call_options "
        "labels device precision threads",
        "What is stored": "fields dtype every window checkpoints keep prune thresholds "
        "keep_prompts activations value_range",
        "Loading the model": "variant revision local_files_only allow_pickle trust_remote_code",
        "The store and its disk": "overwrite fsync ignore_disk endpoint",
        "Several processes": "rank world_size",
    },
)
@click.option(
    "--pipeline",
    shell_complete=completion.pipelines,
    required=True,
    help="Embedded model, local folder, hub name, or module:function that makes it.",
)
@click.option(
    "--out",
    required=True,
    type=OutStore(joined=True),
    metavar="STORE",
    help="Path of the store, or s3://bucket/prefix.",
)
@option("runs")
@option("steps")
@option("batch_size")
@option("seed")
@option("scheduler", type=Named(completion.schedulers, others="CLASS"))
@settings_option(
    "--scheduler-option", "scheduler_options", help="Entry of the scheduler's configuration."
)
@option("checkpoints", type=NUMBERS, metavar="STEPS")
@option("fields", type=ListOf(str, "names, for example eps,x0"), metavar="NAMES")
@option("dtype", type=click.Choice(["float16", "float32"]))
@option("every", type=click.IntRange(1), metavar="K")
@option(
    "window",
    type=WINDOW,
    metavar="A:B",
)
@option(
    "activations",
    type=ListOf(str, "names of modules, for example mid_block,up_blocks.0"),
    metavar="MODULES",
)
@option("value_range", type=(float, float), metavar="LOW HIGH")
@option("prompts", metavar="FILE", help="Text, CSV or JSONL; one prompt a run.")
@option("keep_prompts", "--no-prompts", help="Keep keyed hashes of the prompts, not the prompts.")
@settings_option(
    "--call-option",
    "call_options",
    help="Argument of the pipeline's call, such as height=512; @FILE is an image or an array "
    "(.npy), @FOLDER has one a run (<run>.png, <run>.npy).",
    files=True,
)
@option("keep", metavar="[all|flagged|sample:P]")
@click.option(
    "--prune",
    type=PRUNING,
    metavar="DRAW:FINISH",
    help="4:1 draws four runs, compares their scores early, and finishes the best one.",
)
@click.option(
    "--thresholds",
    shell_complete=completion.files(".json"),
    metavar="FILE",
    help="Thresholds for --keep flagged and --prune.",
)
@option("labels", "--classes", type=NUMBERS, metavar="NUMBERS")
@option(
    "fsync",
    "--no-fsync",
    help="Do not wait for the disk: a loss of power may damage the last batches.",
)
@option("device")
@option("precision", type=click.Choice(["float32", "float16", "bfloat16"]))
@option("variant", "--weights-variant")
@option("local_files_only", "--offline")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads of the model.")
def command(
    pipeline: str,
    out: str,
    threads: int | None,
    thresholds: str | None,
    prune: tuple[int, int] | None,
    **more: Any,
) -> int | None:
    """Record full score trajectories of a pipeline into a store.

    With --json, one object is printed at the end, and an event a batch on standard error.
    """
    from asced_recorders import record
    from asced_stores.errors import InputError
    from asced_stores.writing.placement import placement

    if threads:
        import torch

        torch.set_num_threads(threads)
    rank, _ = placement(more["rank"], more["world_size"])
    reporter = _JsonEvents() if as_json() else _Bar(quiet=rank > 0)
    if thresholds and more["keep"] == "all" and prune is None:
        raise InputError("--thresholds goes with --keep flagged or --prune")
    more["observers"] = _observers(more["keep"], thresholds)
    more["pruning"] = _pruning(prune, thresholds)
    with reporter:
        store = record(pipeline, out, progress=reporter.tell, **given(more))
    facts = reporter.facts
    result: dict[str, Any] = {
        "store": out,
        "runs": int(facts.get("done", 0)),
        "kept": int(facts.get("kept", 0)),
        "failed": int(facts.get("failed", 0)),
        "batches": len(store.committed_batches()),
        "steps": store.spec.steps,
        "bytes": int(facts.get("bytes", 0)),
        "seconds": facts.get("seconds"),
    }
    if rank == 0 or as_json():
        full = f", {result['kept']} of them in full" if more["keep"] != "all" else ""
        steps = "one step" if result["steps"] == 1 else f"{result['steps']} steps"
        table = [
            ("store", str(result["store"])),
            ("recorded", f"{result['runs']} runs of {steps}{full}"),
            ("written", f"{result['bytes'] / 1e6:.1f} MB in {result['seconds']} s"),
        ]
        if result["failed"]:
            failed = f"{result['failed']} of {result['runs']} runs ended in NaN or infinity"
            table.insert(2, ("failed", failed))
        emit(result, table=table)
    return None


def _observers(keep: str, thresholds: str | None) -> list[Any]:
    """Statistics of every run, and flags, where not every run is kept."""
    from asced_stores.errors import InputError

    if keep == "all":
        return []
    from asced_analysis.statistics.observing import FlagObserver, StatisticsObserver

    found: list[Any] = [StatisticsObserver()]
    if thresholds:
        from asced_analysis.thresholds.document import Thresholds

        found.append(FlagObserver(Thresholds.load(thresholds)))
    elif keep == "flagged":
        raise InputError("--keep flagged needs --thresholds, which say what is flagged")
    return found


def _pruning(chosen: tuple[int, int] | None, thresholds: str | None) -> Any:
    """The pruner of ``4:1``."""
    from asced_stores.errors import InputError

    if chosen is None:
        return None
    if not thresholds:
        raise InputError("--prune needs --thresholds, which say what is promising")
    from asced_analysis.correction import Pruner

    return Pruner.from_file(thresholds, draw=chosen[0], finish=chosen[1])


class _JsonEvents:
    """One JSON object a line on standard error, for a scheduler's log."""

    def __init__(self) -> None:
        self.facts: dict[str, Any] = {}

    def __enter__(self) -> _JsonEvents:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def tell(self, event: dict[str, Any]) -> None:
        self.facts |= event
        click.echo(json.dumps(event, allow_nan=False), err=True)


class _Bar:
    """A line with the cost, then a bar on a terminal and silence in a pipe."""

    def __init__(self, *, quiet: bool) -> None:
        self.facts: dict[str, Any] = {}
        self._quiet = quiet
        self._bar: Any = None
        self._show = sys.stderr.isatty() and not quiet

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None

    def tell(self, event: dict[str, Any]) -> None:
        from asced_recorders.recording.cost import human

        before = int(self.facts.get("done", 0))
        self.facts |= event
        if self._quiet:
            return
        kind = event["event"]
        if kind == "start":
            free = "" if event["disk_free"] is None else f"; {human(event['disk_free'])} free"
            click.echo(
                f"{event['runs']} runs, {human(event['bytes_per_run'])} a run, "
                f"{human(event['bytes'])} in all{free}",
                err=True,
            )
            if self._show and event["runs"]:
                self._bar = click.progressbar(
                    length=event["runs"],
                    label="recording",
                    file=sys.stderr,
                    item_show_func=lambda text: text,
                )
                self._bar.__enter__()
        elif kind == "batch" and self._bar is not None:
            note = f"{event['runs_per_second']:.2f} runs/s, {human(event['bytes'])}"
            if event["disk_free"] is not None:
                note += f", {human(event['disk_free'])} free"
            self._bar.update(event["done"] - before, note)
        elif kind == "interrupting":
            click.echo("\nfinishing this batch; once more stops at once", err=True)
        elif kind == "interrupted":
            click.echo(
                f"stopped after {event['done']} of {event['runs']} runs: go on with --resume",
                err=True,
            )
