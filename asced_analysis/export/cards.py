"""Cards: the README of a repository on the Hub, from what thresholds and stores say of themselves.

A card names no licence: whoever pushes knows it, and edits the page.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from asced_analysis.realism.claims import teacher_rows
from asced_analysis.thresholds.document import Thresholds
from asced_analysis.thresholds.wording import guarantee_in_words, promise_rows, sentence
from asced_stores.format.calls import HIDDEN
from asced_stores.hub import HubReference
from asced_stores.reading.summary import summarise
from asced_stores.store import TrajectoryStore

LONGEST = 200
TAGS = ("asced", "diffusion", "score-trajectories")


def thresholds_card(thresholds: Thresholds, reference: HubReference) -> str:
    """Card of thresholds: how to use them, what they promise, who taught them, what they fit.

    Parameters
    ----------
    thresholds : Thresholds
    reference : HubReference
        Where they lie, with the path of the file.

    Returns
    -------
    str
        Markdown, with the Hub's header.
    """
    fits = thresholds.fingerprint
    fitted = [(name, _plain(value)) for name, value in fits.items() if value is not None]
    parts = [
        _header("model", reference, ("thresholds",)),
        f"# Thresholds for {fits.get('pipeline') or 'a sampling loop'}",
        "They flag, and may correct, runs of this model whose score breaks while they are sampled.",
        _code(
            "python",
            "from asced_analysis import Corrector",
            "",
            f'with Corrector.from_file("{reference}").attach(pipe) as corrector:',
            "    pipe(...)",
        ),
        _code("sh", f"asced pull {_argument(reference)} thresholds.json"),
        "## What is promised",
        *guarantee_in_words(thresholds),
        *map(sentence, thresholds.guarantee.notes),
        _table(promise_rows(thresholds)),
    ]
    if thresholds.teacher is not None:
        rows = [(name.strip(), value) for name, value in teacher_rows(thresholds.teacher)]
        parts += ["## Who said how runs ended", _table(rows)]
    parts += [
        "## What they fit",
        "They are refused on another model, prediction type or shape of the sample; on another "
        "sampler they warn.",
        _table(fitted),
    ]
    return "\n\n".join(parts) + "\n"


def store_card(store: TrajectoryStore, reference: HubReference) -> str:
    """Card of a store: how to open it, what was recorded, with what, and whether prompts are in it.

    Parameters
    ----------
    store : TrajectoryStore
    reference : HubReference
        Where it lies, with the path of its folder.

    Returns
    -------
    str
        Markdown, with the Hub's header.
    """
    facts = summarise(store)
    said, runs = facts["attributes"], facts["runs"]
    prompts = set(store.index["prompt"].tolist()) - {""}
    recorded = [
        ("runs", f"{runs['complete']:,} complete, {runs['failed']:,} failed"),
        ("steps", str(facts["steps"])),
        ("sample", " x ".join(map(str, facts["sample_shape"]))),
        ("variables", ", ".join(f"{n} {v['dtype']}" for n, v in facts["variables"].items())),
        ("prompts", _prompts(prompts)),
        ("size", f"{facts['bytes'] / 1e6:,.1f} MB"),
        ("state", "sealed" if facts["sealed"] else "open"),
    ]
    shown: tuple[str, ...] = (
        "pipeline",
        "pipeline_class",
        "scheduler_class",
        "prediction_type",
        "seed",
        "call",
    )
    shown += ("call_missing", "model_fingerprint", "compute", "device", "versions")
    made = [(name, _plain(said[name])) for name in shown if said.get(name) not in (None, {}, [])]
    return (
        "\n\n".join(
            [
                _header("dataset", reference, ()),
                f"# Score trajectories of {said.get('pipeline', 'a sampling loop')}",
                "Every step of these runs: the noise that was predicted, the image that the model "
                "expected, and how the run ended. Plain Zarr v3.",
                _code(
                    "sh",
                    f"asced pull {_argument(reference)} runs.zarr",
                    "asced view runs.zarr",
                ),
                _code(
                    "python", "import asced_analysis as aa", "", 'ds = aa.open_runs("runs.zarr")'
                ),
                "## What was recorded",
                _table(recorded),
                "## What it was recorded with",
                _table([*made, ("fingerprint", facts["fingerprint"])]),
            ]
        )
        + "\n"
    )


def _argument(reference: HubReference) -> str:
    """The repository as the command line takes it."""
    return str(reference).removeprefix("hf://")


def _header(kind: str, reference: HubReference, more: Sequence[str]) -> str:
    """The Hub's YAML header."""
    library = ["library_name: asced-analysis"] if kind == "model" else []
    named = [f"pretty_name: {reference.repo.partition('/')[2]}"] if kind == "dataset" else []
    tags = [f"- {tag}" for tag in (*TAGS, *more)]
    return "\n".join(["---", *library, *named, "tags:", *tags, "---"])


def _code(language: str, *lines: str) -> str:
    return "\n".join([f"```{language}", *lines, "```"])


def _table(rows: Sequence[tuple[str, str]]) -> str:
    """Rows of a Markdown table; what they hold can't leave its cell."""
    cells = [f"| {_cell(name)} | {_cell(value)} |" for name, value in rows]
    return "\n".join(["| | |", "|---|---|", *cells])


def _cell(text: str) -> str:
    plain = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return plain.replace("|", "\\|").replace("[", "\\[").replace("`", "\\`")


def _plain(value: Any) -> str:
    """A value on one line, not too long: JSON where it is no text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(part)}" for name, part in value.items())
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _prompts(prompts: set[str]) -> str:
    """Whether a store holds its prompts."""
    if not prompts:
        return "not in it"
    hidden = any(prompt.startswith(HIDDEN) for prompt in prompts)
    return f"{len(prompts):,} different ones, {'as keyed hashes' if hidden else 'in the store'}"
