"""``asced record``: draw runs from a pipeline and keep their trajectories."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from asced_cli import completion
from asced_cli.command import Command, Named, OutStore
from asced_cli.options import emit, endpoint_option, examples, json_option, settings_option


@click.command(
    cls=Command,
    sections={
        "Sampling": "scheduler scheduler_option negative_prompt guidance_scale call_option "
        "classes device precision threads",
        "What is stored": "fields dtype every window checkpoints keep prune thresholds "
        "no_prompts value_range",
        "Loading the model": "weights_variant revision offline allow_pickle trust_remote_code",
        "The store and its disk": "overwrite no_fsync ignore_disk endpoint",
        "Several processes": "rank world_size",
    },
    epilog=examples(
        (
            "The embedded model",
            "asced record --pipeline fashion --runs 512 --steps 25 --out runs.zarr",
        ),
        (
            "A folder of your own, another sampler; the same line goes on where it stopped",
            "asced record --pipeline ./my-model --scheduler euler --runs 1000 --out "
            "runs.zarr --resume",
        ),
        (
            "Prompts, one a line",
            "asced record --pipeline owner/name --prompts prompts.txt --batch-size 4 "
            "--out runs.zarr",
        ),
        (
            "Two processes",
            "torchrun --nproc-per-node 2 -m asced_cli record --pipeline fashion "
            "--runs 512 --out runs.zarr",
        ),
        (
            "Every run counted, only flagged ones kept",
            "asced record --pipeline fashion --runs 100000 --keep flagged "
            "--thresholds thresholds.json --out runs.zarr",
        ),
        (
            "The best of four draws, as foreseen early",
            "asced record --pipeline fashion --runs 64 --steps 12 --prune 4:1 "
            "--thresholds thresholds.json --out pruned.zarr",
        ),
    ),
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
@click.option("--runs", type=int, help="Number of runs; by default one a prompt.")
@click.option("--steps", type=int, default=25, show_default=True, help="Steps of sampling.")
@click.option("--batch-size", type=int, default=64, show_default=True, help="Runs a batch.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of run 0.")
@click.option(
    "--scheduler",
    type=Named(completion.schedulers, others="CLASS"),
    help="Another scheduler, by a short name or a class of diffusers.",
)
@settings_option("--scheduler-option", help="Entry of the scheduler's configuration.")
@click.option("--checkpoints", default="", metavar="STEPS", help="For example 8,12,16.")
@click.option(
    "--fields", default="", metavar="NAMES", help="Of eps,x0,x_init,checkpoint_sample,sample,image."
)
@click.option(
    "--dtype",
    type=click.Choice(["float16", "float32"]),
    default="float16",
    show_default=True,
    help="Of eps and x0 in the store.",
)
@click.option(
    "--every",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="K",
    help="Keep eps and x0 of every K-th step: enough to analyse, not to replay.",
)
@click.option(
    "--window",
    metavar="A:B",
    help="Keep eps and x0 of steps A to B, counted from 0: enough to analyse, not to replay.",
)
@click.option(
    "--value-range",
    type=(float, float),
    metavar="LOW HIGH",
    help="Of pixels, where it is not -1 to 1; by default as the first batch shows.",
)
@click.option("--prompts", metavar="FILE", help="Text, CSV or JSONL; one prompt a run.")
@click.option("--negative-prompt", help="Where a prompt has none of its own.")
@click.option("--guidance-scale", type=float, help="Where a prompt has none of its own.")
@click.option(
    "--no-prompts", is_flag=True, help="Keep keyed hashes of the prompts, not the prompts."
)
@settings_option(
    "--call-option",
    help="Argument of the pipeline's call, such as height=512; @FILE is an image or an array "
    "(.npy), @FOLDER has one a run (<run>.png, <run>.npy).",
)
@click.option(
    "--keep",
    metavar="[all|flagged|sample:P]",
    default="all",
    show_default=True,
    help="Which runs are kept in full: all, those flagged, or a random share P.",
)
@click.option(
    "--prune",
    metavar="DRAW:FINISH",
    help="Draw several runs for each prompt, look early, finish the most promising: 4:1.",
)
@click.option(
    "--thresholds",
    shell_complete=completion.files(".json"),
    metavar="FILE",
    help="What --keep flagged and --prune go by.",
)
@click.option(
    "--classes", default="", metavar="NUMBERS", help="Of a class-conditional model, such as 3,7."
)
@click.option("--resume", is_flag=True, help="Go on with a store that was begun.")
@click.option("--overwrite", is_flag=True, help="Replace a store that exists.")
@click.option(
    "--no-fsync",
    is_flag=True,
    help="Do not wait for the disk: a loss of power may tear the last batches.",
)
@click.option("--ignore-disk", is_flag=True, help="Begin even if the disk looks too small.")
@click.option("--device", help="cpu, cuda, cuda:1, xpu, mps; by default the accelerator.")
@click.option(
    "--precision",
    type=click.Choice(["float32", "float16", "bfloat16"]),
    help="Of the weights while sampling.",
)
@click.option("--weights-variant", help="Of the files on the hub, for example fp16.")
@click.option("--revision", help="Branch, tag or commit on the hub.")
@click.option("--offline", is_flag=True, help="Ask the hub for nothing.")
@click.option("--allow-pickle", is_flag=True, help="Accept weights that are not safetensors.")
@click.option("--trust-remote-code", is_flag=True, help="Run code that the pipeline brings.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads of the model.")
@click.option("--rank", type=int, help="Which process this is; torchrun and SLURM set it.")
@click.option("--world-size", type=int, help="Of how many.")
@endpoint_option
@json_option
def command(**options: Any) -> int | None:
    """Record full score trajectories of a pipeline into a store.

    With --json, one object is printed at the end, and an event a batch on standard error.
    """
    from asced_cli.call_arguments import call_arguments
    from asced_recorders import record
    from asced_stores.errors import InputError
    from asced_stores.writing.placement import placement

    as_json = options.pop("as_json")
    threads = options.pop("threads")
    if threads:
        import torch

        torch.set_num_threads(threads)
    rank, _ = placement(options["rank"], options["world_size"])
    reporter = _JsonEvents() if as_json else _Bar(quiet=rank > 0)
    loading = {
        "device": options.pop("device"),
        "precision": options.pop("precision"),
        "local_files_only": options.pop("offline"),
        "variant": options.pop("weights_variant"),
        **{name: options.pop(name) for name in ("revision", "allow_pickle", "trust_remote_code")},
    }
    arguments: dict[str, Any] = {
        "scheduler_options": options.pop("scheduler_option"),
        "call_options": call_arguments(options.pop("call_option")),
        "keep_prompts": not options.pop("no_prompts"),
        "fsync": not options.pop("no_fsync"),
        "checkpoints": _integers(options.pop("checkpoints"), "--checkpoints"),
        "window": _window(options.pop("window")),
        "labels": _integers(options.pop("classes"), "--classes") or None,
    }
    fields = [name.strip() for name in options.pop("fields").split(",") if name.strip()]
    if fields:
        arguments["fields"] = fields
    thresholds, pruned = options.pop("thresholds"), options.pop("prune")
    if thresholds and options["keep"] == "all" and pruned is None:
        raise InputError("--thresholds goes with --keep flagged or --prune")
    arguments["observers"] = _observers(options["keep"], thresholds)
    arguments["pruning"] = _pruning(pruned, thresholds)
    with reporter:
        store = record(progress=reporter.tell, **options, **arguments, **loading)
    facts = reporter.facts
    result = {
        "store": options["out"],
        "runs": int(facts.get("done", 0)),
        "kept": int(facts.get("kept", 0)),
        "batches": len(store.committed_batches()),
        "steps": store.spec.steps,
        "bytes": int(facts.get("bytes", 0)),
        "seconds": facts.get("seconds"),
    }
    if rank == 0 or as_json:
        full = f", {result['kept']} of them in full" if options["keep"] != "all" else ""
        table = [
            ("store", str(result["store"])),
            ("recorded", f"{result['runs']} runs of {result['steps']} steps{full}"),
            ("written", f"{result['bytes'] / 1e6:.1f} MB in {result['seconds']} s"),
        ]
        emit(result, as_json=as_json, table=table)
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


def _pruning(text: str | None, thresholds: str | None) -> Any:
    """The pruner of ``4:1``."""
    from asced_stores.errors import InputError

    if text is None:
        return None
    try:
        draw, finish = (int(part) for part in text.split(":"))
    except ValueError as error:
        raise InputError(
            f"--prune is {text!r}: give how many to draw and to finish, for example 4:1"
        ) from error
    if not thresholds:
        raise InputError("--prune needs --thresholds, which say what is promising")
    from asced_analysis.correction import Pruner

    return Pruner.from_file(thresholds, draw=draw, finish=finish)


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


def _window(text: str | None) -> tuple[int, int] | None:
    from asced_stores.errors import InputError

    if text is None:
        return None
    try:
        first, last = (int(part) for part in text.split(":"))
    except ValueError as error:
        raise InputError(
            f"--window is {text!r}: give the first and the last step, for example 4:17"
        ) from error
    return first, last


def _integers(text: str, name: str) -> list[int]:
    from asced_stores.errors import InputError

    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise InputError(f"{name} is {text!r}: give whole numbers, for example 8,12") from error
