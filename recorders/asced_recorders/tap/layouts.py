"""How a pipeline's tensors become (run, [frame,] channel, y, x)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

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


class ChannelLastVideo(Layout):
    """Video latents of shape (run, frame, y, x, channel), as Kandinsky 5 has them."""

    def rearrange(self, tensor: Tensor, /) -> Tensor:
        """Move the channels behind the frames."""
        return super().rearrange(tensor.movedim(-1, 2) if tensor.ndim == 5 else tensor)

    def restore(self, tensor: Tensor, like: Tensor, /) -> Tensor:
        """Move them back."""
        moved = tensor.movedim(2, -1).contiguous() if tensor.ndim == 5 else tensor
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


class PackedLayers(Layout):
    """Images of several layers in one row of patches, (run, layer * y * x, patch numbers).

    The layers of Qwen-Image Layered, of which the first is the whole image, are recorded as frames.

    Parameters
    ----------
    layers : int
    height, width : int
        Of one layer, in tokens.
    patch : int
        Side of a patch, in latents.
    """

    def __init__(self, layers: int, height: int, width: int, patch: int = 2) -> None:
        self.layers, self.one = layers, Packed(height, width, patch)

    def rearrange(self, tensor: Tensor, /) -> Tensor:
        """Unpack to (run, layer, channel, y, x)."""
        runs, _, packed = tensor.shape
        images = self.one.rearrange(tensor.reshape(runs * self.layers, -1, packed))
        return images.reshape(runs, self.layers, *images.shape[1:])

    def restore(self, tensor: Tensor, like: Tensor, /) -> Tensor:
        """Pack again."""
        rows = like.reshape(tensor.shape[0] * self.layers, -1, like.shape[-1])
        return self.one.restore(tensor.flatten(0, 1), rows).reshape(like.shape)


def as_stepped(sample: Tensor, shape: Sequence[int]) -> Tensor | None:
    """What a loop goes on with, in the shape in which its scheduler steps it.

    Some loops have no axis of runs. None where it is another thing, or lies in another order.
    """
    one, other = ([side for side in sides if side > 1] for sides in (sample.shape, shape))
    return sample.reshape(tuple(shape)) if one == other else None
