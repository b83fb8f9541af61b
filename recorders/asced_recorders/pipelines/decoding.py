"""From the end of a run to the image that a person looks at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asced_recorders.pipelines.data_range import DIFFUSERS, Range
from asced_recorders.tap.layout_choice import tokens_channels_last
from asced_stores.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

COLOURS = (1, 3)  # channels of an image: grey, RGB


def to_image(pipe: Any, sample: Tensor, /, value_range: Range = DIFFUSERS) -> NDArray[np.uint8]:
    """Image of each run, as most pipelines of diffusers show it.

    Parameters
    ----------
    pipe : DiffusionPipeline or None
        With an autoencoder (``vae``) for latent models; without one, the sample is the image.
    sample : Tensor, shape (run, [frame,] channel, y, x)
        End of the runs; of a video, the middle frame is shown.
    value_range : tuple of float
        Between which pixels lie, where the sample is the image.

    Returns
    -------
    ndarray, shape (run, row, column, colour), uint8

    Raises
    ------
    InputError
        If the sample cannot be shown as grey or RGB.
    """
    vae = getattr(pipe, "vae", None)
    frames = sample if sample.ndim == 5 else sample[:, None]
    if vae is None:
        return pixels_to_image(frames[:, frames.shape[1] // 2].float(), value_range)
    return pixels_to_image(_decode_middle(vae, frames, tokens_channels_last(pipe)))


def pixels_to_image(pixels: Tensor, /, value_range: Range = DIFFUSERS) -> NDArray[np.uint8]:
    """Image from pixels, shape (run, colour, row, column), whose values lie in a range."""
    import numpy as np
    import torch

    if pixels.ndim != 4 or pixels.shape[1] not in COLOURS:
        raise InputError(
            f"samples of shape {tuple(pixels.shape[1:])} are neither grey nor RGB: they have no "
            "image without an autoencoder (leave `image` out of the fields)"
        )
    low, high = value_range
    unit = ((pixels.detach().float() - low) / (high - low)).clamp(0, 1)
    unit = torch.nan_to_num(unit, nan=0.0)
    array = (unit * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return np.ascontiguousarray(array)


def has_image(pipe: Any, shape: tuple[int, ...], /) -> bool:
    """Whether `to_image` can show samples of this shape."""
    return len(shape) == 3 and (getattr(pipe, "vae", None) is not None or shape[0] in COLOURS)


def is_pixels(pipe: Any, sample: Tensor, /) -> bool:
    """Whether a pipeline's samples are images themselves: grey or RGB, and nothing decodes them."""
    from torch import nn

    parts = pipe.components.values()
    decodes = any(isinstance(part, nn.Module) and hasattr(part, "decode") for part in parts)
    return sample.ndim == 4 and sample.shape[1] in COLOURS and not decodes


def shown_images(
    pipe: Any, output: Any, ends: Tensor, value_range: Range = DIFFUSERS
) -> NDArray[np.uint8] | None:
    """Images of a call: as it handed them over, or its ends where these are pixels.

    Parameters
    ----------
    pipe : DiffusionPipeline
    output : object
        What it returned.
    ends : Tensor, shape (run, [frame,] channel, y, x)
        Ends of its runs.
    value_range : tuple of float
        Of pixels. Outside -1..1 the ends are shown: diffusers clips.
    """
    images = images_of_output(output, len(ends))
    if is_pixels(pipe, ends) and (images is None or value_range != DIFFUSERS):
        return pixels_to_image(ends, value_range)
    return images


def _decode_middle(vae: Any, sample: Tensor, channels_last: bool) -> Tensor:
    """Middle frame of videos of shape (run, frame, channel, y, x), decoded."""
    of_video = "temperal_downsample" in vae.config or any(w.ndim == 5 for w in vae.parameters())
    if not of_video:
        return _decode(vae, sample[:, sample.shape[1] // 2], channels_last)
    frames = _decode(vae, sample.transpose(1, 2), channels_last)
    if frames.shape[1] not in COLOURS and frames.shape[2] in COLOURS:  # Allegro's decoder
        frames = frames.transpose(1, 2)
    return frames[:, :, frames.shape[2] // 2]


def _decode(vae: Any, sample: Tensor, channels_last: bool) -> Tensor:
    """Decode latents with the autoencoder's own scale and shift.

    That of Flux.2 normalises patches of 2 x 2 by running statistics, in the order of its tokens.
    """
    import torch
    from torch.nn.functional import pixel_shuffle, pixel_unshuffle

    config = vae.config
    latents = sample.to(device=next(vae.parameters()).device, dtype=vae.dtype)
    mean, std = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
    scale = float(getattr(config, "scaling_factor", None) or 1.0)
    if (norm := getattr(vae, "bn", None)) is not None:
        spread = torch.sqrt(norm.running_var + config.batch_norm_eps)
        spread, centre = (
            (each.view(4, -1).T.flatten() if channels_last else each).view(1, -1, 1, 1).to(latents)
            for each in (spread, norm.running_mean)
        )
        packed = latents.shape[1] == norm.num_features
        patches = latents if packed else pixel_unshuffle(latents, 2)
        latents = pixel_shuffle(patches * spread + centre, 2)
    elif mean is not None and std is not None:
        shape = (1, -1, *[1] * (latents.ndim - 2))
        latents = latents * (torch.tensor(std).view(shape).to(latents) / scale)
        latents = latents + torch.tensor(mean).view(shape).to(latents)
    else:
        latents = latents / scale + float(getattr(config, "shift_factor", None) or 0.0)
    with torch.no_grad():
        decoded: Tensor = vae.decode(latents, return_dict=False)[0]
    return decoded


def images_of_output(output: Any, runs: int, /) -> NDArray[np.uint8] | None:
    """Images of a pipeline's output: of a video, its middle frame.

    Parameters
    ----------
    output : object
        What the pipeline returned: with ``images`` or ``frames`` (PIL, NumPy or torch), or a tuple
        that begins with them.
    runs : int
        How many runs it is of.

    Returns
    -------
    ndarray, shape (run, row, column, colour), uint8, or None
        None where the output holds latents, or something else.
    """
    import numpy as np

    found = _handed_over(output)
    if found is None or isinstance(found, dict) or not hasattr(found, "__len__"):
        return None
    if runs == 1 and len(found) > 1:
        found = [found]  # the frames of one video
    if len(found) != runs:
        return None
    rows = [_picture(each) for each in found]
    if any(row is None for row in rows) or len({row.shape for row in rows if row is not None}) > 1:
        return None
    return np.stack([row for row in rows if row is not None])


def latents_of_output(output: Any, /) -> Tensor | None:
    """The tensor that a pipeline returns where it is asked for latents, else None."""
    found = _handed_over(output)
    return found if hasattr(found, "detach") else None


def _handed_over(output: Any) -> Any:
    """Images, video or latents in what a pipeline returned, whatever it is wrapped in."""
    if isinstance(output, list) or hasattr(output, "shape"):
        return output
    values = output if isinstance(output, dict) else getattr(output, "values", None)
    given = not isinstance(output, dict) and isinstance(values, dict)  # in a modular call's state
    for name in ("images", "videos", "frames", "image", "video", "prediction", "latents"):
        if given and name in ("image", "video"):
            continue  # what the caller gave, not what was made of it
        found = values.get(name) if isinstance(values, dict) else getattr(output, name, None)
        if found is not None:
            return found
    return output[0] if isinstance(output, tuple) and output else None


def _picture(one: Any) -> NDArray[np.uint8] | None:
    """One image, of a PIL image, an array or tensor in 0..1, or a list of frames."""
    import numpy as np

    if isinstance(one, (list, tuple)):
        return _picture(one[len(one) // 2]) if one else None
    if hasattr(one, "detach"):
        one = one.detach().float().cpu().numpy()
        if one.ndim >= 3 and one.shape[-3] in (1, 3):
            one = np.moveaxis(one, -3, -1)
    array = np.asarray(one)
    if array.ndim == 4:
        array = array[len(array) // 2]
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[-1] not in (1, 3, 4):
        return None
    if array.dtype != np.uint8:
        if array.shape[-1] == 4 or array.min() < -1e-3 or array.max() > 1 + 1e-3:
            return None  # latents
        array = (np.nan_to_num(array).clip(0, 1) * 255).round().astype(np.uint8)
    return np.ascontiguousarray(array[..., :3])
