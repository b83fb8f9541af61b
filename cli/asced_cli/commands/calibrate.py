"""``asced calibrate``: thresholds with a stated false-alarm rate."""

from __future__ import annotations

import click

from asced_cli.options import emit, json_option


@click.command(
    epilog="Example: asced calibrate runs.zarr --variant calibrated --false-alarm-rate 0.05 "
    "--out thresholds.json"
)
@click.argument("store")
@click.option("--variant", default="calibrated", show_default=True, help="Detection variant.")
@click.option("--method", default="conformal", show_default=True, help="Kind of guarantee.")
@click.option("--false-alarm-rate", type=float, default=0.05, show_default=True)
@click.option("--confidence", type=float, help="Keep the rate for this calibration, so surely.")
@click.option("--strategy", default="ttc", show_default=True, help="Default correction.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the split of runs.")
@click.option("--out", help="File to write.")
@click.option("--overwrite", is_flag=True, help="Replace an existing file.")
@json_option
def command(
    store: str,
    variant: str,
    method: str,
    false_alarm_rate: float,
    confidence: float | None,
    strategy: str,
    seed: int,
    out: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Calibrate thresholds on the recorded runs of STORE."""
    from pathlib import Path

    from asced_analysis.calibration import calibrate
    from asced_stores.errors import InputError

    if out and Path(out).exists() and not overwrite:
        raise InputError(f"{out} exists; choose another name or pass --overwrite")
    thresholds = calibrate(
        store,
        variant,
        method=method,
        false_alarm_rate=false_alarm_rate,
        confidence=confidence,
        strategy=strategy,
        seed=seed,
    )
    if out:
        thresholds.save(out, overwrite=overwrite)
    guarantee = thresholds.guarantee
    measured = "not measured"
    if guarantee.measured is not None and guarantee.interval is not None:
        low, high = guarantee.interval
        measured = f"{guarantee.measured:.3f} ({low:.3f} to {high:.3f}) on {guarantee.report} runs"
    emit(
        {
            "variant": thresholds.variant,
            "level": thresholds.levels.level,
            "guarantee": thresholds.to_dict()["guarantee"],
            "out": out,
        },
        as_json=as_json,
        table=[
            ("variant", thresholds.variant),
            ("level", f"{thresholds.levels.level:.4g}"),
            ("promised", f"{guarantee.promised:g} of {guarantee.population}"),
            ("method", f"{guarantee.method}, {guarantee.calibrate} {guarantee.unit}s"),
            ("measured", measured),
            (
                "window",
                "steps {} to {} of {}".format(*thresholds.window.steps, thresholds.window.of_steps),
            ),
            *([("written", out)] if out else []),
        ],
    )
