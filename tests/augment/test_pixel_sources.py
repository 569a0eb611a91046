"""Sources of pixels: agreement with Pillow, budgets of geometry, independence of batches."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from crossguard.augment import Crops, Distorted, RandAugment, Request
from crossguard.augment.pixel_edits import PIXEL_EDITS
from crossguard.augment.pixels import fit_square, from_images, to_images

SOURCES = [RandAugment(operations=3, magnitude=15), Crops(), Distorted()]


@pytest.fixture(scope="module")
def images():
    generator = np.random.default_rng(0)
    noise = [generator.integers(40, 216, (20, 26, 3), dtype=np.uint8) for _ in range(3)]
    ramp = np.broadcast_to(np.linspace(0, 255, 26).astype(np.uint8)[None, :, None], (20, 26, 3)).copy()
    ramp[:6, :, 0] = 17
    return [Image.fromarray(array) for array in (*noise, ramp)]


def edited(name, images, strength, sign):
    ones = torch.ones(len(images))
    return to_images(PIXEL_EDITS[name](from_images(images), strength * ones, sign * ones))


def difference(a, b):
    return max(np.abs(np.asarray(x, dtype=int) - np.asarray(y, dtype=int)).max() for x, y in zip(a, b, strict=True))


class TestAgainstPillow:
    @pytest.mark.parametrize("sign", [-1, 1])
    @pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
    @pytest.mark.parametrize(
        ("name", "enhancer"),
        [
            ("colour", ImageEnhance.Color),
            ("contrast", ImageEnhance.Contrast),
            ("brightness", ImageEnhance.Brightness),
            ("sharpness", ImageEnhance.Sharpness),
        ],
    )
    def test_blends(self, images, name, enhancer, strength, sign):
        reference = [enhancer(image).enhance(1 + 0.9 * sign * strength) for image in images]
        assert difference(edited(name, images, strength, sign), reference) <= 2  # Pillow rounds the grey picture first

    @pytest.mark.parametrize(
        ("name", "strength", "reference"),
        [
            ("autocontrast", 0.3, ImageOps.autocontrast),
            ("equalise", 0.3, ImageOps.equalize),
            ("solarise", 0.3, lambda image: ImageOps.solarize(image, 179)),
            ("solarise", 1.0, ImageOps.invert),
            ("posterise", 0.5, lambda image: ImageOps.posterize(image, 6)),
            ("posterise", 1.0, lambda image: ImageOps.posterize(image, 4)),
            ("identity", 1.0, lambda image: image),
        ],
    )
    def test_tables(self, images, name, strength, reference):
        assert difference(edited(name, images, strength, 1), [reference(image) for image in images]) <= 1

    @pytest.mark.parametrize(
        ("name", "matrix"),
        [  # from places in the result to places in the picture, about the centre
            ("rotate", lambda s, w, h: (np.cos(s / 6 * np.pi), np.sin(s / 6 * np.pi), 0, 0)),
            ("shear-x", lambda s, w, h: (1, -0.3 * s, 0, 0)),
            ("shear-y", lambda s, w, h: (1, 0, -0.3 * s, 0)),
            ("shift-x", lambda s, w, h: (1, 0, 0, -s * 150 / 331 * w)),
            ("shift-y", lambda s, w, h: (1, 0, 0, -s * 150 / 331 * h)),
        ],
    )
    @pytest.mark.parametrize("strength", [-0.7, 0.4])
    def test_geometry(self, name, matrix, strength):
        y, x = np.mgrid[0:21, 0:31].astype(float)
        smooth = np.stack([np.sin(x / 4) + np.cos(y / 5), x / 15 - 1, y / 10 - 1], axis=-1)
        image = Image.fromarray(((smooth + 2) / 4 * 255).round().astype(np.uint8))
        a, b, c, shift = matrix(strength, 31, 21)
        d = a
        if name == "rotate":
            c = -b
        dx, dy = (shift, 0) if name == "shift-x" else (0, shift) if name == "shift-y" else (0, 0)
        # Pillow's pixels have their centres at .5.
        coefficients = (a, b, 15.5 - a * 15.5 - b * 10.5 + dx, c, d, 10.5 - c * 15.5 - d * 10.5 + dy)
        reference = image.transform(image.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)
        inside = np.asarray(
            Image.new("L", image.size, 255).transform(
                image.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR
            )
        )
        [ours] = edited(name, [image], abs(strength), np.sign(strength))
        gap = np.abs(np.asarray(ours, dtype=int) - np.asarray(reference, dtype=int))[inside == 255]
        assert gap.size > 300
        assert gap.max() <= 2
        assert difference([ours], [image]) > 10


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
class TestEverySource:
    def test_batches_do_not_matter_and_the_input_stays(self, source, images):
        pixels = from_images(images)
        before, ids = pixels.clone(), torch.tensor([5, 9, 2**62, 0])
        together = source.transform(pixels, ids, seed=1)
        assert torch.equal(pixels, before)
        for row in range(4):
            alone = source.transform(pixels[row : row + 1], ids[row : row + 1], seed=1)
            torch.testing.assert_close(alone, together[row : row + 1], atol=1e-6, rtol=0)

    @settings(deadline=None, max_examples=15)
    @given(seed=st.integers(0, 2**31))
    def test_pixels_stay_in_range(self, source, images, seed):
        result = source.transform(from_images(images), torch.arange(4), seed=seed)
        assert result.min() >= 0
        assert result.max() <= 1

    def test_seeds_decide(self, source, images):
        pixels = from_images(images)
        a, b, c = (source.transform(pixels, torch.arange(4), seed=seed) for seed in (0, 0, 1))
        assert torch.equal(a, b)
        assert not torch.equal(a, c)

    @pytest.mark.parametrize("batch_size", [1, 5, 64])
    def test_pictures_of_many_sizes(self, source, toy_pairs, monkeypatch, batch_size):
        sizes = [(24, 24), (30, 18), (24, 24), (18, 30)]
        monkeypatch.setattr(
            type(toy_pairs), "image", lambda self, i: Image.new("RGB", sizes[i % 4], (i * 9 % 255, 80, 200))
        )
        made = source.make_images(toy_pairs, range(6), Request(2, 0, batch_size, torch.device("cpu"), toy_pairs))
        assert [[one.content.size for one in samples] for samples in made] == [[sizes[i % 4]] * 2 for i in range(6)]
        assert [one.images for samples in made for one in samples] == [(i,) for i in range(6) for _ in range(2)]


class TestCrops:
    @settings(deadline=None)
    @given(smallest=st.floats(0.05, 1.0), stretch=st.floats(1.0, 3.0), seed=st.integers(0, 2**31))
    def test_boxes_lie_in_the_picture_and_have_the_area_asked_for(self, smallest, stretch, seed):
        left, top, width, height = Crops(smallest=smallest, stretch=stretch).boxes(torch.arange(50), seed=seed).T
        assert min(left.min(), top.min()) >= 0
        assert max((left + width).max(), (top + height).max()) <= 1 + 1e-6
        area, ratio = width * height, width / height
        assert area.min() >= smallest - 1e-5
        assert ratio.max() <= stretch * (1 + 1e-5)
        assert ratio.min() >= 1 / stretch / (1 + 1e-5)

    def test_the_whole_picture_comes_back_as_it_is(self, images):
        pixels = from_images(images)
        same = Crops(smallest=1.0).transform(pixels, torch.arange(4), seed=0)
        torch.testing.assert_close(same, pixels, atol=1e-4, rtol=0)

    def test_a_ramp_stays_a_ramp_of_the_box(self):
        ramp = torch.linspace(0, 1, 33).view(1, 1, 1, -1).expand(1, 3, 9, -1)
        source = Crops(smallest=0.3)
        left, _, width, _ = source.boxes(torch.tensor([4]), seed=2)[0]
        result = source.transform(ramp, torch.tensor([4]), seed=2)
        expected = torch.linspace(float(left), float(left + width), 33).view(1, 1, 1, -1).expand(1, 3, 9, -1)
        torch.testing.assert_close(result, expected, atol=1e-4, rtol=0)


def test_distorted_without_noise_is_the_mean_of_each_cell():
    pixels = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    result = Distorted(cells=3, noise=0.0).transform(pixels, torch.arange(2), seed=0)
    for y, x in np.ndindex(3, 3):
        cell = (..., slice(4 * y, 4 * y + 4), slice(4 * x, 4 * x + 4))
        mean = pixels[cell].mean(dim=(2, 3), keepdim=True).expand(-1, -1, 4, 4)
        torch.testing.assert_close(result[cell], mean)


def test_fit_square():
    image = Image.new("RGB", (40, 20), "red")
    assert fit_square(image, None) is image
    assert fit_square(image, 10).size == (10, 10)
    assert fit_square(Image.new("RGB", (7, 31)), 16).size == (16, 16)


@pytest.mark.parametrize(
    ("build", "options", "message"),
    [
        (RandAugment, {"operations": 0}, "`operations` >= 1"),
        (RandAugment, {"magnitude": 31.0}, r"`magnitude` in 0\.\.30"),
        (Crops, {"smallest": 0.0}, "`smallest`"),
        (Crops, {"stretch": 0.5}, "`stretch` >= 1"),
        (Distorted, {"cells": 0}, "`cells` >= 1"),
        (Distorted, {"noise": -1.0}, "`noise` >= 0"),
        (Crops, {"size": 0}, "`size` >= 1"),
    ],
)
def test_bad_options(build, options, message, unchecked):
    with pytest.raises(ValueError, match=message):
        build(**options)
