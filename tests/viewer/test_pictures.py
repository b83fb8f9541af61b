"""Numbers become pictures as captions and colour scales say."""

from __future__ import annotations

import re

import matplotlib
import numpy as np
import pytest

from asced_analysis.viewer import page, pictures


def test_eight_bits_span_the_scale_and_what_is_beyond_is_clipped() -> None:
    values = np.array([[-2.0, -1.0, 0.0, 1.0, 3.0, np.nan]])
    assert pictures.eight_bit(values, -1, 1).tolist() == [[0, 0, 128, 255, 255, 0]]


def test_false_colours_follow_the_latent_and_do_not_depend_on_its_sign_by_chance() -> None:
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(4, 20, 30)) * np.array([5.0, 2.0, 1.0, 0.1])[:, None, None]
    projection = pictures.false_colours(latent)
    colours = projection.colours(latent)
    spread = colours.reshape(3, -1).std(axis=1)
    assert spread[0] > spread[1] > spread[2]
    assert spread[0] == pytest.approx(5, rel=0.1)
    again = pictures.false_colours(latent[:, ::-1])  # the same pixels, other places
    np.testing.assert_allclose(projection.components, again.components, atol=1e-4)


def test_two_channels_still_make_a_picture() -> None:
    latent = np.random.default_rng(0).normal(size=(2, 5, 5))
    assert pictures.false_colours(latent).colours(latent).shape == (3, 5, 5)


def test_thumbnails_average_and_keep_their_shape() -> None:
    image = np.zeros((64, 32, 3), np.uint8)
    image[::2] = 200
    small = pictures.thumbnail(image, 16)
    assert small.shape == (16, 8, 3)
    assert (small == 100).all()
    assert pictures.thumbnail(image[:, :, :1], 100).shape == (64, 32, 1)


def test_the_page_has_the_colours_of_cividis() -> None:
    block = re.search(r"CIVIDIS = \[(.*?)\];", page.script(), re.DOTALL)
    assert block is not None
    anchors = np.array(re.findall(r"\[(\d+), (\d+), (\d+)\]", block[1]), float)
    theirs = matplotlib.colormaps["cividis"](np.linspace(0, 1, len(anchors)))[:, :3] * 255
    assert np.abs(anchors - theirs).max() < 1
