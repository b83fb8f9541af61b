"""Thresholds: everything another deployment needs to flag and correct runs, as one JSON file.

Reading validates: unknown keys, versions, numbers that are not finite, sizes and names are refused
with what was found and what to do. The published schema is ``thresholds.schema.json`` beside this
module.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import Any, Self

from asced_stores.errors import AscedError, InputError

FORMAT = "asced-thresholds"
FORMAT_VERSION = "1.0"
LARGEST_FILE = 16 * 2**20
PORTABLE_KEYS = ("scheduler_class", "steps", "scheduler_config", "pipeline", "versions")
TOLERATED_FACTOR = 1.5


class ThresholdsError(InputError):
    """A thresholds file can't be used as it is."""


class FingerprintMismatchError(ThresholdsError):
    """Thresholds were calibrated on something else."""


class PortabilityWarning(UserWarning):
    """The promised false-alarm rate was not shown for this sampler, or the model is not known."""


@dataclass(frozen=True)
class Levels:
    """The level and what it is measured in.

    Attributes
    ----------
    log_snr : tuple of float
        Rising grid; n + 1 points make n cells. For variants without a grid, the window's ends.
    location, scale : nested tuples of float
        The population's, by cell (and place), or of the run score.
    level : float
        In robust units; a run whose score lies above it is flagged.
    whitening : nested tuples of float or None
        Of `diffpath` alone.
    """

    log_snr: tuple[float, ...]
    location: tuple[Any, ...]
    scale: tuple[Any, ...]
    level: float
    whitening: tuple[Any, ...] | None = None


@dataclass(frozen=True)
class Window:
    """The part of sampling that is looked at, in three units.

    Attributes
    ----------
    log_snr, normalised_time : (float, float)
        First and last; time runs from 0 (noise) to 1.
    steps : (int, int)
        First and last step of the calibrating sampler, both included.
    of_steps : int
        Number of that sampler's steps.
    """

    log_snr: tuple[float, float]
    normalised_time: tuple[float, float]
    steps: tuple[int, int]
    of_steps: int


@dataclass(frozen=True)
class Cleanup:
    """What a flagged region must measure, as fractions of the image's area and shorter side.

    Attributes
    ----------
    kind : str
        `opening`, `components` or `none`.
    min_area, min_width : float
        Fractions; rounded up to pixels (or map cells), at least 3 and 2 where not 0.
    """

    kind: str
    min_area: float = 0.0
    min_width: float = 0.0

    def pixels(self, height: int, width: int) -> tuple[int, int]:
        """Least area and least width for an image (or map) of this size."""
        area = max(3, math.ceil(self.min_area * height * width - 1e-9)) if self.min_area else 0
        side = max(2, math.ceil(self.min_width * min(height, width) - 1e-9))
        return area, side if self.min_width else 1


@dataclass(frozen=True)
class Correction:
    """How flagged runs are corrected by default.

    Attributes
    ----------
    strategy : str
        A name of `asced_analysis.correction`.
    log_snr, normalised_time : float
        Of the step whose entering sample is edited.
    strength : float
        Noise scale of the perturbation of predicted x0.
    seed : int
        Of the correction's own noise.
    grow : float
        Growth of the mask before the edit, as a fraction of the shorter side.
    """

    strategy: str
    log_snr: float
    normalised_time: float
    strength: float = 0.0
    seed: int = 0
    grow: float = 0.0


@dataclass(frozen=True)
class Guarantee:
    """What is promised about false alarms, to whom, and what was measured.

    Attributes
    ----------
    method : str
        How the level was found.
    promised : float
        False-alarm rate (or share of the image, for risk control) that is promised.
    finite_sample : bool
        Whether the promise holds at every sample size (robust levels have none).
    confidence : float or None
        Of a training-conditional promise; None where the promise is on average over calibrations.
    unit : str
        The exchangeable unit: `run` or `prompt`.
    population : str
        Of which runs the promise speaks.
    fit, calibrate, report : int
        Sizes of the three disjoint sets, in units.
    order_statistic : int or None
        The level is this largest of the calibration scores.
    measured, interval : float or None, (float, float) or None
        Rate on the report set, and its 95 % Clopper-Pearson interval.
    needed : mapping of str to int
        Calibration units needed for tighter rates.
    notes : tuple of str
        Anything a reader must know.
    """

    method: str
    promised: float
    finite_sample: bool
    confidence: float | None
    unit: str
    population: str
    fit: int
    calibrate: int
    report: int
    order_statistic: int | None
    measured: float | None
    interval: tuple[float, float] | None
    needed: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recheck:
    """The level for another sampler, from runs of that sampler.

    Attributes
    ----------
    scheduler_class : str
    steps : int
    runs : int
    realised : float
        False-alarm rate there under the original level.
    factor : float
        `realised` over the promise.
    level : float
        The level that keeps the promise there.
    """

    scheduler_class: str
    steps: int
    runs: int
    realised: float
    factor: float
    level: float


@dataclass(frozen=True)
class Thresholds:
    """Calibrated thresholds. See the schema for every field's JSON form.

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
        Levels of groups (labels or prompts) that have their own.
    rechecks : tuple of Recheck
        Other samplers that were looked at.
    weights : mapping or None
        Name and SHA-256 of the safetensors file beside this one (variant `outcome`).
    folder : str or None
        Where the file was read from; not part of the JSON.
    blob : bytes or None
        Content of the weights file where it was not read yet from `folder`; not part of the JSON.
    """

    variant: str
    parameters: Mapping[str, Any]
    levels: Levels
    window: Window
    cleanup: Cleanup
    correction: Correction
    guarantee: Guarantee
    fingerprint: Mapping[str, Any]
    counts: Mapping[str, Any] = field(default_factory=dict)
    conformance: tuple[Mapping[str, Any], ...] = ()
    groups: Mapping[str, float] = field(default_factory=dict)
    rechecks: tuple[Recheck, ...] = ()
    weights: Mapping[str, str] | None = None
    folder: str | None = field(default=None, compare=False)
    blob: bytes | None = field(default=None, compare=False, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """JSON form: plain dicts, lists, strings and finite numbers."""
        fields = asdict(replace(self, blob=None))
        del fields["folder"], fields["blob"]
        plain = {"format": FORMAT, "format_version": FORMAT_VERSION, **fields}
        return dict(json.loads(json.dumps(plain, allow_nan=False)))

    @classmethod
    def from_dict(cls, content: Any, *, folder: str | None = None) -> Self:
        """Check a JSON form against the schema and build the thresholds.

        Raises
        ------
        ThresholdsError
            Naming the place in the file, what was found and what was expected.
        """
        _check_version(content)
        _check_schema(content)
        _check_finite(content, "")
        fields = {key: value for key, value in content.items() if not key.startswith("format")}
        levels = dict(fields["levels"])
        fields["levels"] = Levels(
            _tuples(levels["log_snr"]),
            _tuples(levels["location"]),
            _tuples(levels["scale"]),
            float(levels["level"]),
            None if levels["whitening"] is None else _tuples(levels["whitening"]),
        )
        window = fields["window"]
        fields["window"] = Window(
            tuple(window["log_snr"]),
            tuple(window["normalised_time"]),
            tuple(window["steps"]),
            window["of_steps"],
        )
        guarantee = dict(fields["guarantee"])
        guarantee["notes"] = tuple(guarantee["notes"])
        if guarantee["interval"] is not None:
            guarantee["interval"] = tuple(guarantee["interval"])
        fields["guarantee"] = Guarantee(**guarantee)
        fields["cleanup"] = Cleanup(**fields["cleanup"])
        fields["correction"] = Correction(**fields["correction"])
        fields["conformance"] = tuple(fields["conformance"])
        fields["rechecks"] = tuple(Recheck(**recheck) for recheck in fields["rechecks"])
        thresholds = cls(**fields, folder=folder)
        thresholds._check_shapes()
        return thresholds

    def save(self, path: str | PathLike[str], *, overwrite: bool = False) -> Path:
        """Write the JSON file, whole or not at all.

        Raises
        ------
        InputError
            Where the file exists and `overwrite` is not set.
        """
        target = Path(path)
        if target.exists() and not overwrite:
            raise InputError(f"{target} exists; choose another name or pass --overwrite")
        text = json.dumps(self.to_dict(), allow_nan=False, separators=(",", ":"))
        self.from_dict(json.loads(text), folder=self.folder)  # never write what can't be read
        if self.weights is not None:  # first, so that the JSON never names what isn't there
            _write_whole(target.with_name(self.weights["name"]), self.weights_bytes())
        _write_whole(target, (text + "\n").encode())
        return target

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
        source = Path(path)
        thresholds = cls.from_dict(_parse(source), folder=str(source.parent))
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
            Where only one of the two says which model it comes from, or the sampler is another.
        """
        different = [
            f"{key} is {fingerprint[key]!r}, thresholds were calibrated on {value!r}"
            for key, value in self.fingerprint.items()
            if key not in PORTABLE_KEYS
            and value is not None
            and fingerprint.get(key) is not None
            and _plain(fingerprint[key]) != _plain(value)
        ]
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
        for recheck in self.rechecks:
            if (recheck.scheduler_class, recheck.steps) == here:
                return recheck.level + (own - pooled)
        nearest = max(self.rechecks, key=lambda recheck: recheck.factor, default=None)
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
            "--recheck STORE` on 200 runs of this sampler.",
            PortabilityWarning,
            stacklevel=2,
        )
        return own

    def with_recheck(self, recheck: Recheck) -> Self:
        """Replace or add what is known about another sampler."""
        key = (recheck.scheduler_class, recheck.steps)
        others = tuple(r for r in self.rechecks if (r.scheduler_class, r.steps) != key)
        return replace(self, rechecks=(*others, recheck))

    def _check_shapes(self) -> None:
        """Check what a schema can't say: lengths, orders, parameters of the variant."""
        from asced_analysis.detection.streaming import make_detector

        grid = self.levels.log_snr
        if any(b <= a for a, b in itertools.pairwise(grid)):
            raise ThresholdsError("levels.log_snr must rise; the file was changed by hand?")
        if len(self.levels.location) != len(self.levels.scale):
            raise ThresholdsError("levels.location and levels.scale differ in length")
        if not _positive(self.levels.scale):
            raise ThresholdsError("levels.scale must be positive everywhere")
        if (
            self.window.steps[0] > self.window.steps[1]
            or self.window.of_steps <= (self.window.steps[1])
        ):
            raise ThresholdsError(
                f"window.steps {self.window.steps} don't lie in order within "
                f"{self.window.of_steps} steps"
            )
        if (self.weights is None) != (self.variant != "outcome"):
            raise ThresholdsError("the variant outcome, and no other, names a weights file")
        if self.weights is not None and self.folder is None and self.blob is None:
            return  # without the weights no detector can be tried
        try:
            make_detector(self, alpha=(1.0, 1.0), sigma=(1.0, 1.0), log_snr=(grid[0], grid[-1]))
        except ThresholdsError:
            raise
        except AscedError as error:
            raise ThresholdsError(f"the thresholds make no detector: {error}") from error


def fingerprint_of(attributes: Mapping[str, Any], sample_shape: Sequence[int]) -> dict[str, Any]:
    """What thresholds remember of the runs they were calibrated on.

    Parameters
    ----------
    attributes : mapping
        A store's attributes.
    sample_shape : sequence of int
        ``(channel, y, x)`` or ``(frame, channel, y, x)``.
    """
    return {
        "model_fingerprint": attributes.get("model_fingerprint"),
        "prediction_type": attributes.get("prediction_type"),
        "sample_shape": [int(size) for size in sample_shape],
        "scheduler_class": attributes.get("scheduler_class"),
        "steps": attributes.get("steps"),
        "pipeline": attributes.get("pipeline"),
    }


def schema() -> dict[str, Any]:
    """The published JSON Schema of a thresholds file."""
    text = resources.files("asced_analysis").joinpath("thresholds.schema.json").read_text("utf-8")
    return dict(json.loads(text))


def _write_whole(target: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    part = target.with_name(f".{target.name}.part")
    part.write_bytes(content)
    part.replace(target)


@lru_cache(maxsize=1)
def _validator() -> Any:
    """Compiled schema."""
    import jsonschema

    return jsonschema.Draft202012Validator(schema())


def _parse(source: Path) -> Any:
    """JSON content of a file that may hold anything."""
    try:
        size = source.stat().st_size
        if size > LARGEST_FILE:
            raise ThresholdsError(
                f"{source} has {size:,} bytes, more than any thresholds file "
                f"({LARGEST_FILE:,}); is it one?"
            )
        raw = source.read_bytes()
    except FileNotFoundError:
        raise ThresholdsError(
            f"{source} does not exist; make one with `asced calibrate STORE --out {source}`"
        ) from None
    except OSError as error:
        raise ThresholdsError(f"{source} can't be read: {error}") from error
    return parse_json(raw, str(source))


def parse_json(raw: bytes, name: str) -> Any:
    """Parse JSON strictly: UTF-8, no NaN or infinity, no key twice.

    Raises
    ------
    ThresholdsError
    """
    try:
        return json.loads(
            raw.decode("utf-8"), parse_constant=_refuse_constant, object_pairs_hook=_unique
        )
    except (ValueError, RecursionError) as error:
        if isinstance(error, ThresholdsError):
            raise
        raise ThresholdsError(f"{name} is no JSON file: {error}") from None


def _refuse_constant(name: str) -> float:
    raise ThresholdsError(f"the number {name} is not allowed in a thresholds file")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ThresholdsError("a key stands twice in one object of the thresholds file")
    return content


def _check_version(content: Any) -> None:
    """Refuse other formats and newer versions by name."""
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ThresholdsError(
            f'this is no thresholds file: expected an object with "format": "{FORMAT}"'
        )
    version = content.get("format_version")
    parts = str(version).split(".")
    if not (isinstance(version, str) and len(parts) == 2 and all(p.isdecimal() for p in parts)):
        raise ThresholdsError(f"format_version is {version!r}; expected something like '1.0'")
    if version != FORMAT_VERSION:
        raise ThresholdsError(
            f"this thresholds file has format version {version}; this toolkit reads "
            f"{FORMAT_VERSION}. Update asced-analysis, or calibrate again."
        )


def _check_schema(content: Any) -> None:
    """Check against the published schema."""
    try:
        error = next(iter(_validator().iter_errors(content)), None)
    except RecursionError:
        raise ThresholdsError("the thresholds file is nested too deeply") from None
    if error is not None:
        place = "/".join(str(part) for part in error.absolute_path) or "the top level"
        raise ThresholdsError(f"thresholds file, at {place}: {error.message[:300]}")


def _check_finite(content: Any, place: str) -> None:
    """Refuse numbers such as 1e999, which JSON allows and Python reads as infinity."""
    if isinstance(content, float) and not math.isfinite(content):
        raise ThresholdsError(f"thresholds file, at {place}: a number is not finite")
    if isinstance(content, int) and not isinstance(content, bool) and abs(content) > 2**63:
        raise ThresholdsError(f"thresholds file, at {place}: a number is too large")
    if isinstance(content, dict):
        for key, value in content.items():
            _check_finite(value, f"{place}/{key}")
    elif isinstance(content, list):
        for index, value in enumerate(content):
            _check_finite(value, f"{place}/{index}")


def _tuples(values: Any) -> Any:
    """Nested lists as nested tuples of float."""
    if isinstance(values, list):
        return tuple(_tuples(value) for value in values)
    return float(values)


def _positive(values: Any) -> bool:
    """Whether all numbers of nested tuples are positive."""
    if isinstance(values, tuple):
        return all(_positive(value) for value in values)
    return bool(values > 0)


def _plain(value: Any) -> Any:
    """A value as JSON has it, so that tuples equal lists."""
    return json.loads(json.dumps(value))
