"""Pixels: Transformers' processors give the same for photos of any shape and mode, by their rule."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import BlipImageProcessorPil, CLIPImageProcessorPil

from crossguard.data.pictures import ORIENTATION
from crossguard.models import PixelRule, to_pixels

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)


def photo(width, height, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def normalised(pixels):
    return (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


RULES = {
    "crop": (PixelRule((16, 16), MEAN, STD), {"size": {"shortest_edge": 16}, "crop_size": 16}),
    "crop inside": (PixelRule((16, 16), MEAN, STD, edge=20), {"size": {"shortest_edge": 20}, "crop_size": 16}),
    "bilinear": (
        PixelRule((16, 16), MEAN, STD, resample=2),
        {"size": {"shortest_edge": 16}, "crop_size": 16, "resample": 2},
    ),
    "squeeze": (PixelRule((16, 24), MEAN, STD, crop=False), {"size": {"height": 16, "width": 24}}),
}


@pytest.mark.parametrize("name", RULES)
@given(st.integers(1, 90), st.integers(1, 90))
@settings(max_examples=25, deadline=None)
def test_pixels_equal_those_of_transformers(name, width, height):
    rule, options = RULES[name]
    processor = CLIPImageProcessorPil if rule.crop else BlipImageProcessorPil
    image = photo(width, height)
    theirs = processor(image_mean=MEAN, image_std=STD, **options)(image, return_tensors="pt")["pixel_values"][0]
    ours = to_pixels([image], rule)[0]
    torch.testing.assert_close(normalised(ours), theirs, atol=2e-6, rtol=1e-5)
    assert torch.equal((ours * 255).round() / 255, ours)


@pytest.mark.parametrize("name", RULES)
def test_rules_come_back_from_their_files(name, tmp_path):
    rule, _ = RULES[name]
    rule.save(tmp_path)
    assert PixelRule.from_pretrained(tmp_path, default_size=1, offline=True) == rule


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA", "CMYK"])
def test_modes(mode):
    image = photo(20, 30).convert("L" if mode in ("L", "1", "LA") else "RGB").convert(mode)
    pixels = to_pixels([image], RULES["crop"][0])
    assert torch.equal(pixels, to_pixels([image.convert("RGB")], RULES["crop"][0]))
    if mode in ("L", "LA"):
        assert torch.equal(pixels[:, 0], pixels[:, 2])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_upright(orientation):
    undo = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transpose that a camera in this position did
    upright = photo(24, 40)
    stored = upright if undo[orientation] is None else upright.transpose(Image.Transpose(undo[orientation]))
    file, exif = io.BytesIO(), Image.Exif()
    exif[ORIENTATION] = orientation
    stored.save(file, "PNG", exif=exif)
    rule = RULES["crop inside"][0]
    assert torch.equal(to_pixels([Image.open(file)], rule), to_pixels([upright], rule))


@pytest.mark.parametrize("options", [{"edge": 15}, {"edge": 20, "crop": False}, {"resample": 9}])
def test_rules_that_cannot_be(options):
    with pytest.raises(ValueError, match="Expected"):
        PixelRule((16, 16), MEAN, STD, **options)
