"""How a pipeline's tensors become (run, [frame,] channel, y, x)."""

from __future__ import annotations

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
                "cannot be recorded"
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


PACKED = frozenset(
    {
        "ChromaImg2ImgPipeline",
        "ChromaPipeline",
        "FluxImg2ImgPipeline",
        "FluxInpaintPipeline",
        "FluxPipeline",
    }
)
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


class Images(Layout):
    """A pipeline whose video layout is not known: images only."""

    def rearrange(self, tensor: Tensor, /) -> Tensor:
        """Refuse what has frames, rather than record axes in the wrong order."""
        if tensor.ndim == 5:
            raise InputError(
                "this pipeline makes video, and whether frames or channels come first in its "
                "latents is not known: give Recorder(layout=Layout()) for (run, frame, channel, "
                "y, x), or ChannelFirstVideo() for (run, channel, frame, y, x)"
            )
        return super().rearrange(tensor)


def layout_of(pipe: Any, arguments: dict[str, Any]) -> Layout:
    """Layout of a pipeline, from its class and what it was called with."""
    name = type(pipe).__name__
    if name == "DiTPipeline":
        return Doubled() if float(arguments.get("guidance_scale", 4.0)) > 1 else Layout()
    if name in PACKED:
        scale = int(getattr(pipe, "vae_scale_factor", 8)) * 2
        default = int(getattr(pipe, "default_sample_size", 128)) * scale // 2
        height = int(arguments.get("height") or default)
        width = int(arguments.get("width") or default)
        return Packed(height // scale, width // scale)
    if name.startswith(FRAMES_FIRST):
        return Layout()
    return ChannelFirstVideo() if name.startswith(CHANNELS_FIRST) else Images()
