"""``asced replay``: recorded runs once more, with a correction."""

from __future__ import annotations

from typing import Any

import click

from asced_analysis.replay.options import ReplayOptions
from asced_cli import completion
from asced_cli.command import OutStore, asced_command, emit
from asced_cli.option_classes import all_options, given, options_of
from asced_cli.options import progress_callback, sampler_options, settings_option, store_argument
from asced_cli.registry_option import RegistryName, RegistryOption

option = options_of(ReplayOptions)


@all_options(ReplayOptions)
@asced_command(
    (
        "Flagged runs again, corrected; the others come back as they were",
        "asced replay runs.zarr --thresholds thresholds.json --out corrected.zarr",
    ),
    (
        "The same from a recorded checkpoint, which costs half",
        "asced replay runs.zarr --thresholds thresholds.json --start 12 --out corrected.zarr",
    ),
    (
        "Re-noise the foreground of flagged runs, and leave the other runs as they are",
        "asced replay runs.zarr --thresholds learnt.json --strategy renoise --where foreground "
        "--out renewed.zarr",
    ),
    (
        "The better of two such draws, chosen at step 20",
        "asced replay runs.zarr --thresholds learnt.json --strategy best_of --draws 2 "
        "--choose 20 --start 12 --out best.zarr",
    ),
    (
        "Prove that the recording comes back",
        "asced replay runs.zarr --strategy none --out again.zarr",
    ),
    (
        "Of a pipeline of one's own: a store keeps no path",
        "asced replay runs.zarr --thresholds thresholds.json --pipeline "
        "./my-model --out corrected.zarr",
    ),
    (
        "Of a sampling loop of one's own, sample(x_init, step) in mine.py",
        "asced replay runs.zarr --thresholds thresholds.json --loop mine:sample "
        "--out corrected.zarr",
    ),
    sections={
        "The correction": "where renoise_steps draws choose teacher step seed grow soft "
        "noise_scale eta settings",
        "Which runs, and controls": "masks only_flagged control override",
        "Sampling": "batch_size threads",
        "The store": "overwrite endpoint",
    },
)
@store_argument
@click.option(
    "--out",
    required=True,
    type=OutStore(),
    metavar="STORE",
    help="Store to write; its runs have the numbers of the recorded ones.",
)
@option("thresholds", shell_complete=completion.files(".json"))
@click.option(
    "--strategy",
    cls=RegistryOption,
    type=RegistryName("STRATEGIES"),
    help="Correction (docs/replay.md says what each does); none reproduces the recording.  "
    "[default: the thresholds' own; ttc with --masks]",
)
@click.option(
    "--where",
    type=click.Choice(["everywhere", "foreground", "mask"]),
    help="Region that renoise and best_of renew.",
)
@click.option(
    "--renoise-step",
    "renoise_steps",
    type=float,
    multiple=True,
    help="Later step at which to re-noise once more (ttc, renoise, best_of). Repeatable.",
)
@click.option("--draws", type=int, help="How many renewals best_of chooses from.")
@click.option("--choose", type=float, help="Step at which best_of chooses, or a share below 1.")
@option("teacher", metavar="FEATURES")
@option("start")
@option("control", type=click.Choice(["shuffled", "foreground", "everywhere"]))
@click.option(
    "--noise-scale", type=float, help="Strength of the perturbation (ttc, renoise, best_of)."
)
@click.option("--eta", type=float, help="DDIM's eta of the step from T_c (ttc, renoise, best_of).")
@settings_option(
    "--set",
    "settings",
    help="Any other parameter of the strategy (reverse_step=3, tries=5, mad_scale=2).",
)
@option("masks", help="Masks from outside: <run>.png in a folder, COCO (.json), or .npz.")
@sampler_options
def command(
    store: str,
    out: str,
    start: str,
    control: str | None,
    masks: str | None,
    renoise_steps: tuple[float, ...],
    settings: dict[str, Any],
    **more: Any,
) -> None:
    """Sample the runs of STORE again from the same noise, correcting the flagged ones."""
    from asced_analysis.detection.external import read_masks
    from asced_analysis.replay import exactness, replay
    from asced_stores import open_runs
    from asced_stores.errors import InputError

    if start != "init" and not start.isdigit():
        raise InputError(f"--start is init or a step, not {start!r}")
    own = {"progress": "what the command shows by itself"} | {
        str(one.name): one.opts[0] if isinstance(one, click.Option) else one.human_readable_name
        for one in click.get_current_context().command.params
    }
    if twice := sorted(own.keys() & settings.keys()):
        raise InputError(f"--set {twice[0]}=...: this is {own[twice[0]]}")
    chosen = {
        **more,
        "start": start if start == "init" else int(start),
        "control": control,
        "masks": None if masks is None else read_masks(masks),
        "renoise_steps": renoise_steps or None,
    }
    with progress_callback("replay") as tell:
        replayed = replay(store, out, progress=tell, **{**given(chosen), **settings})
    from asced_analysis.evaluation.control_runs import recorded_strategy

    agreement = exactness(replayed)
    done = recorded_strategy(replayed.attributes)
    flagged = int(open_runs(replayed.path)["flagged"].sum())
    runs = agreement.runs + agreement.copied + flagged
    emit(
        {
            "out": out,
            "runs": runs,
            "flagged": flagged,
            "strategy": done.name,
            "parameters": replayed.attributes["strategy_parameters"],
            "control": control,
            "start": start,
            "exactness": agreement.to_dict(),
        },
        table=[
            ("written", out),
            ("strategy", done.title if control is None else f"{done.title}, control {control}"),
            ("flagged", f"{flagged} of {runs} runs"),
            ("exactness", agreement.sentence()),
        ],
    )
