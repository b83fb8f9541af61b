"""What may be said of a judge's distances: the one place that words, figures and tables ask.

Without real images a distance says what is typical of a population, not what is real; and a
population has no Frechet distance, precision or recall against itself that mean anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Kind = Literal["real", "population", "model", "given", "masks"]


@dataclass(frozen=True)
class Reference:
    """What a judge or teacher compares images with.

    Attributes
    ----------
    kind : {"real", "population", "model", "given", "masks"}
        Real images; runs of the judged model; the model's own prediction; scores from elsewhere;
        masks from elsewhere.
    source : str
        Where it came from, in words; no paths.
    images : int
        How many images; 0 where there are none.
    """

    kind: Kind = "real"
    source: str = "real images"
    images: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def __str__(self) -> str:
        """For people."""
        return f"{self.source}, {self.images:,} images" if self.images else self.source


@dataclass(frozen=True)
class Claims:
    """Words for results of one kind of judge.

    Attributes
    ----------
    distance : str
        What is measured.
    axis : str
        Label of an axis that shows its change.
    better, worse : str
        What a lower and a higher value means, as comparatives.
    worst : str
        What the recorded runs beyond the limit are called.
    bad, good : str
        Single runs beyond the limit, and the others.
    left, fell : str
        What happened to a bad run that is no longer beyond the limit, and to a good one that is.
    meaning : str
        One sentence for those who never heard of it.
    of_sets : bool
        Whether Frechet distance, precision and recall mean anything.
    """

    distance: str
    axis: str
    better: str
    worse: str
    worst: str
    bad: str
    good: str
    left: str
    fell: str
    meaning: str
    of_sets: bool

    @property
    def ended(self) -> str:
        """Title of what became of runs: nobody is repaired by being more typical."""
        return "Repaired and harmed" if self.left == "repaired" else "Who left the worst quarter"


_QUARTER = ("remaining", "left the worst quarter", "fell into the worst quarter")
_CLAIMS: dict[str, Claims] = {
    "real": Claims(
        "local distance to real images",
        "change of the local distance to real images (negative: more realistic)",
        "more realistic",
        "less realistic",
        "the least realistic quarter of the recorded runs",
        *("bad", "good", "repaired", "harmed"),
        "Local distance is how far small regions of an image lie from the nearest ones of real "
        "images, in the judge's features: lower is more realistic.",
        True,
    ),
    "population": Claims(
        "local distance to the other runs",
        "change of the local distance to the other runs (negative: more typical)",
        "more typical of this population",
        "less typical of this population",
        "the least typical quarter of the recorded runs",
        *("least typical", *_QUARTER),
        "Local distance is how far small regions of an image lie from the nearest ones of other "
        "runs of the same population (never of the image itself or its paired run), in the judge's "
        "features: lower is more typical of this population. There are no real images behind it, "
        "so it does not say what is realistic.",
        False,
    ),
    "model": Claims(
        "self-consistency",
        "change of the self-consistency score (negative: closer to what the model predicts)",
        "closer to what the model itself predicts",
        "further from what the model itself predicts",
        "the least self-consistent quarter of the recorded runs",
        *("least self-consistent", *_QUARTER),
        "Self-consistency is how far the model's own prediction from a re-noised image lies from "
        "that image, less what its content explains: lower is more self-consistent.",
        False,
    ),
    "given": Claims(
        "given score",
        "change of the given score (negative: better)",
        "better by the given scores",
        "worse by the given scores",
        "the quarter of the recorded runs that the given scores call worst",
        *("worst scored", *_QUARTER),
        "The scores were given from elsewhere; here lower is better.",
        False,
    ),
    "masks": Claims(
        "marked share of the image",
        "change of the marked share (negative: less is marked)",
        "less of it marked",
        "more of it marked",
        "the quarter of the recorded runs of which most is marked",
        *("most marked", *_QUARTER),
        "The masks of broken places were given from elsewhere; the figure is the share of the "
        "image that they mark.",
        False,
    ),
}


def claims_of(reference: Reference) -> Claims:
    """What may be said of results by a judge that compares with this.

    Examples
    --------
    >>> from asced_analysis.realism.claims import Reference, claims_of
    >>> claims_of(Reference("population", "the recorded runs", 512)).better
    'more typical of this population'
    """
    return _CLAIMS[reference.kind]


def teacher_rows(teacher: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Who said how runs ended, and how that and what was learnt from it follow content.

    Parameters
    ----------
    teacher : mapping
        The entry ``teacher`` of thresholds.

    Returns
    -------
    list of (str, str)
        Rows of a table for people.
    """
    content, found = teacher["content"], teacher["measured"] or {"content": {}}
    rows = [
        ("teacher", f"{teacher['name']}: {Reference(**teacher['reference'])}"),
        ("learnt from", f"{teacher['runs']:,} runs"),
        (
            "content explains",
            f"{100 * content['explained']:.0f} % of the outcomes; "
            + ("taken off" if content["taken_off"] else "left as they are"),
        ),
        ("rank correlation with", "outcome, what is learnt from, learnt score"),
    ]
    for name, before in content["outcome"].items():
        last = found["content"].get(name)
        said = "-" if last is None else f"{last:+.2f}"
        rows.append((f"  {name}", f"{before:+.2f}, {content['learnt_from'][name]:+.2f}, {said}"))
    if found.get("auroc") is not None:
        matched = found["auroc_matched"]
        within = "-" if matched is None else f"{matched:.2f}"
        rows.append(
            (
                "AUROC, teacher's worst quarter",
                f"{found['auroc']:.2f}, within like content {within}, on {found['runs']} runs not "
                "learnt from",
            )
        )
    return rows
