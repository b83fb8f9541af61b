"""Fetch the emoji by npm and pack them as one file of 64x64 colour images on white.

``python -m experiments.models.emoji.fetch`` installs three npm packages into ``build/emoji`` (176
MB, never committed) and writes ``build/emoji/emoji.npz``. It needs ``npm``.
"""

from __future__ import annotations

import json
import re
import subprocess
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

BUILD = Path(__file__).resolve().parents[3] / "build" / "emoji"
PACKED = BUILD / "emoji.npz"
PACKAGES = (
    "emoji-datasource-google@16.0.0",
    "emoji-datasource-twitter@16.0.0",
    "@lobehub/fluent-emoji-3d@1.1.0",
)
SETS = ("noto", "twemoji", "fluent")
SIZE = 64
HELD_OUT = 5  # one design in five

_TONES = re.compile(r"-?(1F3F[B-F])", re.IGNORECASE)
_GENDERS = re.compile(r"-200D-264[02](-FE0F)?", re.IGNORECASE)


def install(folder: Path) -> Path:
    """Let npm put the packages there, unless they are there already; return ``node_modules``."""
    modules = folder / "npm" / "node_modules"
    if not all((modules / name.rsplit("@", 1)[0]).is_dir() for name in PACKAGES):
        modules.parent.mkdir(parents=True, exist_ok=True)
        (modules.parent / "package.json").write_text("{}\n")
        quiet = ["--ignore-scripts", "--no-audit", "--no-fund"]
        subprocess.run(["npm", "install", *quiet, *PACKAGES], cwd=modules.parent, check=True)
    return modules


def design_of(unified: str) -> str:
    """What an emoji shows whatever its skin tone and gender: the unit that is held out.

    Parameters
    ----------
    unified : str
        Code points in hexadecimal, joined by hyphens.

    Returns
    -------
    str
        The same for all tones, and for man, woman and person.

    Examples
    --------
    >>> design_of("1F468-1F3FD-200D-1F680") == design_of("1F469-200D-1F680")
    True
    """
    text = _GENDERS.sub("", _TONES.sub("", unified.upper()))
    return re.sub(r"1F46[89]", "1F9D1", text)


def is_held_out(design: str) -> bool:
    """Whether a design is kept from the training, in all three sets alike."""
    return zlib.crc32(design.encode()) % HELD_OUT == 0


def entries(modules: Path) -> list[dict[str, Any]]:
    """One entry an image: set, code points, name, category, subcategory, file.

    Skin tones have entries of their own. The few bare colour swatches (category Component) are
    left out.
    """
    listed = json.loads((modules / "emoji-datasource-google" / "emoji.json").read_text())
    found = []
    for emoji in listed:
        if emoji["category"] == "Component":
            continue
        facts = {key: emoji[key] for key in ("category", "subcategory")}
        facts["name"] = emoji["short_name"]
        for variant in (emoji, *emoji.get("skin_variations", {}).values()):
            code = variant["unified"]
            files = {
                "noto": modules / "emoji-datasource-google/img/google/64" / variant["image"],
                "twemoji": modules / "emoji-datasource-twitter/img/twitter/64" / variant["image"],
                "fluent": modules / "@lobehub/fluent-emoji-3d/assets" / f"{code.lower()}.webp",
            }
            for source, file in files.items():
                if file.is_file():
                    found.append({**facts, "set": source, "unified": code, "file": file})
    return found


def on_white(file: Path) -> NDArray[np.uint8]:
    """One image on white, shape (64, 64, 3)."""
    with Image.open(file) as opened:
        image = opened.convert("RGBA")
    if image.size != (SIZE, SIZE):
        image = image.convert("RGBa").resize((SIZE, SIZE), Image.Resampling.LANCZOS).convert("RGBA")
    paper = Image.new("RGBA", image.size, "white")
    return np.asarray(Image.alpha_composite(paper, image).convert("RGB"))


def pack(modules: Path, out: Path) -> None:
    """Write all images and what they are to one ``.npz`` file."""
    listed = entries(modules)
    subcategories = sorted({(e["category"], e["subcategory"]) for e in listed})
    number = {pair: index for index, pair in enumerate(subcategories)}
    designs = [design_of(e["unified"]) for e in listed]
    images = np.stack([on_white(e["file"]) for e in listed])
    held_out = np.array([is_held_out(design) for design in designs])
    np.savez_compressed(out.with_name("held_out.npz"), images=images[held_out])  # for --real
    np.savez_compressed(
        out,
        images=images,
        label=np.array([number[e["category"], e["subcategory"]] for e in listed]),
        set=np.array([e["set"] for e in listed]),
        unified=np.array([e["unified"] for e in listed]),
        name=np.array([e["name"] for e in listed]),
        design=np.array(designs),
        held_out=held_out,
        classes=np.array([subcategory for _, subcategory in subcategories]),
        categories=np.array([category for category, _ in subcategories]),
    )


def main() -> None:
    """Install, pack, say what there is."""
    pack(install(BUILD), PACKED)
    with np.load(PACKED) as packed:
        held = packed["held_out"]
        sets = {name: int((packed["set"] == name).sum()) for name in SETS}
        print(f"{len(held)} images {sets}, {len(packed['classes'])} classes")
        print(f"{len(set(packed['design']))} designs, {int(held.sum())} images held out: {PACKED}")


if __name__ == "__main__":
    main()
