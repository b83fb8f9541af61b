"""Sampling ``emoji``: any diffusers scheduler on 64x64 colour images, with a stock UNet2DModel.

Loaded by diffusers alone::

    from diffusers import DiffusionPipeline
    pipe = DiffusionPipeline.from_pretrained("experiments/models/emoji", trust_remote_code=True)
    images = pipe(class_labels=[3, 14], guidance_scale=2.0).images

The scheduler works on images of shape (3, 64, 64). The network works on the same pixels folded to
(48, 16, 16), which changes their order and nothing else: independent noise stays what it is.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils.torch_utils import randn_tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

FOLD = 4


class EmojiPipeline(DiffusionPipeline):
    """Class-conditional sampling with classifier-free guidance.

    Parameters
    ----------
    unet : UNet2DModel
        On folded images; its last class means "any class".
    scheduler : SchedulerMixin
    """

    def __init__(self, unet: Any, scheduler: Any) -> None:
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)

    def predict(
        self, sample: torch.Tensor, timestep: Any, labels: torch.Tensor, guidance_scale: float
    ) -> torch.Tensor:
        """Output of the network after guidance, shape of `sample` (run, 3, 64, 64)."""
        folded = pixel_unshuffle(sample.to(self.unet.dtype), FOLD)
        if guidance_scale == 1.0:
            return pixel_shuffle(self.unet(folded, timestep, labels, return_dict=False)[0], FOLD)
        anything = torch.full_like(labels, self.unet.config.num_class_embeds - 1)
        twice, both = torch.cat([folded, folded]), torch.cat([labels, anything])
        given, free = self.unet(twice, timestep, both, return_dict=False)[0].chunk(2)
        return pixel_shuffle(free + guidance_scale * (given - free), FOLD)

    @torch.no_grad()
    def __call__(
        self,
        class_labels: int | Sequence[int],
        guidance_scale: float = 1.0,
        num_inference_steps: int = 25,
        generator: torch.Generator | list[torch.Generator] | None = None,
        eta: float = 0.0,
        latents: torch.Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[..., dict[str, Any]] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> Any:
        """Draw one image a label.

        Parameters
        ----------
        class_labels : int or sequence of int
            Classes, as ``classes.json`` numbers them.
        guidance_scale : float
            1 is no guidance and one evaluation a step; anything else costs two.
        num_inference_steps : int
        generator : torch.Generator or list of them, optional
        eta : float
            Share of fresh noise, for schedulers that take it.
        latents : Tensor, shape (run, 3, 64, 64), optional
            Standard normal noise to start from.
        output_type : str
            ``pil``, ``np``, ``pt``, or ``latent`` for pixels in -1..1 as they are.
        return_dict : bool
        callback_on_step_end : callable, optional
            As in other pipelines: ``(pipe, step, timestep, {"latents": sample})``.
        callback_on_step_end_tensor_inputs : sequence of str
            Only ``latents`` is there.

        Returns
        -------
        ImagePipelineOutput
        """
        chosen = [class_labels] if isinstance(class_labels, int) else list(class_labels)
        known = self.unet.config.num_class_embeds
        if not all(0 <= label < known for label in chosen):
            raise ValueError(f"class_labels {chosen}: give numbers from 0 to {known - 1}")
        device = self._execution_device
        labels = torch.tensor(chosen, device=device)
        side = self.unet.config.sample_size * FOLD
        sample = latents
        if sample is None:
            shape = (len(chosen), 3, side, side)
            sample = randn_tensor(shape, generator=generator, device=device)
        self.scheduler.set_timesteps(num_inference_steps, device=device)
        sample = sample.to(device) * getattr(self.scheduler, "init_noise_sigma", 1.0)
        takes = inspect.signature(self.scheduler.step).parameters
        extra = {"eta": eta, "generator": generator}
        extra = {name: value for name, value in extra.items() if name in takes}
        scale = getattr(self.scheduler, "scale_model_input", lambda x, _: x)
        for step, timestep in enumerate(self.progress_bar(self.scheduler.timesteps)):
            output = self.predict(scale(sample, timestep), timestep, labels, guidance_scale)
            output = output.to(sample.dtype)
            sample = self.scheduler.step(output, timestep, sample, **extra, return_dict=False)[0]
            if callback_on_step_end is not None:
                told = callback_on_step_end(self, step, timestep, {"latents": sample})
                sample = told.get("latents", sample)
        images = VaeImageProcessor(vae_scale_factor=1).postprocess(sample, output_type)
        return ImagePipelineOutput(images=images) if return_dict else (images,)
