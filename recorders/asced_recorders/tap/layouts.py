"""How a pipeline's tensors become (run, [frame,] channel, y, x)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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

    def check_image(self, rows: int, columns: int, /) -> None:
        """Refuse where the image of a run shows that its samples lie otherwise."""


class ChannelFirstVideo(Layout):
    """Video latents of shape (run, channel, frame, y, x), as most video pipelines have them.

    Cosmos 3, which samples one run a call, puts a further axis before them.
    """

    def rearrange(self, tensor: Tensor, /) -> Tensor:
        """Move the frames before the channels."""
        if tensor.ndim == 6 and tensor.shape[0] == 1:
            tensor = tensor[0]
        return super().rearrange(tensor.transpose(1, 2) if tensor.ndim == 5 else tensor)

    def restore(self, tensor: Tensor, like: Tensor, /) -> Tensor:
        """Move the channels before the frames."""
        moved = tensor.transpose(1, 2).contiguous() if tensor.ndim == 5 else tensor
        return moved.reshape(like.shape)


class Doubled(Layout):
    """A batch that the pipeline keeps doubled for guidance (DiT): its first half."""

    def rearrange(self, tensor: Tensor, /) -> Tensor:
        """Take the first half of the batch."""
        return super().rearrange(tensor[: tensor.shape[0] // 2])

    def restore(self, tensor: Tensor, like: Tensor, /) -> Tensor:
        """Double the batch: both halves go on from the same sample."""
        return tensor.repeat(2, *[1] * (tensor.ndim - 1))


class Packed(Layout):
    """Latents as a row of patches, (run, token, patch * patch * channel), as Flux has them.

    Parameters
    ----------
    height, width : int
        Of the latents, in tokens.
    patch : int
        Side of a patch, in latents.
    channels_last : bool
        Whether a token holds its latents one after the other, and not its channels.
    """

    def __init__(
        self, height: int, width: int, patch: int = 2, *, channels_last: bool = False
    ) -> None:
        self.height, self.width, self.patch = height, width, patch
        self.channels_last = channels_last

    def rearrange(self, tensor: Tensor, /) -> Tensor:
        """Unpack to (run, channel, y, x)."""
        if tensor.ndim != 3:
            return super().rearrange(tensor)
        runs, tokens, packed = tensor.shape
        side = self.patch
        channels = packed // side**2
        if tokens != self.height * self.width or packed % side**2:
            raise InputError(
                f"{tokens} tokens of {packed} numbers are not an image of "
                f"{self.height} x {self.width} tokens: give the height and width that the "
                "pipeline was called with"
            )
        if self.channels_last:
            tokens_ = tensor.reshape(runs, self.height, self.width, side, side, channels)
            image = tokens_.permute(0, 5, 1, 3, 2, 4)
        else:
            tokens_ = tensor.reshape(runs, self.height, self.width, channels, side, side)
            image = tokens_.permute(0, 3, 1, 4, 2, 5)
        return image.reshape(runs, channels, side * self.height, side * self.width)

    def restore(self, tensor: Tensor, like: Tensor, /) -> Tensor:
        """Pack again."""
        if like.ndim != 3:
            return super().restore(tensor, like)
        runs, channels = tensor.shape[:2]
        patches = tensor.reshape(runs, channels, self.height, self.patch, self.width, self.patch)
        order = (0, 2, 4, 3, 5, 1) if self.channels_last else (0, 2, 4, 1, 3, 5)
        return patches.permute(order).reshape(like.shape)


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
CHANNELS_LAST = ("Ideogram4",)  # inside the tokens of an image
NEAR = 0.1  # of the logarithm of a ratio: what rounding to patches leaves
ROUNDED = 2  # tokens: sizes are rounded to multiples of a patch or two


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
        """Images in patches, as large as the decoder's channels say, or video in single latents."""
        pipe, asked = self.pipe, self.arguments
        name = type(pipe).__name__
        scale = _number(pipe, "vae_scale_factor", "vae_spatial_compression_ratio") or 8
        usual = (_number(pipe, "default_sample_size") or 0) * scale
        height = asked.get("height") or _number(pipe, "default_height") or usual
        width = asked.get("width") or _number(pipe, "default_width") or usual
        if asked.get("num_frames") is None:
            patch = _patch(pipe, channels)
            rows, columns = _sides(tokens, height / (patch * scale), width / (patch * scale))
            if not rows and (ratio := _ratio(asked.get("image"))) is not None:
                rows, columns = _only_sides(tokens, ratio)  # edits are often as wide as their image
            if rows and channels % patch**2 == 0:
                return Packed(rows, columns, patch, channels_last=tokens_channels_last(pipe))
        else:
            spatial = _number(pipe, "vae_spatial_compression_ratio") or scale
            temporal = _number(pipe, "vae_temporal_compression_ratio") or 1
            frames = (int(asked["num_frames"]) - 1) // temporal + 1
            rows, columns = int(height) // spatial, int(width) // spatial
            if frames * rows * columns == tokens:
                return Tokens(frames, rows, columns)
        raise InputError(
            f"{tokens} tokens of {channels} numbers are not one image or video of the "
            f"{height or 'unknown'} x {width or 'unknown'} that {name} samples: give height and "
            "width in the call, or the layout (Recorder(layout=Packed(rows, columns)))"
        )

    def check_image(self, rows: int, columns: int, /) -> None:
        """Refuse where an image shows that its size was taken for another one of as many tokens.

        Raises
        ------
        InputError
            If height and width have another ratio than the rows and columns of the latents.
        """
        found = self.found
        if isinstance(found, Packed | Tokens):
            ratio = (rows * found.width) / (columns * found.height)
            if abs(math.log(ratio)) > NEAR:
                raise InputError(
                    f"the image has {rows} x {columns} pixels, and its latents were taken for "
                    f"{found.height} x {found.width} tokens: give height and width in the call"
                )


def tokens_channels_last(pipe: Any) -> bool:
    """Whether the tokens of an image hold its latents one after the other."""
    return type(pipe).__name__.startswith(CHANNELS_LAST)


def layout_of(pipe: Any, arguments: Mapping[str, Any]) -> Layout:
    """Layout of a pipeline, from its class and what it was called with."""
    name = type(pipe).__name__
    if name == "DiTPipeline":
        return Doubled() if float(arguments.get("guidance_scale", 4.0)) > 1 else Layout()
    if name.startswith(FRAMES_FIRST):
        return Layout()
    return ChannelFirstVideo() if name.startswith(CHANNELS_FIRST) else ByShape(pipe, arguments)


def as_stepped(sample: Tensor, shape: Sequence[int]) -> Tensor | None:
    """What a loop goes on with, in the shape in which its scheduler steps it.

    Some loops have no axis of runs. None where it is another thing, or lies in another order.
    """
    one, other = ([side for side in sides if side > 1] for sides in (sample.shape, shape))
    return sample.reshape(tuple(shape)) if one == other else None


def _latent_channels(pipe: Any) -> int | None:
    """How many channels a pipeline's latents have, by its decoder or else its network."""
    decoder = _decoder_channels(pipe)
    if decoder is not None:
        return decoder
    for part, names in (
        ("unet", ("out_channels",)),
        ("transformer", ("out_channels", "in_channels")),
    ):
        config = getattr(getattr(pipe, part, None), "config", {})
        for name in names:
            if isinstance(config.get(name), int):
                return int(config[name])
    return None


def _decoder_channels(pipe: Any) -> int | None:
    config = getattr(getattr(pipe, "vae", None), "config", {})
    found = (config.get(name) for name in ("latent_channels", "z_dim"))
    return next((int(channels) for channels in found if isinstance(channels, int)), None)


def _patch(pipe: Any, channels: int) -> int:
    """Side of a patch whose token holds so many numbers; 2, as most have, without a decoder."""
    latent = _decoder_channels(pipe)
    return 2 if not latent else max(1, math.isqrt(channels // latent))


def _number(pipe: Any, *names: str) -> int | None:
    """The first of a pipeline's own numbers that there is."""
    found = (getattr(pipe, name, None) for name in names)
    return next((int(value) for value in found if isinstance(value, (int, float))), None)


def _ratio(image: Any) -> float | None:
    """Height of an image over its width, of several the last one's; None where it is none."""
    if isinstance(image, (list, tuple)) and image:
        return _ratio(image[-1])
    if isinstance(getattr(image, "size", None), tuple):  # PIL
        return float(image.size[1] / image.size[0])
    shape = tuple(getattr(image, "shape", ()))
    if len(shape) < 2:
        return None
    height, width = shape[-2:] if hasattr(image, "detach") or len(shape) == 2 else shape[-3:-1]
    return float(height / width)


def _only_sides(tokens: int, ratio: float) -> tuple[int, int]:
    """Rows and columns of so many tokens in about this ratio, where no other pair comes near."""
    rows, columns = math.sqrt(tokens * ratio), math.sqrt(tokens / ratio)
    near = [
        (each, tokens // each)
        for each in range(1, tokens + 1)
        if tokens % each == 0 and max(abs(each - rows), abs(tokens // each - columns)) < 2 * ROUNDED
    ]
    return near[0] if len(near) == 1 else (0, 0)


def _sides(tokens: int, rows: float, columns: float) -> tuple[int, int]:
    """Rows and columns of so many tokens, near those asked for: pipelines round."""
    pairs = [(each, tokens // each) for each in range(1, tokens + 1) if tokens % each == 0]
    off = {pair: max(abs(pair[0] - rows), abs(pair[1] - columns)) for pair in pairs}
    best = min(pairs, key=lambda pair: off[pair])
    return best if off[best] < ROUNDED else (0, 0)
