"""Nodes: load thresholds, correct what is sampled with a model, see what was found."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asced_recorders.comfyui.listening import Sampling, listen
from asced_recorders.tap.events import TapListener
from asced_stores.errors import AscedError, InputError

if TYPE_CHECKING:
    from asced_analysis.correction.settings import ImageReport
    from asced_analysis.thresholds.document import Thresholds

logger = logging.getLogger(__name__)

AS_CALIBRATED = "as calibrated"


class Found:
    """What was found in the last sampling; the Report node reads it."""

    def __init__(self) -> None:
        self.images: list[ImageReport] = []

    def __deepcopy__(self, memo: Any) -> Found:
        return self


class LoadThresholds:
    """Thresholds from a JSON file."""

    CATEGORY = "asced"
    FUNCTION = "load"
    RETURN_TYPES = ("ASCED_THRESHOLDS",)
    DESCRIPTION = "Loads thresholds that `asced calibrate` wrote."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 (ComfyUI's name)
        """What the node is given."""
        tip = "A path, the name of a file in ComfyUI's input folder, or hf://owner/name"
        return {"required": {"file": ("STRING", {"default": "thresholds.json", "tooltip": tip})}}

    @classmethod
    def VALIDATE_INPUTS(cls, file: str) -> bool | str:  # noqa: N802
        """Say before anything is sampled that a file is missing, or holds no thresholds."""
        try:
            read_thresholds(file)
        except (AscedError, OSError) as error:
            return str(error)
        return True

    @classmethod
    def IS_CHANGED(cls, file: str) -> str:  # noqa: N802
        """By the file's content, so that a new calibration is read."""
        return hashlib.sha256(thresholds_file(file).read_bytes()).hexdigest()

    def load(self, file: str) -> tuple[Thresholds]:
        """Read them."""
        return (read_thresholds(file),)


class Correct:
    """Detects and corrects artifacts in whatever is sampled with the model."""

    CATEGORY = "asced"
    FUNCTION = "correct"
    RETURN_TYPES = ("MODEL", "ASCED_REPORT")
    DESCRIPTION = (
        "Looks at the score's dynamics while any sampler works, and corrects the images that it "
        "flags. Samplers in which an edit would not last are refused before they begin."
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        """What the node is given."""
        from asced_analysis.thresholds.registries import STRATEGIES

        names = [name for name in STRATEGIES.names() if STRATEGIES.get(name).in_loop]
        return {
            "required": {
                "model": ("MODEL",),
                "thresholds": ("ASCED_THRESHOLDS",),
                "strategy": ([AS_CALIBRATED, *names], {"default": AS_CALIBRATED}),
            },
            "optional": {
                "group": (
                    "STRING",
                    {"default": "", "tooltip": "Label or prompt, for thresholds by group"},
                ),
            },
        }

    def correct(
        self, model: Any, thresholds: Thresholds, strategy: str = AS_CALIBRATED, group: str = ""
    ) -> tuple[Any, Found]:
        """Give a copy of the model that corrects, and what will be found."""
        found = Found()

        def attach(sampling: Sampling) -> Any:
            return correcting(sampling, thresholds, found, strategy=strategy, group=group)

        return listen(model, attach), found


class Report:
    """What was found in the last sampling, once it is over."""

    CATEGORY = "asced"
    FUNCTION = "report"
    RETURN_TYPES = ("LATENT", "MASK", "STRING")
    RETURN_NAMES = ("latent", "edited", "text")
    DESCRIPTION = "Which images were flagged, and where they were edited. Put it after the sampler."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        """What the node is given."""
        return {"required": {"latent": ("LATENT",), "report": ("ASCED_REPORT",)}}

    def report(self, latent: Any, report: Found) -> tuple[Any, Any, str]:
        """Pass the latent on, with a mask an image and a line an image."""
        import numpy as np
        import torch

        masks = np.array([one.mask for one in report.images], np.float32)
        edited = torch.from_numpy(masks if len(masks) else np.zeros((1, 1, 1), np.float32))
        return latent, edited, "\n".join(lines(report.images)) or "nothing was sampled"


@contextmanager
def correcting(
    sampling: Sampling,
    thresholds: Thresholds,
    found: Found,
    *,
    strategy: str = AS_CALIBRATED,
    group: str = "",
) -> Iterator[TapListener]:
    """A listener that corrects one sampling.

    Parameters
    ----------
    sampling : Sampling
    thresholds : Thresholds
    found : Found
        Is told what was found.
    strategy : str
        Of `asced_analysis.correction`, or the thresholds' own.
    group : str
        Label or prompt of all runs, where thresholds have levels by it.

    Raises
    ------
    InputError
        Before anything is sampled, where a correction would not last or comes too late.
    """
    from asced_analysis.correction import Corrector
    from asced_analysis.detection.registry import needs_network

    chosen = None if strategy == AS_CALIBRATED else strategy
    network = sampling.ask if needs_network(thresholds) else None
    corrector = Corrector(thresholds, strategy=chosen, network=network)
    if thresholds.groups and not group:
        raise InputError(
            f"these thresholds have levels by {thresholds.grouped_by}: give the node the group "
            f"that is sampled, one of {', '.join(sorted(thresholds.groups))}"
        )
    count = sampling.shape[0]
    first = sampling.seed % 2**62  # another seed, other noise in what is edited
    runs = range(first, first + count)
    corrector.assign(runs, groups=[group] * count if thresholds.groups else None)
    if corrector.strategy.edits:
        target = corrector.target(sampling.table)
        _check_part(sampling, thresholds, target)
        steps = corrector.strategy.edited_steps(target, sampling.table.steps)
        if steps:
            sampling.check_edits(steps)
    found.images = []
    yield corrector
    found.images = list(corrector.report)
    for line in lines(found.images):
        logger.info("asced: %s", line)


def _check_part(sampling: Sampling, thresholds: Thresholds, target: int) -> None:
    """Refuse a part of sampling that ends before the correction."""
    wanted = thresholds.correction.log_snr
    if sampling.whole or wanted is None:
        return
    alpha, sigma = sampling.level(float(sampling.sigmas[-1]))
    if float(wanted) >= 2 * math.log(max(alpha, 1e-12) / sigma):
        raise InputError(
            f"this sampler stops at sigma {float(sampling.sigmas[-1]):.4g}, before the correction "
            f"at log-SNR {float(wanted):.3g}: sample the steps up to there in one node"
        )


def lines(images: list[ImageReport]) -> list[str]:
    """A line an image."""
    return [
        f"image {index}: {'flagged' if one.flagged else 'not flagged'}, score {one.score:.4g}, "
        f"{100 * one.changed:.1f} % edited"
        for index, one in enumerate(images)
    ]


def thresholds_file(file: str) -> Path:
    """A path, a file in ComfyUI's input folder, or one that came from the Hub.

    Raises
    ------
    InputError
        Where there is no such file.
    HubError
        Where the Hub refuses, or does not answer and the cache does not hold it.
    """
    from asced_analysis.thresholds.from_hub import local_file

    path = local_file(file.strip())
    if not path.is_absolute():
        import folder_paths  # ComfyUI's own

        path = Path(folder_paths.get_input_directory()) / path.expanduser()
    if not path.is_file():
        raise InputError(
            f"{path} does not exist: write thresholds there (`asced calibrate runs.zarr --out "
            f"{path.name}`), or give hf://owner/name"
        )
    return path


def read_thresholds(file: str) -> Thresholds:
    """Read thresholds of a path or a name."""
    from asced_analysis.thresholds.document import Thresholds

    name = file.strip()
    return Thresholds.load(name if name.startswith("hf://") else thresholds_file(name))
