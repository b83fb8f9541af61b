"""How a pipeline's tensors become (run, [frame,] channel, y, x)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from asced_stores.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


class Layout:
    """Images and latents of shape (run, channel, y, x), or (run, frame, channel, y, x): as is."""

    def rearrange(self, tensor: Tensor, /) -> Tensor:
        """Bring a tensor of the pipeline to the recorded order.

        Raises
        ------
        InputError
            If its shape is not understood.
        """
        if tensor.ndim not in (4, 5):
            raise InputError(
                f"samples of shape {tuple(tensor.shape)} are neither images nor video: they "
                "cannot be recorded; of a pipeline that first samples embeddings, record the "
                "decoder by itself"
            )
        return tensor

    def restore(self, tensor: Tensor, like: Tensor, /) -> Tensor:
        """Bring a tensor of the recorded order back to the pipeline's.

        Parameters
        ----------
        tensor : Tensor
            Of the shape that `rearrange` gives.
        like : Tensor
            The pipeline's own: its shape is taken.
        """
        return tensor.reshape(like.shape)


class ChannelFirstVideo(Layout):
    """Video latents of shape (run, channel, frame, y, x), as most video pipelines have them."""

    def rearrange(self, tensor: Tensor, /) -> Tensor:
        """Move the frames before the channels."""
        return super().rearrange(tensor.transpose(1, 2) if tensor.ndim == 5 else tensor)

    def restore(self, tensor: Tensor, like: Tensor, /) -> Tensor:
        """Move the channels before the frames."""
        return tensor.transpose(1, 2).contiguous() if tensor.ndim == 5 else tensor


class Doubled(Layout):
    """A batch that the pipeline keeps doubled for guidance (DiT): its first half."""

    def rearrange(self, tensor: Tensor, /) -> Tensor:
        """Take the first half of the batch."""
        return super().rearrange(tensor[: tensor.shape[0] // 2])

    def restore(self, tensor: Tensor, like: Tensor, /) -> Tensor:
        """Double the batch: both halves go on from the same sample."""
        return tensor.repeat(2, *[1] * (tensor.ndim - 1))


class Packed(Layout):
    """Latents packed into 2x2 patches, (run, token, 4 * channel), as Flux has them.

    Parameters
    ----------
    height, width : int
        Of the latents, in tokens.
    """

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width

    def rearrange(self, tensor: Tensor, /) -> Tensor:
        """Unpack to (run, channel, y, x)."""
        if tensor.ndim != 3:
            return super().rearrange(tensor)
        runs, tokens, packed = tensor.shape
        if tokens != self.height * self.width or packed % 4:
            raise InputError(
                f"{tokens} tokens of {packed} numbers are not an image of "
                f"{self.height} x {self.width} tokens: give the height and width that the "
                "pipeline was called with"
            )
        image = tensor.reshape(runs, self.height, self.width, packed // 4, 2, 2)
        image = image.permute(0, 3, 1, 4, 2, 5)
        return image.reshape(runs, packed // 4, 2 * self.height, 2 * self.width)

    def restore(self, tensor: Tensor, like: Tensor, /) -> Tensor:
        """Pack again."""
        if like.ndim != 3:
            return super().restore(tensor, like)
        runs, channels = tensor.shape[:2]
        patches = tensor.reshape(runs, channels, self.height, 2, self.width, 2)
        return patches.permute(0, 2, 4, 1, 3, 5).reshape(like.shape)


class Tokens(Layout):
    """Video latents as a row of tokens, (run, frame * y * x, channel), as LTX has them.

    Parameters
    ----------
    frames, height, width : int
        Of the latents.
    """

    def __init__(self, frames: int, height: int, width: int) -> None:
        self.frames, self.height, self.width = frames, height, width

    def rearrange(self, tensor: Tensor, /) -> Tensor:
        """Unfold to (run, frame, channel, y, x)."""
        video = tensor.reshape(tensor.shape[0], self.frames, self.height, self.width, -1)
        return video.permute(0, 1, 4, 2, 3)

    def restore(self, tensor: Tensor, like: Tensor, /) -> Tensor:
        """Make tokens again."""
        return tensor.permute(0, 1, 3, 4, 2).reshape(like.shape)


FRAMES_FIRST = ("CogVideoX", "StableVideoDiffusion")
CHANNELS_FIRST = (
    "Allegro",
    "AnimateDiff",
    "Cosmos",
    "EasyAnimate",
    "HunyuanVideo",
    "Latte",
    "Mochi",
    "SanaVideo",
    "Wan",
)
PATCH = 2
NEAR = 0.1  # of the logarithm of a ratio: what rounding to patches leaves


class ByShape(Layout):
    """Finds how a pipeline lays out its samples at the first of them, and keeps to it.

    Rows of tokens are unpacked by the size that the call asks for. Of video, the axis as long as
    the latents have channels is that of the channels; where both are, it is refused.

    Parameters
    ----------
    pipe : DiffusionPipeline or ModularPipeline
    arguments : mapping
        Of the call, by name.
    """

    def __init__(self, pipe: Any, arguments: Mapping[str, Any]) -> None:
        self.pipe, self.arguments = pipe, arguments
        self.found: Layout | None = None

    def rearrange(self, tensor: Tensor, /) -> Tensor:
        """Bring a tensor to the recorded order."""
        if self.found is None:
            self.found = self._find(tuple(tensor.shape))
        return self.found.rearrange(tensor)

    def restore(self, tensor: Tensor, like: Tensor, /) -> Tensor:
        """Bring it back."""
        if self.found is None:
            self.found = self._find(tuple(like.shape))
        return self.found.restore(tensor, like)

    def _find(self, shape: tuple[int, ...]) -> Layout:
        if len(shape) == 3:
            return self._packed(shape[1], shape[2])
        if len(shape) != 5:
            return Layout()
        channels = _latent_channels(self.pipe)
        if channels is not None and (shape[1] == channels) != (shape[2] == channels):
            return ChannelFirstVideo() if shape[1] == channels else Layout()
        raise InputError(
            f"{type(self.pipe).__name__} makes video, and whether frames or channels come first in "
            "its latents is not known: give Recorder(layout=Layout()) for (run, frame, channel, "
            "y, x), or ChannelFirstVideo() for (run, channel, frame, y, x)"
        )

    def _packed(self, tokens: int, channels: int) -> Layout:
        """Images in patches of 2 x 2, else video in single latents."""
        pipe, asked = self.pipe, self.arguments
        scale = _number(pipe, "vae_scale_factor", "vae_spatial_compression_ratio") or 8
        usual = _number(pipe, "default_sample_size")
        height = asked.get("height") or _number(pipe, "default_height") or (usual or 128) * scale
        width = asked.get("width") or _number(pipe, "default_width") or (usual or 128) * scale
        if asked.get("num_frames") is None:
            rows, columns = int(height) // (PATCH * scale), int(width) // (PATCH * scale)
            if rows * columns != tokens:  # the pipeline rounded, or chose a size of its own
                rows, columns = _sides(tokens, int(height) / int(width))
            if rows * columns == tokens and channels % PATCH**2 == 0:
                return Packed(rows, columns)
        else:
            spatial = _number(pipe, "vae_spatial_compression_ratio") or scale
            temporal = _number(pipe, "vae_temporal_compression_ratio") or 1
            frames = (int(asked["num_frames"]) - 1) // temporal + 1
            rows, columns = int(height) // spatial, int(width) // spatial
            if frames * rows * columns == tokens:
                return Tokens(frames, rows, columns)
        raise InputError(
            f"{tokens} tokens of {channels} numbers are not the {height} x {width} that "
            f"{type(pipe).__name__} was called with: give height and width in the call, or the "
            "layout (Recorder(layout=Packed(rows, columns)))"
        )


def layout_of(pipe: Any, arguments: Mapping[str, Any]) -> Layout:
    """Layout of a pipeline, from its class and what it was called with."""
    name = type(pipe).__name__
    if name == "DiTPipeline":
        return Doubled() if float(arguments.get("guidance_scale", 4.0)) > 1 else Layout()
    if name.startswith(FRAMES_FIRST):
        return Layout()
    return ChannelFirstVideo() if name.startswith(CHANNELS_FIRST) else ByShape(pipe, arguments)


def _latent_channels(pipe: Any) -> int | None:
    """How many channels a pipeline's latents have, by its decoder or else its network."""
    for part, names in (
        ("vae", ("latent_channels", "z_dim")),
        ("unet", ("out_channels",)),
        ("transformer", ("out_channels", "in_channels")),
    ):
        config = getattr(getattr(pipe, part, None), "config", {})
        for name in names:
            if isinstance(config.get(name), int):
                return int(config[name])
    return None


def _number(pipe: Any, *names: str) -> int | None:
    """The first of a pipeline's own numbers that there is."""
    found = (getattr(pipe, name, None) for name in names)
    return next((int(value) for value in found if isinstance(value, (int, float))), None)


def _sides(tokens: int, ratio: float) -> tuple[int, int]:
    """Rows and columns of so many tokens whose ratio comes nearest to one that was asked for."""
    pairs = [(rows, tokens // rows) for rows in range(1, tokens + 1) if tokens % rows == 0]
    best = min(pairs, key=lambda each: abs(math.log(each[0] / each[1] / ratio)))
    near = abs(math.log(best[0] / best[1] / ratio)) < NEAR
    return best if near else (0, 0)
