"""Pipelines of 2026, from tiny configurations and random weights, and how each is called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import diffusers
import torch
from tiny_pipelines import EMBEDDING as TEXT
from tiny_pipelines import wan_autoencoder, wan_transformer


def embeds(tokens: int = 4, width: int = TEXT, seed: int = 0) -> torch.Tensor:
    return torch.randn(1, tokens, width, generator=torch.Generator().manual_seed(seed))


def picture(size: int = 16) -> torch.Tensor:
    return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(5))


def flow(**options: Any) -> Any:
    return diffusers.FlowMatchEulerDiscreteScheduler(**options)


def autoencoder(channels: int, widths: tuple[int, ...] = (4,), **options: Any) -> Any:
    return diffusers.AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        block_out_channels=widths,
        layers_per_block=1,
        latent_channels=channels,
        norm_num_groups=1,
        sample_size=32,
        **{"shift_factor": 0.06, "scaling_factor": 1.5, **options},
    )


def without_text(kind: str, **parts: Any) -> Any:
    """A pipeline class with the parts that are given, and None for every other that it names."""
    import inspect

    cls = getattr(diffusers, kind)
    names = list(inspect.signature(cls.__init__).parameters)[1:]
    missing = {
        name: None
        for name in names
        if "text_encoder" in name or "tokenizer" in name or "image" in name
        if name not in parts
    }
    return cls(**missing, **parts)


class Words:
    """The little that classic pipelines ask of a tokenizer before any text comes."""

    eos_token_id = 0
    padding_side = "left"
    model_max_length = 1024

    @property
    def tokenizer(self) -> Words:
        return self

    def convert_tokens_to_ids(self, token: str) -> int:
        return 0

    def encode(self, text: str) -> list[int]:
        return [0]

    def apply_chat_template(self, *_: Any, **__: Any) -> list[list[int]]:
        return [[0]]


def flux(kind: str = "", channels: int = 4, conditions: int = 0) -> Any:
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=channels + conditions,
        out_channels=channels,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=TEXT,
        pooled_projection_dim=TEXT,
        axes_dims_rope=(4, 4, 8),
    )
    vae = autoencoder(channels // 4)
    return without_text(f"Flux{kind}Pipeline", scheduler=flow(), transformer=transformer, vae=vae)


def flux2_autoencoder(channels: int = 1) -> Any:
    vae = diffusers.AutoencoderKLFlux2(
        sample_size=32,
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",),
        up_block_types=("UpDecoderBlock2D",),
        block_out_channels=(4,),
        layers_per_block=1,
        latent_channels=channels,
        norm_num_groups=1,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    vae.bn.running_mean += torch.randn(4 * channels)
    vae.bn.running_var *= torch.rand(4 * channels) + 0.5
    return vae


def flux2() -> Any:
    transformer = diffusers.Flux2Transformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=TEXT,
        timestep_guidance_channels=16,
        axes_dims_rope=[4, 4, 4, 4],
    )
    vae = flux2_autoencoder()
    return without_text("Flux2Pipeline", scheduler=flow(), transformer=transformer, vae=vae)


def ernie() -> Any:
    transformer = diffusers.ErnieImageTransformer2DModel(
        hidden_size=32,
        num_attention_heads=2,
        num_layers=1,
        ffn_hidden_size=32,
        in_channels=4,
        out_channels=4,
        text_in_dim=TEXT,
        rope_axes_dim=(4, 6, 6),
    )
    vae = flux2_autoencoder()
    return without_text(
        "ErnieImagePipeline", scheduler=flow(), transformer=transformer, vae=vae, pe=None
    )


def qwen_autoencoder() -> Any:
    return diffusers.AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )


def qwen(kind: str = "", **parts: Any) -> Any:
    transformer = diffusers.QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=TEXT,
        guidance_embeds=False,
        axes_dims_rope=(8, 4, 4),
    )
    vae = qwen_autoencoder()
    return without_text(
        f"QwenImage{kind}Pipeline", scheduler=flow(), transformer=transformer, vae=vae, **parts
    )


def z_image() -> Any:
    transformer = diffusers.ZImageTransformer2DModel(
        all_patch_size=(2,),
        all_f_patch_size=(1,),
        in_channels=4,
        dim=32,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        qk_norm=True,
        cap_feat_dim=TEXT,
        rope_theta=256.0,
        axes_dims=[8, 4, 4],
        axes_lens=[256, 32, 32],
    )
    with torch.no_grad():  # made empty
        transformer.x_pad_token.fill_(1)
        transformer.cap_pad_token.fill_(1)
    vae = autoencoder(4, (4, 4))
    return without_text("ZImagePipeline", scheduler=flow(), transformer=transformer, vae=vae)


def sana() -> Any:
    transformer = diffusers.SanaTransformer2DModel(
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_attention_heads=2,
        attention_head_dim=4,
        num_cross_attention_heads=2,
        cross_attention_head_dim=4,
        cross_attention_dim=8,
        caption_channels=TEXT,
        sample_size=32,
    )
    vae = diffusers.AutoencoderDC(
        in_channels=3,
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=[1, 1],
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
        scaling_factor=0.41,
    )
    return without_text("SanaPipeline", scheduler=flow(), transformer=transformer, vae=vae)


def wan(kind: str = "", **config: Any) -> Any:
    vae = wan_autoencoder()
    second = wan_transformer() if "boundary_ratio" in config else None
    return without_text(
        f"Wan{kind}Pipeline",
        scheduler=flow(),
        vae=vae,
        transformer=wan_transformer(),
        transformer_2=second,
        **config,
    )


def hunyuan() -> Any:
    transformer = diffusers.HunyuanVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=10,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        patch_size=1,
        patch_size_t=1,
        guidance_embeds=True,
        text_embed_dim=TEXT,
        pooled_projection_dim=TEXT,
        rope_axes_dim=(2, 4, 4),
    )
    vae = diffusers.AutoencoderKLHunyuanVideo(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        down_block_types=("HunyuanVideoDownBlock3D",) * 4,
        up_block_types=("HunyuanVideoUpBlock3D",) * 4,
        block_out_channels=(4, 4, 4, 4),
        layers_per_block=1,
        norm_num_groups=2,
        scaling_factor=0.48,
        spatial_compression_ratio=8,
        temporal_compression_ratio=4,
        mid_block_add_attention=False,
    )
    return without_text(
        "HunyuanVideoPipeline", scheduler=flow(shift=7.0), transformer=transformer, vae=vae
    )


def ltx_condition() -> Any:
    transformer = diffusers.LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        patch_size=1,
        patch_size_t=1,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        num_layers=1,
        caption_channels=TEXT,
    )
    vae = diffusers.AutoencoderKLLTXVideo(
        in_channels=3,
        out_channels=3,
        latent_channels=8,
        block_out_channels=(4, 4, 4, 4),
        decoder_block_out_channels=(4, 4, 4, 4),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
        spatio_temporal_scaling=(True, True, False, False),
        decoder_spatio_temporal_scaling=(True, True, False, False),
        decoder_inject_noise=(False,) * 5,
        upsample_residual=(False,) * 4,
        upsample_factor=(1,) * 4,
        timestep_conditioning=False,
        patch_size=1,
        patch_size_t=1,
        encoder_causal=True,
        decoder_causal=False,
    )
    return without_text("LTXConditionPipeline", scheduler=flow(), transformer=transformer, vae=vae)


def ltx2() -> Any:
    transformer = diffusers.LTX2VideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        patch_size=1,
        patch_size_t=1,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        audio_in_channels=4,
        audio_out_channels=4,
        audio_num_attention_heads=2,
        audio_attention_head_dim=4,
        audio_cross_attention_dim=8,
        num_layers=1,
        qk_norm="rms_norm_across_heads",
        caption_channels=32,
        rope_double_precision=False,
        rope_type="split",
    )
    connectors = diffusers.pipelines.ltx2.connectors.LTX2TextConnectors(
        caption_channels=32,
        text_proj_in_factor=2,
        video_connector_num_attention_heads=4,
        video_connector_attention_head_dim=8,
        video_connector_num_layers=1,
        video_connector_num_learnable_registers=None,
        audio_connector_num_attention_heads=4,
        audio_connector_attention_head_dim=8,
        audio_connector_num_layers=1,
        audio_connector_num_learnable_registers=None,
        connector_rope_base_seq_len=32,
        rope_theta=10000.0,
        rope_double_precision=False,
        causal_temporal_positioning=False,
        rope_type="split",
    )
    vae = diffusers.AutoencoderKLLTX2Video(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(8,),
        decoder_block_out_channels=(8,),
        layers_per_block=(1,),
        decoder_layers_per_block=(1, 1),
        spatio_temporal_scaling=(True,),
        decoder_spatio_temporal_scaling=(True,),
        decoder_inject_noise=(False, False),
        downsample_type=("spatial",),
        upsample_residual=(False,),
        upsample_factor=(1,),
        timestep_conditioning=False,
        patch_size=1,
        patch_size_t=1,
        encoder_causal=True,
        decoder_causal=False,
    )
    audio_vae = diffusers.AutoencoderKLLTX2Audio(
        base_channels=4,
        output_channels=2,
        ch_mult=(1,),
        num_res_blocks=1,
        attn_resolutions=None,
        in_channels=2,
        resolution=32,
        latent_channels=2,
        norm_type="pixel",
        causality_axis="height",
        dropout=0.0,
        mid_block_add_attention=False,
        sample_rate=16000,
        mel_hop_length=160,
        is_causal=True,
        mel_bins=8,
    )
    vocoder = diffusers.pipelines.ltx2.vocoder.LTX2Vocoder(
        in_channels=16,
        hidden_channels=32,
        out_channels=2,
        upsample_kernel_sizes=[4, 4],
        upsample_factors=[2, 2],
        resnet_kernel_sizes=[3],
        resnet_dilations=[[1, 3, 5]],
        leaky_relu_negative_slope=0.1,
        output_sampling_rate=16000,
    )
    return without_text(
        "LTX2Pipeline",
        scheduler=flow(),
        transformer=transformer,
        vae=vae,
        audio_vae=audio_vae,
        connectors=connectors,
        vocoder=vocoder,
        tokenizer=Words(),
    )


@dataclass
class Family:
    """How a pipeline is built and called, and the shape of its recorded samples.

    Of three steps, `steps` are taken. `held` frames at the beginning are given, and not sampled.
    """

    build: Callable[..., Any]
    shape: tuple[int, ...]
    call: dict[str, Any]
    arguments: tuple[Any, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    held: int = 0
    steps: int = 3

    def make(self) -> Any:
        torch.manual_seed(0)
        pipe = self.build(*self.arguments, **self.config)
        for part in pipe.components.values():
            if hasattr(part, "eval"):
                part.eval()
        pipe.set_progress_bar_config(disable=True)
        return pipe


FLUX = {"prompt_embeds": embeds(), "pooled_prompt_embeds": embeds()[:, 0]}
SQUARE = {"height": 16, "width": 16}
LARGER = {"height": 32, "width": 32}
GUIDED = {"prompt_embeds": embeds(), "negative_prompt_embeds": embeds(seed=1)}
MASKED = {
    **GUIDED,
    "prompt_attention_mask": torch.ones(1, 4),
    "negative_prompt_attention_mask": torch.ones(1, 4),
}
MASK = torch.ones(1, 1, 16, 16)

FAMILIES: dict[str, Family] = {
    "flux-control": Family(
        flux, (1, 16, 16), {**FLUX, **SQUARE, "control_image": picture()}, ("Control", 4, 4)
    ),
    "flux-fill": Family(
        flux,
        (2, 16, 16),
        {**FLUX, **SQUARE, "image": picture(), "mask_image": MASK},
        ("Fill", 8, 12),
    ),
    "flux-kontext": Family(
        flux,
        (1, 16, 16),
        {**FLUX, **SQUARE, "image": picture(), "_auto_resize": False, "max_area": 256},
        ("Kontext",),
    ),
    "flux2": Family(flux2, (1, 16, 16), {"prompt_embeds": embeds(), **SQUARE}),
    "ernie": Family(
        ernie,
        (4, 8, 8),
        {
            "prompt_embeds": [embeds()[0]],
            "negative_prompt_embeds": [embeds(seed=1)[0]],
            **SQUARE,
        },
    ),
    "qwen": Family(
        qwen,
        (4, 4, 4),
        {
            **GUIDED,
            **SQUARE,
            "prompt_embeds_mask": torch.ones(1, 4).long(),
            "negative_prompt_embeds_mask": torch.ones(1, 4).long(),
        },
    ),
    "z-image": Family(
        z_image,
        (4, 8, 8),
        {
            "prompt_embeds": [embeds()[0]],
            "negative_prompt_embeds": [embeds(seed=1)[0]],
            **SQUARE,
        },
    ),
    "sana": Family(
        sana,
        (4, 16, 16),
        {**MASKED, **LARGER, "negative_prompt": None, "use_resolution_binning": False},
    ),
    "wan-2.2": Family(
        wan,
        (2, 16, 2, 2),
        {**GUIDED, **SQUARE, "num_frames": 5},
        config={"boundary_ratio": 0.4},
    ),
    "hunyuan": Family(
        hunyuan,
        (2, 4, 2, 2),
        {
            "prompt_embeds": embeds(),
            "pooled_prompt_embeds": embeds()[:, 0],
            "prompt_attention_mask": torch.ones(1, 4),
            **SQUARE,
            "num_frames": 5,
        },
    ),
    "ltx-condition": Family(
        ltx_condition,
        (3, 8, 8, 8),
        {
            **MASKED,
            **LARGER,
            "num_frames": 9,
            "image": picture(32),
            "image_cond_noise_scale": 0.0,
        },
    ),
    "ltx-2": Family(
        ltx2,
        (3, 4, 16, 16),
        {
            "prompt_embeds": embeds(width=64),
            "prompt_attention_mask": torch.ones(1, 4),
            "guidance_scale": 1.0,
            "stg_scale": 0.0,
            "modality_scale": 1.0,
            "audio_guidance_scale": 1.0,
            "audio_stg_scale": 0.0,
            "audio_modality_scale": 1.0,
            **LARGER,
            "num_frames": 5,
            "frame_rate": 25.0,
        },
    ),
}
