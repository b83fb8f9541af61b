"""Thresholds: everything another deployment needs to flag and correct runs, as one JSON file.

Reading validates: unknown keys, versions, numbers that are not finite, sizes and names are refused
with what was found and what to do. The published schema is made from the dataclasses
(`asced_analysis.thresholds.schema`).
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from asced_analysis.thresholds.consistency import check_consistency
from asced_analysis.thresholds.content import Content
from asced_analysis.thresholds.files import (
    FORMAT,
    FORMAT_VERSION,
    LARGEST_FILE,
    ThresholdsError,
    parse_file,
    parse_json,
)
from asced_analysis.thresholds.fingerprints import (
    FingerprintMismatchError,
    PortabilityWarning,
    differences,
    fingerprint_of,
    other_conditions,
)
from asced_analysis.thresholds.from_hub import local_file
from asced_analysis.thresholds.parts import (
    Cleanup,
    Correction,
    Guarantee,
    Levels,
    Transfer,
    Window,
)
from asced_analysis.thresholds.registries import STRATEGIES, VARIANTS
from asced_analysis.thresholds.schema import read_content, schema
from asced_analysis.thresholds.wording import promise_rows
from asced_stores.errors import AscedError, InputError
from asced_stores.files import check_out, write_whole

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = [
    "FORMAT",
    "FORMAT_VERSION",
    "LARGEST_FILE",
    "Cleanup",
    "Correction",
    "FingerprintMismatchError",
    "Guarantee",
    "Levels",
    "PortabilityWarning",
    "Thresholds",
    "ThresholdsError",
    "Transfer",
    "Window",
    "fingerprint_of",
    "parse_json",
    "schema",
]


@dataclass(frozen=True)
class Thresholds(Content):
    """Calibrated thresholds. The classes of the fields say their JSON form.

    Attributes
    ----------
    variant : str
        A name of `asced_analysis.detection.VARIANTS`.
    parameters : mapping
        Of the variant; sizes are fractions of the image.
    levels, window, cleanup, correction, guarantee
        See their classes.
    fingerprint : mapping
        What the thresholds were calibrated on.
    counts : mapping
        Sparse counts of run summaries, for the drift check.
    conformance : tuple of mapping
        Small inputs with the masks they must give, for ports.
    groups : mapping of str to float
        Levels of groups that have their own.
    grouped_by : str or None
        Coordinate of the runs that says which group each is of: `label`, `prompt`, ...
    transfers : tuple of Transfer
        Other samplers that were looked at.
    weights : mapping or None
        Name and SHA-256 of the safetensors file beside this one (variant `outcome`).
    teacher : mapping or None
        Who labelled the outcomes that were learnt from, what they were compared with, how many runs
        were learnt from, and how outcomes and learnt score follow content.
    folder : str or None
        Where the file was read from; not part of the JSON.
    blob : bytes or None
        Content of the weights file where it was not read yet from `folder`; not part of the JSON.

    Examples
    --------
    >>> from asced_analysis import Thresholds
    >>> thresholds = Thresholds.load("thresholds.json")
    >>> thresholds.variant, thresholds.guarantee.promised
    ('calibrated', 0.2)
    >>> thresholds.save("copy.json").name
    'copy.json'
    """

    folder: str | None = field(default=None, compare=False)
    blob: bytes | None = field(default=None, compare=False, repr=False)

    def __repr__(self) -> str:
        kept = self.guarantee
        return (
            f"<Thresholds {self.variant}: {100 * kept.promised:g} % of {kept.population} by "
            f"{kept.unit}, {kept.method}>"
        )

    def _repr_html_(self) -> str:
        """A short table for notebooks."""
        from asced_stores.notebook import html_table

        title, notes = f"Thresholds: {self.variant}", "; ".join(self.guarantee.notes)
        return html_table(title, ("", ""), promise_rows(self)[1:], notes)

    def to_dict(self) -> dict[str, Any]:
        """JSON form: plain dicts, lists, strings and finite numbers."""
        fields = asdict(replace(self, blob=None))
        del fields["folder"], fields["blob"]
        plain = {"format": FORMAT, "format_version": FORMAT_VERSION, **fields}
        return dict(json.loads(json.dumps(plain, allow_nan=False)))

    @classmethod
    def from_dict(cls, content: Any, *, folder: str | None = None) -> Self:
        """Check a JSON form and build the thresholds.

        Raises
        ------
        ThresholdsError
            Naming the place in the file, what was found and what was expected.
        """
        thresholds = cls(**vars(read_content(content)), folder=folder)
        thresholds._check_shapes()
        return thresholds

    def save(self, path: str | PathLike[str], *, overwrite: bool = False) -> Path:
        """Write the JSON file, whole or not at all.

        Raises
        ------
        InputError
            Where the file exists and `overwrite` is not set.
        """
        target = check_out(path, overwrite=overwrite)
        text = json.dumps(self.to_dict(), allow_nan=False, separators=(",", ":"))
        self.from_dict(json.loads(text), folder=self.folder)  # never write what can't be read
        if self.weights is not None:  # first, so that the JSON never names what isn't there
            weights = target.with_name(self.weights["name"])
            write_whole(weights, self.weights_bytes(), overwrite=True)
        return write_whole(target, text + "\n", overwrite=overwrite)

    def weights_bytes(self) -> bytes:
        """Content of the weights file, checked against its hash.

        Raises
        ------
        ThresholdsError
            Where there is none, or it is not the one these thresholds were made with.
        """
        if self.weights is None:
            raise ThresholdsError("these thresholds name no weights file")
        name, content = self.weights["name"], self.blob
        if content is None:
            if self.folder is None:
                raise ThresholdsError(
                    f"the weights {name} lie beside the thresholds file; load the thresholds from "
                    "their file"
                )
            try:
                content = (Path(self.folder) / name).read_bytes()
            except OSError as error:
                raise ThresholdsError(
                    f"the weights {name} can't be read: {error}. Copy them beside the thresholds "
                    "file."
                ) from error
        found = hashlib.sha256(content).hexdigest()
        if found != self.weights["sha256"]:
            raise ThresholdsError(
                f"the weights {name} have SHA-256 {found[:12]}..., expected "
                f"{self.weights['sha256'][:12]}...; copy the file that belongs to these thresholds"
            )
        return content

    @classmethod
    def load(
        cls,
        path: str | PathLike[str],
        *,
        fingerprint: Mapping[str, Any] | None = None,
        override: bool = False,
    ) -> Self:
        """Read and validate a file.

        Parameters
        ----------
        path : path
            Or ``hf://owner/name``: a repository of the Hub (`asced_analysis.export.hub.push`).
        fingerprint : mapping, optional
            What the thresholds are about to be used on (see `fingerprint_of`): a difference in the
            model, prediction type or sample shape is an error, another sampler a warning.
        override : bool
            Use them all the same.

        Raises
        ------
        ThresholdsError
            Where the file is missing, too large, no JSON or doesn't fit the schema.
        FingerprintMismatchError
            Where it was calibrated on something else.
        """
        file = local_file(path)
        thresholds = cls.from_dict(parse_file(file), folder=str(file.parent))
        if fingerprint is not None and not override:
            thresholds.check_fingerprint(fingerprint)
        return thresholds

    def check_fingerprint(self, fingerprint: Mapping[str, Any]) -> None:
        """Compare with what the thresholds are about to be used on.

        Raises
        ------
        FingerprintMismatchError
            Naming every key that differs.

        Warns
        -----
        PortabilityWarning
            Where only one of the two says which model it comes from, or the sampler is another, or
            the model computes otherwise (caches, compilation, quantisation, attention, precision).
        """
        different = differences(self.fingerprint, fingerprint)
        if different:
            raise FingerprintMismatchError(
                "these thresholds belong to something else: "
                + "; ".join(different)
                + ". Calibrate on runs of this pipeline, or override if you know better."
            )
        known = self.fingerprint.get("model_fingerprint") is not None
        if known != (fingerprint.get("model_fingerprint") is not None):
            warnings.warn(
                f"{'the runs' if known else 'these thresholds'} do not say which model they come "
                "from (model_fingerprint), so nothing shows that it is the same: its false-alarm "
                "rate is not promised. Record with the model (`Recorder.custom(..., model=net)`).",
                PortabilityWarning,
                stacklevel=2,
            )
        otherwise = other_conditions(self.fingerprint, fingerprint)
        if otherwise:
            warnings.warn(
                "these runs were computed in another way than those of the calibration "
                f"({'; '.join(otherwise)}): the false-alarm rate is not promised there. "
                "`asced calibrate --check` shows whether their scores drift",
                PortabilityWarning,
                stacklevel=2,
            )
        self.level_for(fingerprint.get("scheduler_class"), fingerprint.get("steps"))

    def level_for(
        self, scheduler_class: str | None = None, steps: int | None = None, *, group: Any = None
    ) -> float:
        """Level for a sampler (and group), with a warning where none was shown to hold there.

        Parameters
        ----------
        scheduler_class : str, optional
            None: the calibrating sampler's.
        steps : int, optional
        group : optional
            Label or prompt; groups without a level of their own use the pooled one.
        """
        pooled = self.levels.level
        own = self.groups.get(str(group), pooled) if group is not None else pooled
        here = (
            scheduler_class or self.fingerprint.get("scheduler_class"),
            steps or self.fingerprint.get("steps"),
        )
        if here == (self.fingerprint.get("scheduler_class"), self.fingerprint.get("steps")):
            return own
        for transfer in self.transfers:
            if (transfer.scheduler_class, transfer.steps) == here:
                return transfer.level + (own - pooled)
        nearest = max(self.transfers, key=lambda transfer: transfer.factor, default=None)
        measured = (
            "no factor was measured there"
            if nearest is None
            else f"the largest measured factor is {nearest.factor:.2f}, for "
            f"{nearest.scheduler_class} at {nearest.steps} steps"
        )
        warnings.warn(
            f"these thresholds were calibrated with {self.fingerprint.get('scheduler_class')} at "
            f"{self.fingerprint.get('steps')} steps, not {here[0]} at {here[1]} steps: the "
            f"false-alarm rate there is not promised ({measured}). Run `asced calibrate "
            "--transfer STORE` on 200 runs of this sampler.",
            PortabilityWarning,
            stacklevel=2,
        )
        return own

    def levels_for(
        self,
        groups: Sequence[Any] | npt.NDArray[Any] | None,
        scheduler_class: str | None = None,
        steps: int | None = None,
    ) -> npt.NDArray[np.float64] | None:
        """Level of each run by its group; None where one level is for all.

        Parameters
        ----------
        groups : sequence, one entry a run, or None
            Values of the coordinate `grouped_by`.
        scheduler_class, steps
            See `level_for`.

        Raises
        ------
        InputError
            Where groups have levels of their own, and which group the runs are of is not known.
        """
        import numpy as np

        if not self.groups:
            return None
        if groups is None:
            raise InputError(
                f"these thresholds have levels by {self.grouped_by}, which is not known of these "
                f"runs: give it (Corrector.assign(runs, groups=...), or runs recorded with it)"
            )
        level = self.level_for(scheduler_class, steps)
        own = [self.groups.get(str(group), self.levels.level) for group in groups]
        return np.asarray(own, np.float64) + (level - self.levels.level)

    def with_transfer(self, transfer: Transfer) -> Self:
        """Replace or add what is known about another sampler."""
        key = (transfer.scheduler_class, transfer.steps)
        others = tuple(r for r in self.transfers if (r.scheduler_class, r.steps) != key)
        return replace(self, transfers=(*others, transfer))

    def with_levels(self, **changes: Any) -> Self:
        """Replace some of the levels."""
        return replace(self, levels=replace(self.levels, **changes))

    def _check_shapes(self) -> None:
        """Check what a schema can't say: numbers that fit each other, parameters of the variant."""
        check_consistency(self)
        variant = VARIANTS.get(self.variant)
        if variant.learnt != (self.weights is not None):
            raise ThresholdsError(
                f"the variant {self.variant} is {'' if variant.learnt else 'not '}learnt, so "
                f"`weights` must {'name its weights file' if variant.learnt else 'be null'}"
            )
        STRATEGIES.check(self.correction.strategy)
        if self.weights is not None and self.folder is None and self.blob is None:
            return  # without the weights no detector can be tried
        try:
            variant.check(self)
        except ThresholdsError:
            raise
        except AscedError as error:
            raise ThresholdsError(f"the thresholds make no detector: {error}") from error
