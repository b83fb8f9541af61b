"""Pipelines of Modular Diffusers, from tiny configurations and random weights.

Each is given embeddings in place of text. Those whose classic twin is tested take its components.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import diffusers
import torch
from newer_families import (
    FLUX,
    GUIDED,
    LARGER,
    SQUARE,
    Family,
    Words,
    embeds,
    flow,
    flux,
    flux2,
    flux2_autoencoder,
    ltx2,
    ltx_condition,
    picture,
    qwen,
    qwen_autoencoder,
    wan,
    without_text,
    z_image,
)
from tiny_pipelines import sd3, sdxl, wan_autoencoder, wan_transformer

PREPARING = (
    "text_encoder",
    "prompt_enhancer",
    "prompt_upsample",
    "prompt_upsampler",
    "text_conditioning",
    "duration",
)


def modular(
    blocks: str,
    guidance_scale: float | None = None,
    without: tuple[str, ...] = (),
    **parts: Any,
) -> Any:
    """A modular pipeline of these components that is given embeddings of text."""
    import diffusers.modular_pipelines as modules
    from diffusers.guiders import ClassifierFreeGuidance

    chosen = deepcopy(getattr(modules, blocks)())
    _leave_out(chosen)
    for name in without:
        chosen.sub_blocks.pop(name)
    pipe = chosen.init_pipeline()
    known = {*pipe.component_names, *pipe.config_component_names}
    pipe.update_components(**{name: part for name, part in parts.items() if name in known})
    if "boundary_ratio" in parts:
        pipe.update_components(boundary_ratio=parts["boundary_ratio"])
    for name in pipe.component_names:
        if name.endswith(("guider", "guider_2")) and guidance_scale is not None:
            pipe.update_components(**{name: ClassifierFreeGuidance(guidance_scale=guidance_scale)})
    if hasattr(pipe, "disable_safety_checker"):
        pipe.register_to_config(enable_safety_checker=False)
        pipe.disable_safety_checker()
    return pipe


def modular_version(classic: Any, blocks: str, guidance_scale: float | None = None) -> Any:
    """The same components in a modular pipeline."""
    parts = {name: part for name, part in classic.components.items() if part is not None}
    if "boundary_ratio" in classic.config:
        parts["boundary_ratio"] = classic.config["boundary_ratio"]
    pipe = modular(blocks, guidance_scale, **parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def modular_with_text(guidance_scale: float = 3.0) -> Any:
    """A modular SDXL with its text encoders."""
    parts = {name: part for name, part in sdxl().components.items() if part is not None}
    pipe = diffusers.modular_pipelines.StableDiffusionXLAutoBlocks().init_pipeline()
    pipe.update_components(**{n: part for n, part in parts.items() if n in pipe.component_names})
    pipe.guider = type(pipe.guider)(guidance_scale=guidance_scale)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _leave_out(blocks: Any) -> None:
    for name, block in list((blocks.sub_blocks or {}).items()):
        if name in PREPARING and "connectors" not in (block.sub_blocks or {}):
            blocks.sub_blocks.pop(name)
        else:
            _leave_out(block)


def krea2() -> Any:
    transformer = diffusers.Krea2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=32,
        timestep_embed_dim=8,
        text_hidden_dim=8,
        num_text_layers=2,
        text_num_attention_heads=2,
        text_num_key_value_heads=1,
        text_intermediate_size=16,
        num_layerwise_text_blocks=1,
        num_refiner_text_blocks=1,
        axes_dims_rope=(4, 2, 2),
        rope_theta=1000.0,
    )
    return modular(
        "Krea2AutoBlocks", 4.0, transformer=transformer, vae=qwen_autoencoder(), scheduler=flow()
    )


def ideogram4() -> Any:
    def network() -> Any:
        return diffusers.Ideogram4Transformer2DModel(
            in_channels=8,
            num_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            intermediate_size=32,
            adaln_dim=16,
            llm_features_dim=8,
            mrope_section=(2, 1, 1),
        )

    return modular(
        "Ideogram4AutoBlocks",
        transformer=network(),
        unconditional_transformer=network(),
        vae=flux2_autoencoder(2),
        scheduler=flow(),
    )


def hunyuan15() -> Any:
    transformer = diffusers.HunyuanVideo15Transformer3DModel(
        in_channels=9,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=1,
        num_refiner_layers=1,
        mlp_ratio=2.0,
        patch_size=1,
        patch_size_t=1,
        text_embed_dim=8,
        text_embed_2_dim=8,
        image_embed_dim=12,
        rope_axes_dim=(2, 2, 4),
        target_size=16,
        task_type="t2v",
    )
    vae = diffusers.AutoencoderKLHunyuanVideo15(
        latent_channels=4,
        block_out_channels=(16, 16),
        layers_per_block=1,
        spatial_compression_ratio=4,
        temporal_compression_ratio=2,
        downsample_match_channel=False,
        upsample_match_channel=False,
    )
    return modular(
        "HunyuanVideo15AutoBlocks", 4.0, transformer=transformer, vae=vae, scheduler=flow()
    )


def anima() -> Any:
    transformer = diffusers.CosmosTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=1,
        mlp_ratio=2,
        text_embed_dim=8,
        adaln_lora_dim=4,
        max_size=(4, 32, 32),
        rope_scale=(2.0, 1.0, 1.0),
        concat_padding_mask=False,
        extra_pos_embed_type=None,
    )
    return modular(
        "AnimaAutoBlocks", 4.0, transformer=transformer, vae=qwen_autoencoder(), scheduler=flow()
    )


def flux3() -> Any:
    transformer = diffusers.Flux3Transformer2DModel(
        in_channels=4,
        cond_in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=8,
        timestep_channels=16,
        axes_dims_rope=(4, 4, 4, 4),
    )
    return modular(
        "Flux3AutoBlocks",
        4.0,
        transformer=transformer,
        vae=flux2_autoencoder(),
        scheduler=flow(shift=6.93),
    )


def qwen21() -> Any:
    transformer = diffusers.QwenImage21Transformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        context_in_dim=8,
        axes_dims_rope=(8, 4, 4),
    )
    vae = diffusers.AutoencoderKLQwenImage21(
        base_dim=8,
        decoder_base_dim=8,
        z_dim=4,
        dim_mult=[1, 1],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
        is_residual=False,
        in_channels=3,
        out_channels=3,
        scale_factor_spatial=2,
    )
    return modular("QwenImage21AutoBlocks", 4.0, transformer=transformer, vae=vae, scheduler=flow())


def cosmos3() -> Any:
    transformer = diffusers.Cosmos3OmniTransformer(
        head_dim=6,
        hidden_size=6,
        intermediate_size=12,
        latent_channel=16,
        latent_patch_size=1,
        num_attention_heads=1,
        num_hidden_layers=1,
        num_key_value_heads=1,
        patch_latent_dim=16,
        qk_norm_for_text=False,
        rope_axes_dim=[1, 1, 1],
        vocab_size=16,
    )
    return modular(
        "Cosmos3OmniBlocks",
        transformer=transformer,
        vae=wan_autoencoder(),
        scheduler=diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction",
            use_flow_sigmas=True,
            flow_shift=3.0,
            solver_order=1,
            disable_corrector=[0, 1, 2],
        ),
    )


def sdxl_control() -> Any:
    pipe = modular_version(sdxl(), "StableDiffusionXLAutoBlocks", 5.0)
    pipe.update_components(
        controlnet=diffusers.ControlNetModel.from_unet(
            pipe.unet, conditioning_embedding_out_channels=(4, 8), load_weights_from_unet=False
        )
    )
    return pipe


def ltx() -> Any:
    parts = {name: part for name, part in ltx_condition().components.items() if part is not None}
    return without_text("LTXPipeline", **parts)


def wan_image() -> Any:
    return modular(
        "Wan22Image2VideoBlocks",
        5.0,
        transformer=wan_transformer(36),
        transformer_2=wan_transformer(36),
        boundary_ratio=0.4,
        vae=wan_autoencoder(),
        scheduler=flow(),
    )


def wan_animate() -> Any:
    transformer = diffusers.WanAnimate2Transformer3DModel(
        text_len=16,
        dim=16,
        ffn_dim=16,
        freq_dim=16,
        text_dim=8,
        num_heads=2,
        num_layers=1,
    )
    return modular(
        "WanAnimate2Blocks",
        3.0,
        ("image_encoder", "video_encoder", "vae_encoder"),
        transformer=transformer,
        vae=wan_autoencoder(),
        scheduler=flow(),
    )


def of(classic: Callable[..., Any], blocks: str, scale: float | None = None) -> Any:
    """A builder of a modular pipeline from the components of a classic one."""
    return lambda **config: modular_version(classic(**config), blocks, scale)


def classic(build: Callable[[], Any], kind: str, **more: Any) -> Callable[[], Any]:
    """A builder of a classic pipeline from the components of a modular one."""

    def make() -> Any:
        takes = inspect.signature(getattr(diffusers, kind).__init__).parameters
        parts = {name: part for name, part in build().components.items() if name in takes}
        return without_text(
            kind, **{name: part for name, part in parts.items() if part is not None}, **more
        )

    return make


def cosmos3_classic() -> Any:
    pipe = classic(
        cosmos3, "Cosmos3OmniPipeline", text_tokenizer=Words(), enable_safety_checker=False
    )()
    ids = (TOLD_COSMOS["cond_input_ids"], TOLD_COSMOS["uncond_input_ids"])
    pipe.tokenize_prompt = lambda *_, **__: ids
    return pipe


def ideogram4_classic() -> Any:
    pipe = classic(ideogram4, "Ideogram4Pipeline")()

    def encode_prompt(grid_h: int, grid_w: int, device: Any, **_: Any) -> tuple[torch.Tensor, ...]:
        text, places = embeds(), grid_h * grid_w
        features = torch.cat([text, torch.zeros(1, places, text.shape[2])], 1)
        return features, *pipe._prepare_ids([4], grid_h, grid_w, 4, device)

    pipe.encode_prompt = encode_prompt
    return pipe


def qwen21_classic() -> Any:
    pipe = classic(qwen21, "QwenImage21Pipeline", processor=Words())()
    pipe.vae_scale_factor = pipe.vae.config.scale_factor_spatial  # it is 16 whatever the VAE
    return pipe


def shown(size: int = 16) -> Any:
    from PIL import Image

    return Image.fromarray((picture(size)[0] * 255).byte().permute(1, 2, 0).numpy())


def masks(*names: str, tokens: int = 4) -> dict[str, Any]:
    return {name: torch.ones(1, tokens) for name in names}


POOLED = {
    "pooled_prompt_embeds": embeds()[:, 0],
    "negative_pooled_prompt_embeds": embeds(seed=1)[:, 0],
}
IMAGE = {"image": picture(), "strength": 0.7}
WIDE = {
    "prompt_embeds": embeds(width=16),
    "negative_prompt_embeds": embeds(width=16, seed=1),
    **POOLED,
}
HALF = torch.cat([torch.zeros(1, 1, 8, 16), torch.ones(1, 1, 8, 16)], 2)
LAYERED = {
    "prompt_embeds": torch.stack([embeds()[0], embeds(seed=2)[0]], 1)[None],
    "negative_prompt_embeds": torch.stack([embeds(seed=1)[0], embeds(seed=3)[0]], 1)[None],
    **masks("prompt_embeds_mask", "negative_prompt_embeds_mask"),
}
TWO_TEXTS = {
    **GUIDED,
    "prompt_embeds_2": embeds(),
    "negative_prompt_embeds_2": embeds(seed=1),
    **masks(
        "prompt_embeds_mask",
        "prompt_embeds_mask_2",
        "negative_prompt_embeds_mask",
        "negative_prompt_embeds_mask_2",
    ),
}
LTX = {**GUIDED, **masks("prompt_attention_mask", "negative_prompt_attention_mask"), **LARGER}
ENCODED = {"batch_size": 1, "dtype": torch.float32}  # as the step that reads prompts says
CONNECTED = {
    "prompt_embeds": embeds(width=64),
    "negative_prompt_embeds": embeds(width=64, seed=1),
    **masks("prompt_attention_mask", "negative_prompt_attention_mask"),
}
TOLD_COSMOS = {
    "cond_input_ids": [1, 2, 3],
    "uncond_input_ids": [4, 5, 6],
    **SQUARE,
    "num_frames": 5,
}

SEGMENT = {
    **GUIDED,
    **SQUARE,
    "prompt_ref_embeds": embeds(seed=2),
    "denoiser_input_fields": {"encoder_hidden_states_image": embeds(257, 1280)},
    "condition_clip_context": embeds(257, 1280),
    "reference_image_latents": torch.zeros(20, 1, 2, 2),
    "driving_video_pixels": torch.zeros(1, 3, 5, 16, 16),
    "segment_frame_length": 5,
    "effective_segment": 4,
    "num_segments": 1,
    "real_frame_len": 5,
    "crop_region": (0, 0, 16, 16),
}

MODULAR: dict[str, Family] = {
    "sd3": Family(
        of(sd3, "StableDiffusion3AutoBlocks", 5.0), (4, 8, 8), {**GUIDED, **POOLED, **SQUARE}
    ),
    "sd3-image": Family(
        of(sd3, "StableDiffusion3AutoBlocks", 5.0),
        (4, 8, 8),
        {**GUIDED, **POOLED, **SQUARE, **IMAGE},
    ),
    "krea2": Family(krea2, (4, 4, 4), {**LAYERED, **SQUARE}),
    "krea2-classic": Family(classic(krea2, "Krea2Pipeline"), (4, 4, 4), {**LAYERED, **SQUARE}),
    "hunyuan-1.5-classic": Family(
        classic(hunyuan15, "HunyuanVideo15Pipeline"),
        (2, 4, 4, 4),
        {**TWO_TEXTS, **SQUARE, "num_frames": 3},
    ),
    "ideogram4": Family(
        ideogram4,
        (2, 16, 16),
        {
            "text_features": embeds(),
            "text_lengths": [4],
            "guidance_schedule": [7.0, 7.0, 3.0],
            **SQUARE,
        },
    ),
    "ideogram4-classic": Family(
        ideogram4_classic,
        (2, 16, 16),
        {
            "prompt": "a",
            "max_sequence_length": 4,
            "guidance_schedule": [7.0, 7.0, 3.0],
            **SQUARE,
        },
    ),
    "hunyuan-1.5": Family(hunyuan15, (2, 4, 4, 4), {**TWO_TEXTS, **SQUARE, "num_frames": 3}),
    "anima": Family(anima, (1, 4, 4, 4), {**GUIDED, **SQUARE}),
    "anima-image": Family(anima, (1, 4, 4, 4), {**GUIDED, **SQUARE, **IMAGE}),
    "flux3": Family(flux3, (1, 16, 16), {**GUIDED, **SQUARE}),
    "qwen-2.1": Family(
        qwen21,
        (4, 8, 8),
        {
            **GUIDED,
            **SQUARE,
            **masks("prompt_embeds_mask", "negative_prompt_embeds_mask"),
            "image_pad_mask": torch.zeros(1, 4, dtype=torch.bool),
            "negative_image_pad_mask": torch.zeros(1, 4, dtype=torch.bool),
        },
    ),
    "qwen-2.1-classic": Family(
        qwen21_classic,
        (4, 8, 8),
        {
            **GUIDED,
            **SQUARE,
            **masks("prompt_embeds_mask", "negative_prompt_embeds_mask"),
        },
    ),
    "ltx": Family(of(ltx_condition, "LTXAutoBlocks", 3.0), (3, 8, 8, 8), {**LTX, "num_frames": 9}),
    "ltx-image": Family(
        of(ltx_condition, "LTXAutoBlocks", 3.0),
        (2, 8, 8, 8),
        {**LTX, "num_frames": 9, "image": picture(32)},
        held=1,
    ),
    "ltx-2-modular": Family(
        of(ltx2, "LTX2AutoBlocks"),
        (3, 4, 16, 16),
        {**CONNECTED, **ENCODED, **LARGER, "num_frames": 5, "frame_rate": 25.0},
    ),
    "wan": Family(of(wan, "WanBlocks", 5.0), (2, 16, 2, 2), {**GUIDED, **SQUARE, "num_frames": 5}),
    "z-image-image": Family(
        of(z_image, "ZImageAutoBlocks", 5.0),
        (4, 8, 8),
        {
            "prompt_embeds": [embeds()[0]],
            "negative_prompt_embeds": [embeds(seed=1)[0]],
            **SQUARE,
            **IMAGE,
        },
    ),
    "qwen-inpaint": Family(
        of(qwen, "QwenImageAutoBlocks", 5.0),
        (4, 4, 4),
        {
            **GUIDED,
            **SQUARE,
            **IMAGE,
            **masks("prompt_embeds_mask", "negative_prompt_embeds_mask"),
            "mask_image": HALF,
            "output_type": "pil",
        },
    ),
    "sdxl": Family(of(sdxl, "StableDiffusionXLAutoBlocks", 5.0), (4, 8, 8), {**WIDE, **SQUARE}),
    "sdxl-image": Family(
        of(sdxl, "StableDiffusionXLAutoBlocks", 5.0),
        (4, 8, 8),
        {**WIDE, **SQUARE, **IMAGE},
        steps=2,
    ),
    "sdxl-inpaint": Family(
        of(sdxl, "StableDiffusionXLAutoBlocks", 5.0),
        (4, 8, 8),
        {**WIDE, **SQUARE, **IMAGE, "mask_image": HALF},
        steps=2,
    ),
    "sdxl-control": Family(sdxl_control, (4, 8, 8), {**WIDE, **SQUARE, "control_image": picture()}),
    "flux-image": Family(of(flux, "FluxAutoBlocks"), (1, 16, 16), {**FLUX, **SQUARE, **IMAGE}),
    "flux2-image": Family(
        of(flux2, "Flux2AutoBlocks"),
        (1, 16, 16),
        {"prompt_embeds": embeds(), **SQUARE, "image": shown(64)},
    ),
    "flux3-image": Family(flux3, (1, 16, 16), {**GUIDED, **SQUARE, "image": shown()}),
    "qwen-image": Family(
        of(qwen, "QwenImageAutoBlocks", 5.0),
        (4, 4, 4),
        {
            **GUIDED,
            **SQUARE,
            **IMAGE,
            **masks("prompt_embeds_mask", "negative_prompt_embeds_mask"),
        },
    ),
    "wan-2.2-image": Family(
        wan_image, (2, 16, 2, 2), {**GUIDED, **SQUARE, "num_frames": 5, "image": shown()}
    ),
    "ltx-2-classic": Family(
        ltx2, (3, 4, 16, 16), {**CONNECTED, **LARGER, "num_frames": 5, "frame_rate": 25.0}
    ),
    "ltx-2-image": Family(
        of(ltx2, "LTX2AutoBlocks"),
        (2, 4, 16, 16),
        {
            **CONNECTED,
            **ENCODED,
            **LARGER,
            "num_frames": 5,
            "frame_rate": 25.0,
            "image": shown(32),
            "image_crf": 0,
        },
        held=1,
    ),
    "cosmos-3-image": Family(
        cosmos3,
        (2, 16, 2, 2),
        {**TOLD_COSMOS, "image": shown()},
    ),
    "wan-animate-2": Family(wan_animate, (3, 16, 2, 2), SEGMENT),
    "cosmos-3": Family(
        cosmos3,
        (2, 16, 2, 2),
        TOLD_COSMOS,
    ),
    "cosmos-3-classic": Family(
        cosmos3_classic, (2, 16, 2, 2), {"prompt": "a", **SQUARE, "num_frames": 5}
    ),
}
