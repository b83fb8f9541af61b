"""Samples as images: decoded as those of the recording were."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from asced_analysis.correction.loops import LoopSampler
from asced_analysis.realism.pictures import as_pictures, from_image, judged_variable
from asced_analysis.replay.calls import call_again
from asced_analysis.replay.from_checkpoint import FromCheckpoint
from asced_analysis.replay.recording import Recording
from asced_recorders.pipelines.data_range import range_of
from asced_recorders.pipelines.decoding import shown_images, to_image
from asced_stores.errors import InputError

LOG = logging.getLogger(__name__)
Images = NDArray[np.uint8]
AT_ONCE = 32  # runs
SAME = 1  # of 255, at most: what one run may round otherwise than several together
ALIKE = 1.0  # of 255, on average: what another device may round
NEARER = 0.5  # of the autoencoder's difference, at most: a call that is dearer must give this


class Decoder:
    """Decodes samples of a recording's runs.

    The autoencoder is asked, where that gives the recorded image of the recorded sample, but for
    rounding. Pipelines that decode in a way of their own (by frames, with other decoders, with what
    comes after them) are called instead, where that comes nearer: with networks that repeat their
    first answer, and with the samples in the place of the last step's. This costs an evaluation a
    call.

    Parameters
    ----------
    recording : Recording
        Knows how its calls are repeated.
    pipe : DiffusionPipeline or LoopSampler

    Attributes
    ----------
    calls : bool
        Whether the pipeline is called to decode, as the first recorded run shows.

    Raises
    ------
    InputError
        Where the pipeline does not give the recorded images of the recorded samples.
    """

    def __init__(self, recording: Recording, pipe: Any) -> None:
        self.recording = recording
        self.pipe = None if isinstance(pipe, LoopSampler) else pipe
        self.range = range_of(recording.attributes)
        self.calls = self._check()

    def images(self, samples: NDArray[np.floating[Any]], runs: NDArray[np.int64]) -> Images:
        """Images of samples, in the recorded size.

        Parameters
        ----------
        samples : array, shape (n, [frame,] channel, y, x)
        runs : int64 array, shape (n,)
            Recorded runs that they are of, or whose conditions they were sampled with.

        Returns
        -------
        ndarray, shape (n, row, column, colour), uint8

        Raises
        ------
        InputError
            Where a call hands over no images.
        """
        return self._by_call(samples, runs) if self.calls else self._by_autoencoder(samples)

    def pictures(
        self, samples: NDArray[np.floating[Any]], runs: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """The same as judges look at them, shape (n, channel, y, x), in -1..1."""
        if judged_variable(self.recording.dataset) != "image":
            return as_pictures(samples, self.recording.attributes)
        return from_image(self.images(samples, runs))

    def _check(self) -> bool:
        """Decode the first recorded run: whether the pipeline must be called for that."""
        recording = self.recording
        if recording.spec.image_shape is None or "image" not in recording.dataset:
            return False
        first = next(recording.batches())
        runs = first.runs[:1]
        one = recording.select(runs)
        sample, image = recording.read(one, "sample"), recording.read(one, "image")
        if not np.isfinite(sample).all():
            return False
        found, failure = None, None
        try:
            found = self._by_autoencoder(sample)
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # whatever the autoencoder of a stranger raises
            failure = error
        if found is not None and _difference(found, image).max() <= SAME:
            return False
        off, called = _mean_difference(found, image), np.inf
        if self.pipe is not None and not recording.is_ours(self.pipe):
            try:
                called = _mean_difference(self._by_call(sample, runs), image)
            except _NoImagesError:
                if failure is None and off > ALIKE:
                    raise
        if min(off, called) > ALIKE:
            raise InputError(
                f"the recorded samples decode to {_found(min(off, called), failure)}: give the "
                "pipeline as it was recorded (decoder, tiling, what comes after it), or record "
                "without the field image"
            ) from failure
        calls = called < NEARER * off
        if calls:
            recording.own_decoding = True
            LOG.info(
                "the pipeline makes its images in a way of its own: it is called to decode, which "
                "costs an evaluation a call"
            )
        return calls

    def _by_autoencoder(self, samples: NDArray[np.floating[Any]]) -> Images:
        return to_image(self.pipe, torch.from_numpy(np.asarray(samples, np.float32)), self.range)

    def _by_call(self, samples: NDArray[np.floating[Any]], runs: NDArray[np.int64]) -> Images:
        recording, images = self.recording, list[Any]([None] * len(runs))
        for places in recording.calls_of(runs, AT_ONCE):
            part = np.asarray(samples, np.float32)[places]
            ends = torch.from_numpy(part)
            outputs: list[Any] = []
            call_again(
                recording,
                recording.select(runs[places]),
                self.pipe,
                None,
                begin=FromCheckpoint(None, recording.steps, ends),
                anew=True,
                told=outputs.append,
            )
            shown = shown_images(self.pipe, outputs[-1], ends, self.range)
            if shown is None:
                raise _NoImagesError(
                    f"{type(self.pipe).__name__} hands over no images in the repeated call, and "
                    "the recording holds one of each run: repeat it with the recorded output_type"
                )
            for place, image in zip(places, shown, strict=True):
                images[place] = image
        return np.stack(images)


class _NoImagesError(InputError):
    """A call hands over no images."""


def _difference(found: Images, image: Images) -> NDArray[np.floating[Any]]:
    """How far images are from others, of 255; infinite where they have another size."""
    if found.shape != image.shape:
        return np.full(1, np.inf)
    away: NDArray[np.floating[Any]] = np.abs(found.astype(np.float32) - image)
    return away


def _mean_difference(found: Images | None, image: Images) -> float:
    """How far images are from others on average, of 255; infinite where there are none."""
    return np.inf if found is None else float(_difference(found, image).mean(dtype=np.float64))


def _found(off: float, failure: Exception | None) -> str:
    """What was found in the place of the recorded images, as words."""
    if off < np.inf:
        return f"images that are {off:.3g} of 255 off"
    if failure is None:
        return "images of another size"
    return f"no images of the recorded size (decoding failed: {type(failure).__name__}: {failure})"
