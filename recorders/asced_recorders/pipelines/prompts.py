"""Prompts from a file: one a line, or a table with columns."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from asced_stores.errors import InputError
from asced_stores.files import csv_separator


@dataclass(frozen=True)
class Prompt:
    """What one run is asked for.

    Parameters
    ----------
    prompt : str
        The text.
    negative_prompt : str, optional
        What the image should not show.
    seed : int, optional
        Of this run; by default the recording's seed plus the number of the run.
    guidance_scale : float, optional
        The same for all runs of a batch.
    label : int, optional
        A class, for class-conditional models, or a tag of one's own.
    """

    prompt: str = ""
    negative_prompt: str | None = None
    seed: int | None = None
    guidance_scale: float | None = None
    label: int | None = None


def read_prompts(source: str | Path | Iterable[Any]) -> tuple[Prompt, ...]:
    """Read prompts from a file or a sequence.

    Parameters
    ----------
    source : str, Path or iterable
        A text file with one prompt a line; a ``.csv`` with a header, or a ``.jsonl`` with an
        object a line, with the columns ``prompt, negative_prompt, seed, guidance_scale, label``;
        or strings, mappings or `Prompt` objects.

    Returns
    -------
    tuple of Prompt

    Raises
    ------
    InputError
        That names the line, where something is missing, unknown or no number.
    """
    if isinstance(source, (str, Path)):
        return _read_file(Path(source))
    found = tuple(_one(item, f"prompt {i}") for i, item in enumerate(source))
    if not found:
        raise InputError("there are no prompts: give at least one")
    return found


def prompts_hash(prompts: Sequence[Prompt]) -> str:
    """Hash of a list of prompts, by which a resumed recording knows that they are the same."""
    text = json.dumps([asdict(prompt) for prompt in prompts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def prompt_key(prompts: Sequence[Prompt] = ()) -> bytes:
    """Key by which prompts are hashed that are not to be kept; it stands in no store.

    ``ASCED_PROMPT_KEY`` where it is set; else made from the whole list of prompts, so that whoever
    resumes a recording has it and nobody else, or, without a list, drawn for this process.
    """
    if given := os.environ.get("ASCED_PROMPT_KEY"):
        return given.encode()
    if not prompts:
        return secrets.token_bytes(32)
    text = json.dumps([asdict(prompt) for prompt in prompts], sort_keys=True)
    return hashlib.sha256(b"asced prompt key\0" + text.encode()).digest()


def _read_file(path: Path) -> tuple[Prompt, ...]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise InputError(f"there is no file of prompts at {path}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the prompts in {path} cannot be read as UTF-8 text: {error}") from error
    suffix = path.suffix.lower()
    items: list[tuple[Any, str]] = []
    if suffix == ".csv":
        lines = text.splitlines()
        rows = csv.DictReader(lines, delimiter=csv_separator(lines[0] if lines else ""))
        items = [(row, f"line {i + 2} of {path}") for i, row in enumerate(rows)]
    elif suffix in (".jsonl", ".ndjson"):
        for i, line in enumerate(text.splitlines()):
            if not line.strip():
                continue
            where = f"line {i + 1} of {path}"
            try:
                items.append((json.loads(line), where))
            except json.JSONDecodeError as error:
                raise InputError(f"{where} is no JSON: {error}") from error
    else:
        items = [
            (line.strip(), f"line {i + 1} of {path}")
            for i, line in enumerate(text.splitlines())
            if line.strip()
        ]
    if not items:
        raise InputError(f"{path} holds no prompts: write one a line")
    return tuple(_one(item, where) for item, where in items)


def _one(item: Any, where: str) -> Prompt:
    if isinstance(item, Prompt):
        check_guidance(item.guidance_scale, f"{where}: ")
        return item
    if isinstance(item, str):
        return Prompt(item)
    if not isinstance(item, Mapping):
        raise InputError(f"{where} is {item!r}: expected text, or an object with a prompt")
    known = {field.name for field in fields(Prompt)}
    unknown = sorted(str(key) for key in item if key not in known)
    if unknown:
        raise InputError(f"{where} has columns {unknown}: known are {', '.join(sorted(known))}")
    kinds: dict[str, Any] = {"seed": int, "label": int, "guidance_scale": float}
    values: dict[str, Any] = {}
    for name, value in item.items():
        if value is None or value == "":
            continue
        try:
            values[name] = kinds.get(name, str)(value)
        except (TypeError, ValueError) as error:
            raise InputError(f"{where}: {name} is {value!r}, not a number") from error
    if "prompt" not in values and "label" not in values:
        raise InputError(f"{where} has no prompt: add a column `prompt`")
    check_guidance(values.get("guidance_scale"), f"{where}: ")
    return Prompt(**values)


def check_guidance(scale: float | None, where: str = "") -> None:
    """Refuse a guidance scale that is no number."""
    if scale is not None and not math.isfinite(scale):
        raise InputError(f"{where}guidance_scale is {scale}: give a finite number")
