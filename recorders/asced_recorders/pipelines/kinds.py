"""What a pipeline is asked with: nothing, prompts, classes or images; and in how many steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from asced_recorders.pipelines.calls import call_parameters, default_arguments
from asced_recorders.pipelines.networks import DECODERS, bare
from asced_recorders.pipelines.sampling import is_unconditional

Takes = Literal["nothing", "prompts", "classes", "images", "prompt embeddings", "something else"]
IMAGES = frozenset(
    ("image", "mask_image", "control_image", "video", "conditioning_image", "reference_image")
)
STEPS = 25
"""Of samplers that name more: enough for every step of a run to differ from the next."""
PROMPT = "a garden"
PIXEL_BATCH, LATENT_BATCH = 16, 4
"""Runs at once: networks of latents are larger, and decoding takes memory."""


@dataclass(frozen=True)
class Kind:
    """How a pipeline is asked.

    Attributes
    ----------
    takes : str
    own_loop : bool
        Whether the pipeline's own loop runs; else that of this package, with any scheduler.
    latent : bool
        Whether its samples are decoded.
    steps : int
        That its call takes by default, at most `STEPS`.
    classes : int
        0 where it has none.
    """

    takes: Takes
    own_loop: bool
    latent: bool
    steps: int
    classes: int

    @property
    def batch_size(self) -> int:
        """Runs to sample at once, where nobody says otherwise."""
        return LATENT_BATCH if self.latent else PIXEL_BATCH

    @property
    def sentence(self) -> str:
        """For people."""
        loop = "its own loop" if self.own_loop else "the recorder's loop, any scheduler"
        samples = "latents that are decoded" if self.latent else "pixels"
        return f"takes {self.takes}; {loop}; {samples}"


def kind_of(pipe: Any, /) -> Kind:
    """Look at a pipeline's call and parts.

    Parameters
    ----------
    pipe : DiffusionPipeline or ModularPipeline
    """
    latent = any(getattr(pipe, name, None) is not None for name in DECODERS)
    if is_unconditional(pipe):
        classes = int(bare(pipe.unet).config.get("num_class_embeds") or 0)
        return Kind("classes" if classes else "nothing", False, latent, STEPS, classes)
    takes, defaults = call_parameters(pipe), default_arguments(pipe)
    steps = defaults.get("num_inference_steps")
    steps = min(STEPS, steps) if isinstance(steps, int) else STEPS
    what: Takes = "something else"
    if IMAGES & set(takes):
        what = "images"
    elif "prompt" in takes:
        what = "prompts" if _reads_text(pipe) else "prompt embeddings"
    elif "class_labels" in takes:
        what = "classes"
    elif "num_inference_steps" in takes and "generator" in takes:
        what = "nothing"
    return Kind(what, True, latent, steps, _classes(pipe) if what == "classes" else 0)


def _reads_text(pipe: Any) -> bool:
    """Whether a text encoder is there, of a pipeline that names some."""
    parts = getattr(pipe, "components", {})
    encoders = [parts[name] for name in parts if name.startswith("text_encoder")]
    return not encoders or any(one is not None for one in encoders)


def _classes(pipe: Any) -> int:
    """How many classes a pipeline's network knows; 1 where it does not say."""
    for part in ("transformer", "unet"):
        config = getattr(bare(getattr(pipe, part, None)), "config", None) or {}
        for name in ("num_embeds_ada_norm", "num_class_embeds"):
            if config.get(name):
                return int(config[name])
    return 1


def trial_arguments(kind: Kind) -> dict[str, Any] | None:
    """What `asced_recorders.record` needs to draw one run of a pipeline of this kind.

    Returns
    -------
    dict or None
        None where nobody but the user knows.
    """
    if kind.takes == "prompts":
        return {"prompts": [PROMPT]}
    if kind.takes == "classes":
        return {"labels": [0]}
    return {} if kind.takes == "nothing" else None
