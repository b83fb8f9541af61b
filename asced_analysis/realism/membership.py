"""Which image each reference patch comes from, so that no image is judged against itself.

An image that is in the reference has distance zero to it, and any other image then looks harmed. So
its own patches are left out of the search, and those of its paired run (corrected or not: outside
the mask the two are one picture). An image that is not in the reference leaves one of it
out all the same: with 49 references against 50, runs that end alike are told apart by that alone
(15 % of fresh runs lay in the worst quarter where 25 % is right). This is the one place that
decides what is left out, for every judge, teacher and threshold.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FEW = 32


def digest(image: NDArray[np.float32]) -> bytes:
    """Hash of an image's content: the same picture is known again under whatever name."""
    return hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=16).digest()


@dataclass(frozen=True)
class Membership:
    """The reference's images, and where their patches lie.

    Attributes
    ----------
    begins : int array, shape (image + 1,)
        Image i gave the patches ``begins[i]`` to ``begins[i + 1]``.
    by_content : mapping of bytes to tuple of int
        Images of each content (`digest`).
    by_run : mapping of int to tuple of int
        Images of each run, where the reference is taken from recorded runs.
    """

    begins: NDArray[np.intp]
    by_content: Mapping[bytes, tuple[int, ...]]
    by_run: Mapping[int, tuple[int, ...]]

    def holds(
        self, images: NDArray[np.float32], runs: NDArray[np.integer[Any]] | None
    ) -> NDArray[np.bool_]:
        """Which images, or whose runs, are in the reference."""
        numbers = [-1] * len(images) if runs is None else [int(run) for run in runs]
        return np.array(
            [
                run in self.by_run or digest(image) in self.by_content
                for image, run in zip(images, numbers, strict=True)
            ],
            np.bool_,
        )

    def random_half(
        self, images: NDArray[np.float32], runs: NDArray[np.integer[Any]] | None
    ) -> NDArray[np.bool_]:
        """A coin for each image, the same for a run and its paired run."""
        numbers = [-1] * len(images) if runs is None else [int(run) for run in runs]
        keys = [
            hashlib.blake2b(str(run).encode()).digest()[0] if run >= 0 else digest(image)[-1]
            for image, run in zip(images, numbers, strict=True)
        ]
        return np.array([key % 2 == 1 for key in keys], np.bool_)

    def left_out(
        self, images: NDArray[np.float32], runs: NDArray[np.integer[Any]] | None
    ) -> list[list[slice]]:
        """Patches that each image must not be compared with.

        Parameters
        ----------
        images : float32 array, shape (n, channel, y, x)
        runs : int array, shape (n,), optional
            The runs that the images are of; -1 for none.
        """
        result = []
        count = len(self.begins) - 1
        for place, image in enumerate(images):
            key = digest(image)
            own = set(self.by_content.get(key, ()))
            run = -1 if runs is None else int(runs[place])
            own.update(self.by_run.get(run, ()))
            if not own:
                # every image meets as many references as one that is among them
                own = {(run if run >= 0 else int.from_bytes(key[:8], "big")) % count}
            result.append([slice(self.begins[i], self.begins[i + 1]) for i in sorted(own)])
        return result


def membership_of(
    images: NDArray[np.float32],
    owners: NDArray[np.integer[Any]],
    runs: NDArray[np.integer[Any]] | None = None,
) -> Membership:
    """Note down where patches came from.

    Parameters
    ----------
    images : float32 array, shape (image, channel, y, x)
        The reference.
    owners : int array, shape (patch,)
        Rising: the image of each patch that was kept.
    runs : int array, shape (image,), optional
        The run that each image is of.
    """
    begins = np.searchsorted(owners, np.arange(len(images) + 1))
    content: dict[bytes, tuple[int, ...]] = {}
    by_run: dict[int, tuple[int, ...]] = {}
    for place, image in enumerate(images):
        key = digest(image)
        content[key] = (*content.get(key, ()), place)
        if runs is not None and int(runs[place]) >= 0:
            number = int(runs[place])
            by_run[number] = (*by_run.get(number, ()), place)
    return Membership(np.asarray(begins, np.intp), content, by_run)


def stand_ins(
    groups: Sequence[Hashable],
    recorded_groups: Sequence[Hashable],
    recorded_runs: NDArray[np.integer[Any]],
) -> NDArray[np.int64]:
    """The recorded run whose place each run of another store takes, one of its own group.

    A recorded run meets one run of its own prompt less than a fresh one does, because it is one of
    them itself: of 4 runs a prompt, fresh runs then look too typical (.19 in the worst quarter
    where .25 is right). A fresh run that is compared with what one recorded run of its prompt is
    compared with could have been that run.

    Parameters
    ----------
    groups : sequence, length n
        Of the other runs: prompts, say.
    recorded_groups : sequence, length m
    recorded_runs : int array, shape (m,)

    Returns
    -------
    int array, shape (n,)
        Numbers of recorded runs, to be given to `local_realism` as `runs`; of any group where the
        recorded runs have none like it.

    Examples
    --------
    >>> import numpy as np
    >>> from asced_analysis.realism.membership import stand_ins
    >>> recorded = ["a cat", "a dog", "a cat"]
    >>> sorted(stand_ins(["a cat", "a cat"], recorded, np.array([5, 6, 7])).tolist())
    [5, 7]
    """
    order = np.random.default_rng(0).permutation(len(recorded_runs))
    everyone = [int(recorded_runs[place]) for place in order]
    like: dict[Hashable, list[int]] = {}
    for place in order:
        like.setdefault(recorded_groups[place], []).append(int(recorded_runs[place]))
    taken: dict[Hashable, int] = {}
    found = []
    for group in groups:
        known = group if group in like else None
        free = like.get(group, everyone)
        at = taken.get(known, 0)
        found.append(free[at % len(free)])
        taken[known] = at + 1
    return np.asarray(found, np.int64)


def halves(
    images: NDArray[np.float32], *, salt: bytes = b""
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Places of two disjoint halves, of a teacher and of a judge.

    The split goes by the content of each image alone: order, names, copies and the other images do
    not change it, so that teacher and judge never share an image, whenever and from whatever part
    of a folder or population each was built. Of fewer than `FEW` different images every second one
    is taken, since chance would leave one half too small: there both must be built from the same
    ones. Another salt gives another split.
    """
    keys = [hashlib.blake2b(salt + digest(image)).digest() for image in images]
    rank = {key: place for place, key in enumerate(sorted(set(keys)))}
    odd = np.array([(rank[key] if len(rank) < FEW else key[0]) % 2 for key in keys], np.bool_)
    return np.flatnonzero(~odd), np.flatnonzero(odd)
