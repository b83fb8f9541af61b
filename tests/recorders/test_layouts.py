"""Layouts bring a pipeline's tensors to the recorded order and back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from asced_recorders.tap.layout_choice import layout_of
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

KINDS: dict[str, tuple[Layout, tuple[int, ...], tuple[int, ...]]] = {
    "channel first": (ChannelFirstVideo(), (2, 4, 3, 5, 6), (2, 3, 4, 5, 6)),
    "channel last": (ChannelLastVideo(), (2, 3, 5, 6, 4), (2, 3, 4, 5, 6)),
    "packed": (Packed(3, 5), (2, 15, 16), (2, 4, 6, 10)),
    "tokens": (Tokens(3, 5, 6), (2, 90, 4), (2, 3, 4, 5, 6)),
    "layers": (PackedLayers(3, 2, 5), (2, 30, 16), (2, 3, 4, 4, 10)),
    "doubled": (Doubled(), (4, 4, 5, 6), (2, 4, 5, 6)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_brought_back_is_what_there_was(kind: str) -> None:
    layout, shape, recorded = KINDS[kind]
    tensor = torch.randn(shape)
    if kind == "doubled":
        tensor = tensor[:2].repeat(2, 1, 1, 1)
    found = layout.rearrange(tensor)
    assert found.shape == recorded
    assert torch.equal(layout.restore(found, tensor), tensor)


def test_layers_are_those_of_the_row_in_order() -> None:
    one = Packed(2, 5)
    layers = [torch.randn(2, 10, 16) for _ in range(3)]
    found = PackedLayers(3, 2, 5).rearrange(torch.cat(layers, 1))
    for layer, values in enumerate(layers):
        assert torch.equal(found[:, layer], one.rearrange(values))


def test_they_are_found_by_class_call_and_shape() -> None:
    pipe = SimpleNamespace(vae=SimpleNamespace(config={"z_dim": 4}), vae_scale_factor=8)

    def shape(tensor: torch.Tensor, **call: Any) -> tuple[int, ...]:
        return tuple(layout_of(pipe, call).rearrange(tensor).shape)

    assert shape(torch.zeros(1, 3, 5, 6, 4)) == (1, 3, 4, 5, 6)
    assert shape(torch.zeros(1, 4, 3, 5, 6)) == (1, 3, 4, 5, 6)
    with pytest.raises(InputError, match=r"ChannelLastVideo\(\) for \(run, frame, y, x, channel\)"):
        shape(torch.zeros(1, 4, 4, 6, 5))
    assert shape(torch.zeros(1, 4, 3, 4, 4)) == (1, 3, 4, 4, 4)  # as wide as it has channels
    assert shape(torch.zeros(1, 3, 4, 6, 4)) == (1, 3, 4, 6, 4)
    edited = Image.new("RGB", (96, 64))
    assert shape(torch.zeros(1, 3 * 40 * 60, 16), image=edited, layers=2) == (1, 3, 4, 80, 120)
    with pytest.raises(InputError, match=r"PackedLayers\(layers, rows, columns\)"):
        shape(torch.zeros(1, 25, 16), image=edited, layers=2)
