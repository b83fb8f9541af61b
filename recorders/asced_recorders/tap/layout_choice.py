"""Which layout a pipeline's tensors have: by its class, its call and their shape."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from asced_recorders.tap.layouts import (
    ChannelFirstVideo,
    ChannelLastVideo,
    Doubled,
    Layout,
    Packed,
    PackedLayers,
    Tokens,
)
from asced_stores.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

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
CHANNEL_LAST_VIDEO = ("Kandinsky5",)
CHANNELS_LAST = ("Ideogram4",)  # inside the tokens of an image
NEAR = 0.1  # of the logarithm of a ratio: what rounding to patches leaves
ROUNDED = 2  # tokens: sizes are rounded to multiples of a patch or two


class ByShape(Layout):
    """Finds how a pipeline lays out its samples at the first of them, and keeps to it.

    Rows of tokens are unpacked by the size that the call asks for. Of video, the second or third
    axis, as long as the latents have channels, is that of the channels; the last one where neither
    is (a width is often as long). Where both are, it is refused.

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
        kinds = {1: ChannelFirstVideo, 2: Layout}
        found = [kind for axis, kind in kinds.items() if shape[axis] == channels]
        if not found and shape[4] == channels:
            found = [ChannelLastVideo]
        if len(found) == 1:
            return found[0]()
        raise InputError(
            f"{type(self.pipe).__name__} makes video, and which axis of its latents are the "
            "channels is not known: give Recorder(layout=Layout()) for (run, frame, channel, y, "
            "x), ChannelFirstVideo() for (run, channel, frame, y, x), or ChannelLastVideo() for "
            "(run, frame, y, x, channel)"
        )

    def _packed(self, tokens: int, channels: int) -> Layout:
        """Images in patches, as large as the decoder's channels say, or video in single latents."""
        pipe, asked = self.pipe, self.arguments
        name = type(pipe).__name__
        scale = _number(pipe, "vae_scale_factor", "vae_spatial_compression_ratio") or 8
        usual = (_number(pipe, "default_sample_size") or 0) * scale
        height = asked.get("height") or _number(pipe, "default_height") or usual
        width = asked.get("width") or _number(pipe, "default_width") or usual
        if isinstance(asked.get("layers"), int):
            layers, patch = int(asked["layers"]) + 1, _patch(pipe, channels)
            ratio = _ratio(asked.get("image"))
            if tokens % layers == 0 and ratio is not None:
                rows, columns = _only_sides(tokens // layers, ratio)
                if rows:
                    return PackedLayers(layers, rows, columns, patch)
        elif asked.get("num_frames") is None:
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
            "width in the call, or the layout (Recorder(layout=Packed(rows, columns)), or "
            "PackedLayers(layers, rows, columns))"
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
    if name.startswith(CHANNEL_LAST_VIDEO):
        return ChannelLastVideo()
    return ChannelFirstVideo() if name.startswith(CHANNELS_FIRST) else ByShape(pipe, arguments)


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
