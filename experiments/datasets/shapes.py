"""SIMPLE SHAPES (arXiv 2406.09358): data whose rules are known, and a judge that counts.

Grey 64x64 images of three columns, 21 wide and 63 high: a triangle in the first, a square in the
second, a pentagon in the third, each there with probability one half; blank images are skipped.
Every shape has 60 to 70 white pixels. Two shapes of one kind, or one in another's column, never
occur in the data: where a model draws them, it has made them up.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

KINDS = ("triangle", "square", "pentagon")
SIZE, COLUMN, HEIGHT, BLOCK = 64, 21, 63, 4
IMAGES = 5000
SPECK = 8  # pixels: smaller components are noise
ALIKE = 0.75  # overlap (intersection over union) from which a component is a shape
MARGIN = 0.5  # of what separates two perfect shapes, before one counts as the other
NEIGHBOURS = np.ones((3, 3))

Images = NDArray[np.float32]


def _polygon(corners: NDArray[np.float64], height: int, width: int) -> NDArray[np.bool_]:
    """Pixels whose centre lies inside a convex polygon of corners (y, x) in order."""
    y, x = np.mgrid[:height, :width] + 0.5
    following = np.roll(corners, -1, axis=0)
    sides = [
        (bx - ax) * (y - ay) - (by - ay) * (x - ax)
        for (ay, ax), (by, bx) in zip(corners, following, strict=True)
    ]
    return np.all(np.array(sides) >= 0, axis=0)


def stamp(kind: str) -> NDArray[np.bool_]:
    """White pixels of a shape, cut to its box."""
    if kind == "square":
        return np.ones((8, 8), np.bool_)
    if kind == "triangle":
        return _polygon(np.array([(0.0, 6.0), (11.0, 12.0), (11.0, 0.0)]), 11, 12)
    turn = np.arange(5) * 2 * np.pi / 5
    corners = np.stack([5.5 - 5.3 * np.cos(turn), 5.5 + 5.3 * np.sin(turn)], axis=1)
    found = _polygon(corners, 11, 11)
    rows, columns = np.flatnonzero(found.any(1)), np.flatnonzero(found.any(0))
    return found[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def draw_images(count: int = IMAGES, *, seed: int = 0) -> Images:
    """Images (count, 1, 64, 64) in -1..1, white shapes on black."""
    rng = np.random.default_rng(seed)
    out = np.full((count, 1, SIZE, SIZE), -1.0, np.float32)
    for image in out[:, 0]:
        there = np.zeros(3, np.bool_)
        while not there.any():
            there = rng.random(3) < 0.5
        for column in np.flatnonzero(there):
            put(image, KINDS[column], int(column), rng)
    return out


def put(image: Images, kind: str, column: int, rng: np.random.Generator) -> None:
    """Draw a shape at a random place of a column, into an image of shape (64, 64)."""
    shape = stamp(kind)
    top = rng.integers(0, HEIGHT - shape.shape[0] + 1)
    left = COLUMN * column + rng.integers(0, COLUMN - shape.shape[1] + 1)
    image[top : top + shape.shape[0], left : left + shape.shape[1]][shape] = 1.0


def fold(images: Images) -> Images:
    """Pixel-unshuffle: (n, 1, 64, 64) to (n, 16, 16, 16)."""
    side = SIZE // BLOCK
    parts = images.reshape(-1, side, BLOCK, side, BLOCK).transpose(0, 2, 4, 1, 3)
    return np.ascontiguousarray(parts.reshape(-1, BLOCK * BLOCK, side, side))


def unfold(samples: NDArray[Any]) -> Images:
    """Undo `fold`."""
    side = SIZE // BLOCK
    parts = samples.reshape(-1, BLOCK, BLOCK, side, side).transpose(0, 3, 1, 4, 2)
    return np.ascontiguousarray(parts.reshape(-1, 1, SIZE, SIZE), np.float32)


@dataclass(frozen=True)
class Verdict:
    """What the judge found in images.

    Attributes
    ----------
    doubled, misplaced, malformed, blank : bool arrays, shape (n,)
        Two shapes of one kind; a shape outside its column; a component that is no shape; nothing.
    mask : bool array, shape (n, 64, 64)
        The components that break a rule (of two of a kind, both).
    """

    doubled: NDArray[np.bool_]
    misplaced: NDArray[np.bool_]
    malformed: NDArray[np.bool_]
    blank: NDArray[np.bool_]
    mask: NDArray[np.bool_]

    @property
    def broken(self) -> NDArray[np.bool_]:
        """Any rule broken; a blank image breaks no rule that has a place."""
        return self.doubled | self.misplaced | self.malformed


def overlap(component: NDArray[np.bool_], shape: NDArray[np.bool_]) -> float:
    """Greatest intersection over union of two pixel sets, over shifts by up to two pixels."""
    size = max(*component.shape, *shape.shape) + 4
    best = 0.0
    own = _centred(component, size)
    for dy in range(-2, 3):
        for dx in range(-2, 3):
            other = np.roll(_centred(shape, size), (dy, dx), (0, 1))
            best = max(best, float((own & other).sum() / (own | other).sum()))
    return best


def _centred(pixels: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    """Put a box of pixels into the middle of a square."""
    out = np.zeros((size, size), np.bool_)
    top, left = (size - pixels.shape[0]) // 2, (size - pixels.shape[1]) // 2
    out[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return out


@cache
def apart() -> NDArray[np.float64]:
    """What two perfect shapes lack of a full overlap, shape (kind, kind)."""
    stamps = [stamp(kind) for kind in KINDS]
    return np.array([[1 - overlap(one, other) for other in stamps] for one in stamps])


def kind_of(likeness: NDArray[np.float64], column: int, margin: float = MARGIN) -> int:
    """The kind of a component, by its overlap with each shape and the column that it is in.

    It is its column's kind unless it is nearer to another one by a share of what separates the two.
    """
    best = int(np.argmax(likeness))
    nearer = likeness[best] - likeness[column]
    return best if nearer > margin * apart()[best, column] else column


def judge(images: NDArray[Any], *, margin: float = MARGIN) -> Verdict:
    """Count shapes by connected components (8 neighbours) of the white pixels.

    A component is the shape that it overlaps most, if by at least 0.75; else it is malformed. Its
    column is that of its middle. A soft square and a soft pentagon hardly differ, so a component
    is of another kind than its column's only where it lies clearly on that kind's side (`kind_of`).
    """
    count = len(images)
    flags = np.zeros((4, count), np.bool_)
    mask = np.zeros((count, SIZE, SIZE), np.bool_)
    stamps = [stamp(kind) for kind in KINDS]
    for index, image in enumerate(np.asarray(images).reshape(count, SIZE, SIZE)):
        labels, _ = ndimage.label(image > 0, NEIGHBOURS)
        found: list[tuple[int, int]] = []  # kind, label
        for label, box in enumerate(ndimage.find_objects(labels), start=1):
            component = labels[box] == label
            if component.sum() < SPECK:
                continue
            likeness = np.array([overlap(component, shape) for shape in stamps])
            middle = (box[1].start + box[1].stop) / 2
            column = min(2, int(middle // COLUMN))
            kind = kind_of(likeness, column, margin)
            whole = likeness.max() >= ALIKE
            if not whole:
                flags[2, index] = True
                mask[index][labels == label] = True
            elif column != kind:
                flags[1, index] = True
                mask[index][labels == label] = True
            found.append((kind if whole else -1, label))
        for kind in range(3):
            same = [label for one, label in found if one == kind]
            if len(same) > 1:
                flags[0, index] = True
                mask[index] |= np.isin(labels, same)
        flags[3, index] = not found
    return Verdict(flags[0], flags[1], flags[2], flags[3], mask)


def blocks(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask of pixels as a mask of the folded sample's places: (n, 16, 16)."""
    side = SIZE // BLOCK
    return np.asarray(mask.reshape(-1, side, BLOCK, side, BLOCK).any((2, 4)))
