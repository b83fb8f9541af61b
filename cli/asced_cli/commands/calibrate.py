"""``asced calibrate``: thresholds with a stated false-alarm rate, their transfer, and drift."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from asced_analysis.calibration.options import CalibrateOptions
from asced_cli import completion
from asced_cli.command import SHARE, OutFile, asced_command, emit, note_unkept
from asced_cli.judging import teacher_options
from asced_cli.option_classes import options_of
from asced_cli.options import call_option, note_memory, pipeline_option, settings_option
from asced_cli.registry_option import RegistryName, RegistryOption

if TYPE_CHECKING:
    from asced_analysis.thresholds.document import Guarantee, Thresholds

option = options_of(CalibrateOptions)


@asced_command(
    (
        "At most one ordinary run in twenty is flagged",
        "asced calibrate runs.zarr --false-alarm-rate 0.05 --out thresholds.json",
    ),
    (
        "Find faults that break the predicted noise at a single step",
        "asced calibrate runs.zarr --set signal=innovation --set combine=peak --out f.json",
    ),
    (
        "Learn to predict which runs end badly, from how recorded runs ended",
        "asced calibrate runs.zarr --method outcome --out learnt.json",
    ),
    (
        "The same, taught by scores from elsewhere (a reward model, people)",
        "asced calibrate runs.zarr --method outcome --outcomes scores.csv --better higher",
    ),
    (
        "The same, with a lookahead of 0.24 of sampling",
        "asced calibrate runs.zarr --method outcome --lookahead 0.24 --out lookahead.json",
    ),
    (
        "Add a level for another sampler",
        "asced calibrate --transfer euler.zarr thresholds.json --out everywhere.json",
    ),
    (
        "Have new runs drifted from those of the calibration? Status 1 if so",
        "asced calibrate --check new.zarr thresholds.json",
    ),
    sections={
        "How the level is found": "confidence groups labels normal parameters window phases seed",
        "Learning from outcomes": "teacher real network outcomes better masks within_content "
        "lookahead pipeline call_options",
        "Other samplers and drift": "transfer check significance",
        "The file": "overwrite endpoint",
    },
)
@click.argument("source", shell_complete=completion.stores)
@click.option(
    "--transfer",
    shell_complete=completion.stores,
    metavar="STORE",
    help="Add a level for this store's sampler to the thresholds.",
)
@click.option(
    "--check",
    shell_complete=completion.stores,
    metavar="STORE",
    help="Test this store's runs for drift from those of the thresholds.",
)
@click.option(
    "--variant",
    cls=RegistryOption,
    type=RegistryName("VARIANTS"),
    default="calibrated",
    show_default=True,
    help="Detection variant (docs/thresholds.md says what each looks at).",
)
@option("method", type=click.Choice(["conformal", "robust", "risk", "labels", "outcome"]))
@option("false_alarm_rate", type=SHARE)
@option("confidence", type=SHARE)
@option("groups")
@click.option(
    "--labels", help="CSV with columns run and label, or masks: broken runs (method labels)."
)
@click.option(
    "--normal",
    help="CSV with columns run and label, or masks: the promised rate is that of normal runs.",
)
@settings_option(
    "--set", "parameters", help="A parameter of the variant, as docs/thresholds.md lists them."
)
@option("window", type=(float, float))
@click.option("--phases", is_flag=True, help="Window: the runs' own Mutation phase.")
@click.option(
    "--strategy",
    cls=RegistryOption,
    type=RegistryName("STRATEGIES"),
    help="Default correction (docs/replay.md says what each does).  "
    "[default: renoise of the foreground for outcome, else ttc]",
)
@click.option(
    "--lookahead",
    type=float,
    help="Method outcome: evaluate the model once more, this share of sampling ahead.",
)
@teacher_options
@pipeline_option
@call_option
@option("seed")
@click.option(
    "--significance",
    type=SHARE,
    default=0.01,
    show_default=True,
    help="Significance level of --check.",
)
@click.option("--out", type=OutFile(".json"), help="Thresholds file to write (*.json).")
@click.option("--overwrite", is_flag=True, help="Replace an existing file.")
def command(
    source: str,
    transfer: str | None,
    check: str | None,
    out: str | None,
    overwrite: bool,
    significance: float,
    **options: Any,
) -> int:
    """Calibrate thresholds on the recorded runs of SOURCE.

    With --transfer or --check, a store and a thresholds file are given, in either order.
    """
    from asced_analysis.thresholds.document import Thresholds
    from asced_stores.errors import InputError

    if transfer and check:
        raise InputError("give --transfer or --check, not both")
    if check:
        if out:
            raise InputError("--check writes nothing: give --out with --transfer, or leave it out")
        file, store = _file_first(source, check)
        return _check(Thresholds.load(file), store, significance, options["pipeline"])
    note_unkept(out)
    if transfer:
        file, store = _file_first(source, transfer)
        thresholds = _transfer(Thresholds.load(file), store, out, options["pipeline"])
    else:
        thresholds = _calibrate(source, out, options)
    if out:
        thresholds.save(out, overwrite=overwrite)
    return 0


def _file_first(first: str, second: str) -> tuple[str, str]:
    """The thresholds file and the store, in whichever order they were given."""
    from pathlib import Path

    def is_thresholds(word: str) -> bool:
        return word.endswith(".json") or Path(word).is_file()

    swapped = is_thresholds(second) or Path(first).is_dir()  # thresholds of the Hub have no suffix
    return (second, first) if swapped and not is_thresholds(first) else (first, second)


def _calibrate(source: str, out: str | None, options: dict[str, Any]) -> Thresholds:
    """Calibrate and print what is promised."""
    from pathlib import Path

    from asced_analysis.calibration import calibrate
    from asced_analysis.calibration.choose_level import LEARNING
    from asced_analysis.detection import VARIANTS
    from asced_analysis.detection.external import read_labels
    from asced_analysis.realism.claims import teacher_rows
    from asced_analysis.thresholds.wording import promise_rows
    from asced_stores.errors import InputError

    labels, normal = options.pop("labels"), options.pop("normal")
    if options.pop("phases"):
        options["window"] = "phases"
    lookahead, pipeline = options.pop("lookahead"), options.pop("pipeline")
    variant, method = options.pop("variant"), options["method"]
    learning = method == LEARNING or VARIANTS.get(variant).learnt
    samples = VARIANTS.get(variant).extra_evaluations(VARIANTS.get(variant).parameters()) > 0
    if pipeline is not None and not learning and not samples:
        raise InputError(
            f"--pipeline is for --method {LEARNING} and for variants that evaluate the model; "
            "choose one, or leave --pipeline out"
        )
    asked = {
        "lookahead": lookahead,
        **{name: options.pop(name) for name in ("within_content", "content")},
    }
    extra = {name: value for name, value in asked.items() if value is not None}
    if lookahead is not None and not learning:
        raise InputError(f"--lookahead belongs to --method {LEARNING}, not to {method}")
    note_memory(source, variant, options["parameters"])
    thresholds: Thresholds = calibrate(
        source,
        variant,
        parameters=options.pop("parameters"),
        outcome=extra,
        pipeline=pipeline,
        call_options=options.pop("call_options"),
        labels=read_labels(labels) if labels else None,
        normal={run: not bad for run, bad in read_labels(normal).items()} if normal else None,
        normal_name=Path(normal).stem if normal else "",
        **options,
    )
    guarantee = thresholds.guarantee
    band = None if thresholds.groups else guarantee.band()
    tighter = ", ".join(f"{rate}: {runs}" for rate, runs in guarantee.needed.items())
    emit(
        {
            "variant": thresholds.variant,
            "level": thresholds.levels.level,
            "guarantee": thresholds.to_dict()["guarantee"],
            "teacher": thresholds.to_dict()["teacher"],
            "expected_flags": band,
            "out": out,
        },
        table=[
            *promise_rows(thresholds),
            *([("expected, 99 %", _expected(guarantee, band))] if band else []),
            ("runs for tighter rates", tighter or "-"),
            *(() if thresholds.teacher is None else teacher_rows(thresholds.teacher)),
            *(("note", note) for note in guarantee.notes),
        ],
        written=[out],
    )
    return thresholds


def _expected(guarantee: Guarantee, band: tuple[int, int]) -> str:
    """Counts that a promise kept gives, beside the count that was found."""
    found = round((guarantee.measured or 0.0) * guarantee.report)
    return f"{band[0]} to {band[1]} of {guarantee.report} flagged; {found} were"


def _transfer(
    thresholds: Thresholds, store: str, out: str | None, pipeline: str | None
) -> Thresholds:
    """Measure another sampler."""
    from dataclasses import asdict

    from asced_analysis.calibration import calibrate_transfer

    note_memory(store, thresholds.variant, thresholds.parameters)
    known: Thresholds = calibrate_transfer(thresholds, store, pipeline=pipeline)
    entry = known.transfers[-1]
    emit(
        {"transfer": asdict(entry), "out": out},
        table=[
            ("sampler", f"{entry.scheduler_class} at {entry.steps} steps, {entry.runs} runs"),
            ("realised", f"{entry.realised:.4f}, {entry.factor:.2f} times the promise"),
            ("level there", f"{entry.level:.4g}"),
        ],
        written=[out],
    )
    return known


def _check(thresholds: Thresholds, store: str, significance: float, pipeline: str | None) -> int:
    """Test for drift; exit status 1 where there is some."""
    from asced_analysis.calibration import check

    note_memory(store, thresholds.variant, thresholds.parameters)
    drift = check(store, thresholds, significance=significance, pipeline=pipeline)
    emit(
        {
            "drifted": drift.drifted,
            "significance": drift.significance,
            "runs": drift.runs,
            "shipped_runs": drift.shipped_runs,
            "comparisons": [
                {"name": name, "distance": distance, "p_value": p}
                for name, distance, p in drift.comparisons
            ],
        },
        table=[
            ("drift", "yes: recalibrate" if drift.drifted else "none found"),
            ("runs", f"{drift.runs} new, {drift.shipped_runs} of the calibration"),
            *(
                (name, f"distance {distance:.3f}, p = {p:.2g}")
                for name, distance, p in drift.comparisons
            ),
        ],
    )
    return 1 if drift.drifted else 0
