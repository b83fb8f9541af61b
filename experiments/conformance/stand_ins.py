"""A pytest plugin: what diffusers' tests of pipelines fetch for their prompts, built here.

Tests that compare with stored numbers fail with these, plain and tapped.
"""

from __future__ import annotations

from typing import Any

import torch
import transformers

HUB = "hf-internal-testing/"
LENGTH = 77
TOKENIZERS = ("CLIPTokenizer", "AutoTokenizer", "T5Tokenizer", "T5TokenizerFast")


def pytest_configure(config: Any) -> None:
    """Build tiny tokenizers and T5 encoders instead of fetching them."""
    for name in TOKENIZERS:
        _replace(name, _tokenizer)
    _replace("AutoConfig", _encoder_config)
    _replace("T5EncoderModel", _encoder)


def _replace(name: str, build: Any) -> None:
    kind = getattr(transformers, name)
    real = kind.from_pretrained

    def from_pretrained(path: Any, *args: Any, **options: Any) -> Any:
        fetched = isinstance(path, str) and path.startswith(HUB)
        return build() if fetched else real(path, *args, **options)

    kind.from_pretrained = staticmethod(from_pretrained)


def _tokenizer() -> Any:
    """Build a CLIP tokenizer that knows single letters."""
    letters = [chr(code) for code in range(97, 123)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: i for i, word in enumerate(words)}
    return transformers.CLIPTokenizer(vocabulary, [], model_max_length=LENGTH)


def _encoder_config() -> Any:
    return transformers.T5Config(
        vocab_size=1000, d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=4
    )


def _encoder() -> Any:
    torch.manual_seed(0)
    return transformers.T5EncoderModel(_encoder_config()).eval()
