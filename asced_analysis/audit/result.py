"""What an audit found: findings with their likely causes, and a table by step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from asced_analysis.thresholds.typed_json import finite_json

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with the runs.

    Attributes
    ----------
    name : str
        Short and stable, as ``start`` or ``timestep``.
    step : int or None
        First step at which it shows; None where it belongs to the schedule as a whole.
    what : str
        What was found, with numbers, and what was expected.
    cause : str
        The likely cause, and what to do.
    """

    name: str
    step: int | None
    what: str
    cause: str


@dataclass(frozen=True)
class Audit:
    """Whether runs obey their own schedule.

    Attributes
    ----------
    runs : int
        Looked at.
    finite : int
        Of these, without NaN or infinity; only they enter the table.
    findings : tuple of Finding
        What is wrong; empty where all is well.
    notes : tuple of str
        Observations that are no fault, and what could not be checked.
    steps : xarray.Dataset
        Every quantity by ``step``, as ratios to what the level asks for, with ``_low`` and
        ``_high``; the tolerance; and numbers of NaN and infinities.
    confidence : float
        Of all steps of a quantity together.
    attributes : dict
        Of the scheduler and pipeline, for titles.

    Examples
    --------
    >>> import asced_analysis as aa
    >>> audit = aa.audit(aa.open_runs("runs.zarr"))
    >>> audit.findings, audit.finite == audit.runs
    ((), True)
    """

    runs: int
    finite: int
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    steps: xr.Dataset
    confidence: float
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sound(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def table(self) -> pd.DataFrame:
        """The table by step, for people: what was found, and how far it may be off."""
        import pandas as pd

        names = {
            "timestep": "timestep",
            "alpha": "alpha",
            "sigma": "sigma",
            "energy": "energy of x",
            "noise": "noise in x",
            "eps_energy": "energy of eps",
            "eps_excess": "due",
            "next_noise": "next noise",
            "x0_low": "least x0",
            "x0_high": "greatest x0",
            "bad": "not finite",
        }
        values = {
            title: self.steps[name].values for name, title in names.items() if name in self.steps
        }
        values["due"] = values["energy of eps"] - values["due"]
        return pd.DataFrame(values, index=pd.Index(self.steps["step"].values, name="step"))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as ``asced audit --json`` prints them; NaN and infinity become null."""
        return {
            "runs": self.runs,
            "finite": self.finite,
            "sound": self.sound,
            "findings": [asdict(one) for one in self.findings],
            "notes": list(self.notes),
            "confidence": self.confidence,
            "steps": {
                str(name): finite_json(self.steps[name].values.tolist())
                for name in (*self.steps.coords, *self.steps.data_vars)
            },
        }

    def __str__(self) -> str:
        """The table, and what was found."""
        lines = [self.table().to_string(float_format=lambda value: f"{value:.4g}"), ""]
        for one in self.findings:
            where = "" if one.step is None else f" (step {one.step})"
            lines += [f"FOUND {one.name}{where}: {one.what}", f"  likely cause: {one.cause}"]
        lines += [f"note: {note}" for note in self.notes]
        if self.sound:
            lines.append(f"nothing found in {self.runs} runs")
        return "\n".join(lines)
