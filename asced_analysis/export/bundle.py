"""A folder with all that a port in another language needs, and proves itself with."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path

from asced_analysis.detection.registry import VARIANTS
from asced_analysis.thresholds.document import Thresholds, schema
from asced_analysis.thresholds.wording import measured_in_words, promised_in_words
from asced_stores.errors import InputError
from asced_stores.files import check_out, whole, write_json

BUNDLE_FILES = (
    *("conformance.json", "thresholds.json", "thresholds.schema.json", "README.md"),
    "*.safetensors",
)
"""As `check_out` takes them."""


def export_bundle(
    thresholds: Thresholds, out: str | PathLike[str], *, overwrite: bool = False
) -> Path:
    """Write a folder: thresholds, learnt weights, schema, conformance vectors, ``README.md``.

    Parameters
    ----------
    thresholds : Thresholds
    out : path
        A folder that does not exist yet; whole or not at all.
    overwrite : bool
        Whether an earlier bundle may be replaced; a folder that holds anything else never is.

    Raises
    ------
    InputError
        Where the folder exists or is no bundle, or these thresholds carry no conformance vectors.

    Examples
    --------
    >>> from asced_analysis import Thresholds
    >>> from asced_analysis.export import export_bundle
    >>> folder = export_bundle(Thresholds.load("thresholds.json"), "detector")
    >>> "README.md" in {path.name for path in folder.iterdir()}
    True
    """
    if not VARIANTS.get(thresholds.variant).algorithm:
        able = [name for name in VARIANTS if VARIANTS.get(name).algorithm]
        raise InputError(
            f"there is no bundle for the variant {thresholds.variant}; expected one of {able}"
        )
    if not thresholds.conformance:
        raise InputError("these thresholds carry no conformance vectors; calibrate again")
    target = check_out(out, overwrite=overwrite, folder=True, own=BUNDLE_FILES)
    with whole(target, overwrite=overwrite) as part:
        part.mkdir()
        thresholds.save(part / "thresholds.json")
        write_json(part / "thresholds.schema.json", schema())
        write_json(part / "conformance.json", list(thresholds.to_dict()["conformance"]))
        (part / "README.md").write_text(readme(thresholds), encoding="utf-8")
    return target


def export_schema(out: str | PathLike[str], *, overwrite: bool = False) -> Path:
    """Write the JSON Schema of thresholds files.

    Examples
    --------
    >>> from asced_analysis.export import export_schema
    >>> export_schema("schema.json").name
    'schema.json'
    """
    return write_json(check_out(out, overwrite=overwrite), schema(), overwrite=overwrite)


def readme(thresholds: Thresholds) -> str:
    """The algorithm in plain steps, with this file's guarantee."""
    guarantee = thresholds.guarantee
    promise = (
        f"Promised rate {promised_in_words(guarantee)} of {guarantee.population} "
        f"({guarantee.method}, {guarantee.calibrate} calibration {guarantee.unit}s); measured: "
        f"{measured_in_words(guarantee)}."
    )
    return f"""# Detector `{thresholds.variant}`

`thresholds.json` holds all numbers, `thresholds.schema.json` says what each may be, and
`conformance.json` holds small inputs with the masks and scores a correct port gives: masks must be
equal, scores within 1e-3.

{promise}

Calibrated on: {json.dumps(dict(thresholds.fingerprint))}

{VARIANTS.get(thresholds.variant).algorithm}
## Conformance

Every vector of `conformance.json` has `alpha`, `sigma` and `log_snr` (one entry a step, noisy end
first), `signal` (`x0` or `eps`: what `values` holds), `values` (step, channel, y, x; exact in half
precision), and what must come out: `mask` (rows of 0 and 1), `score`, `flagged`. Vectors of learnt
detectors also have the window's last `eps` and, where there is a lookahead, its predicted x0
(`lookahead_x0`).
"""
