"""``asced export``: thresholds for other deployments, masks for tools that label."""

from __future__ import annotations

from typing import Any

import click

from asced_cli import completion
from asced_cli.command import asced_command, emit

OF_THRESHOLDS = ("bundle", "torch")
OF_RUNS = ("coco", "png")
OF_NOTHING = ("schema", "grafana")


@asced_command(
    (
        "A folder from which a port in any language can be written and checked",
        "asced export thresholds.json --format bundle --out detector/",
    ),
    (
        "A torch program that runs without this package",
        "asced export thresholds.json --format torch --out detector.pt2",
    ),
    ("The schema of the thresholds file", "asced export --format schema --out schema.json"),
    ("The dashboard for Grafana", "asced export --format grafana --out dashboard.json"),
    (
        "Pictures and detected masks for FiftyOne, CVAT or Label Studio",
        "asced export runs.zarr --thresholds thresholds.json --format coco --out labelling/",
    ),
    (
        "The masks of a replay, as PNG files",
        "asced export corrected.zarr --format png --out masks/",
    ),
    sections={"Masks": "thresholds masks only_flagged pipeline"},
)
@click.argument("source", shell_complete=completion.stores_and_thresholds, required=False)
@click.option(
    "--format",
    "form",
    required=True,
    type=click.Choice([*OF_THRESHOLDS, *OF_NOTHING, *OF_RUNS]),
    help="Of thresholds: bundle (a folder for ports), torch (a torch.export program). Of runs: "
    "coco (pictures and labels.json), png (pictures and masks). Of neither: schema (of thresholds "
    "files), grafana (the dashboard of a monitor's metrics).",
)
@click.option("--out", required=True, help="Folder (bundle, coco, png) or file to write.")
@click.option("--overwrite", is_flag=True, help="Replace what exists.")
@click.option(
    "--thresholds",
    shell_complete=completion.files(".json"),
    help="Thresholds that find the masks; without, those that the store holds (a replay's).",
)
@click.option("--masks", help="Masks from outside: a folder of PNGs, COCO (.json), or .npz.")
@click.option("--only-flagged", is_flag=True, help="Leave out runs whose mask is empty.")
@click.option("--pipeline", help="For thresholds with a lookahead, if the store names no pipeline.")
def command(source: str | None, form: str, out: str, overwrite: bool, **of: Any) -> None:
    """Export SOURCE: thresholds to another deployment, or the masks of a store to labelling tools.

    Schema and dashboard need no SOURCE.
    """
    from asced_analysis.export import export_bundle, export_program, export_schema
    from asced_analysis.export.bundle import BUNDLE_FILES
    from asced_analysis.export.masks import FORMATS
    from asced_analysis.monitoring import write_dashboard
    from asced_analysis.thresholds.document import Thresholds
    from asced_stores.errors import InputError
    from asced_stores.files import check_out

    own = {"bundle": BUNDLE_FILES, **FORMATS}.get(form, ())
    check_out(out, overwrite=overwrite, folder=bool(own), own=own)
    if form == "schema":
        path = export_schema(out, overwrite=overwrite)
    elif form == "grafana":
        path = write_dashboard(out, overwrite=overwrite)
    elif source is None:
        needed = "a thresholds file" if form in OF_THRESHOLDS else "a store"
        raise InputError(f"the format {form} needs {needed} as its first argument")
    elif form in OF_RUNS:
        path = _masks(source, out, form, overwrite=overwrite, **of)
    elif form == "bundle":
        path = export_bundle(Thresholds.load(source), out, overwrite=overwrite)
    else:
        path = export_program(Thresholds.load(source), out, overwrite=overwrite)
    emit({"format": form, "out": str(path)}, written=[str(path)])


def _masks(
    source: str,
    out: str,
    form: Any,
    *,
    thresholds: str | None,
    masks: str | None,
    only_flagged: bool,
    pipeline: str | None,
    overwrite: bool,
) -> Any:
    """Masks that thresholds find, that a file brings, or that the store holds."""
    from asced_analysis.detection.apply import detect
    from asced_analysis.detection.external import read_masks
    from asced_analysis.export.masks import export_masks, masks_of
    from asced_analysis.thresholds.document import Thresholds
    from asced_stores import open_runs

    runs = open_runs(source)
    if masks is not None:
        found = read_masks(masks)
    elif thresholds is not None:
        found = masks_of(detect(runs, Thresholds.load(thresholds), pipeline=pipeline))
    else:
        found = masks_of(runs)
    if only_flagged:
        found = {run: mask for run, mask in found.items() if mask.any()}
    return export_masks(runs, out, form=form, masks=found, overwrite=overwrite)
