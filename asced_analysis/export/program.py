"""The detector as a `torch.export` program: it runs without any Python of ours."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path

from asced_analysis.export.registry import PROGRAMS
from asced_analysis.thresholds.document import Thresholds
from asced_stores.files import check_out, whole


def export_program(
    thresholds: Thresholds,
    out: str | PathLike[str],
    *,
    shape: tuple[int, int, int] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a ``.pt2`` program.

    For `calibrated`, its inputs are `values` (batch, step, channel, y, x) float32, all steps of
    the sampler, noisy end first: predicted x0 for the signal `predicted_x0`, eps otherwise;
    `kappa` (step), ``sigma / alpha``; and `log_snr` (step). For `outcome`: `x0` and `eps`
    (batch, step, channel, y, x), `log_snr` (step), and `lookahead_x0` (batch, channel, y, x) where
    the thresholds need a lookahead. Batch and step are free. Its outputs are mask (batch, y, x)
    bool, score (batch) float32 and flagged (batch) bool.

    Parameters
    ----------
    thresholds : Thresholds
        Of the variant `calibrated` or `outcome`.
    out : path
    shape : (channel, y, x), optional
        Of the samples; the calibrated shape by default.
    overwrite : bool

    Raises
    ------
    InputError
        Where the variant is another, or the file exists.

    Examples
    --------
    >>> from asced_analysis import Thresholds
    >>> from asced_analysis.export import export_program
    >>> export_program(Thresholds.load("thresholds.json"), "detector.pt2").name
    'detector.pt2'
    """
    import torch

    make_program = PROGRAMS.get(thresholds.variant)
    target = check_out(out, overwrite=overwrite)
    sizes = shape or tuple(thresholds.fingerprint["sample_shape"][-3:])
    module, inputs, names = make_program(thresholds, sizes)
    free = {"batch": torch.export.Dim("batch", min=1)}
    free["step"] = torch.export.Dim("step", min=3, max=100_000)
    shapes = tuple({axis: free[name] for axis, name in enumerate(one)} for one in names)
    program = torch.export.export(module, inputs, dynamic_shapes=shapes)
    about = {"fingerprint": dict(thresholds.fingerprint), "level": thresholds.levels.level}
    with whole(target, overwrite=overwrite) as part:
        torch.export.save(program, part, extra_files={"thresholds.json": json.dumps(about)})
    return target
