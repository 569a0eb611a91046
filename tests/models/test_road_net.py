"""The road network: blind to ablated pixels, whole images unchanged by filling, any size, saved and read back."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crossguard.data import MultiModalSamples
from crossguard.models import load_model
from crossguard.models.base import MultiModalSegmenter
from crossguard.models.hole_filling import fill_holes
from crossguard.models.road_net import RoadNet
from crossguard.models.road_parts import ENCODERS, Encoder

CLASSES = ("not road", "road")


def toy_samples(count=3, size=(32, 48)):
    generator = np.random.default_rng(0)
    depth = generator.uniform(2, 50, (count, 1, *size)).astype(np.float32)
    depth[:, :, :4] = 0
    return MultiModalSamples(
        name="toy",
        split="train",
        modalities={"rgb": generator.random((count, 3, *size), dtype=np.float32), "depth": depth},
        labels=generator.integers(0, 2, (count, *size)),
        classes=CLASSES,
        groups=np.arange(count),
    )


@pytest.fixture(scope="module")
def model():
    return RoadNet.for_samples(toy_samples(), seed=0).eval()


def batch(size=(32, 48), seed=0, share=0.1):
    generator = torch.Generator().manual_seed(seed)
    inputs = {
        "rgb": torch.rand(2, 3, *size, generator=generator),
        "depth": 50 * torch.rand(2, 1, *size, generator=generator),
    }
    return inputs, {m: torch.rand(2, *size, generator=generator) < share for m in inputs}


def slow_fill(values, measured):
    """The finest cell of 2^level pixels around each hole that has a measured pixel, or None."""
    _, height, width = values.shape
    level = torch.zeros(height, width)
    for row in range(height):
        for column in range(width):
            while True:
                side = 2 ** int(level[row, column])
                top, left = row // side * side, column // side * side
                if measured[top : top + side, left : left + side].any():
                    break
                level[row, column] += 1
    return level


def test_holes_take_the_mean_of_the_finest_cell_with_pixels():
    values = torch.zeros(1, 2, 8, 8)
    measured = torch.zeros(1, 8, 8, dtype=torch.bool)
    for row, column, value in ((0, 0, 1.0), (1, 1, 3.0), (6, 5, 7.0)):
        values[0, :, row, column], measured[0, row, column] = value, True
    filled = fill_holes(values, measured)
    assert torch.equal(filled[0, 0][measured[0]], values[0, 0][measured[0]])
    assert torch.equal(filled[0, 2] == 0, measured[0])
    # Each hole's level is between its own cell's and those of the cells it is interpolated from.
    slow = slow_fill(values[0], measured[0])
    assert (10 * filled[0, 2][~measured[0]] >= 0.999).all()
    assert (10 * filled[0, 2]).max() <= slow.max() + 1e-5
    assert filled[0, 0].min() >= 1
    assert filled[0, 0].max() <= 7


@given(height=st.integers(1, 40), width=st.integers(1, 40), share=st.floats(0, 1), seed=st.integers(0, 999))
def test_filling_stays_within_the_measured_values_and_reads_nothing_else(height, width, share, seed):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(2, 3, height, width, generator=generator)
    measured = torch.rand(2, height, width, generator=generator) < share
    filled = fill_holes(values, measured)
    assert torch.equal(filled, fill_holes(torch.where(measured[:, None], values, torch.nan), measured))
    for image, mask, out in zip(values, measured, filled[:, :3], strict=True):
        if not mask.any():
            assert (out == 0).all()
            continue
        for channel in range(3):
            known = image[channel][mask]
            assert torch.equal(out[channel][mask], known)
            assert out[channel].min() >= known.min() - 1e-5
            assert out[channel].max() <= known.max() + 1e-5


def test_a_constant_image_is_filled_to_the_constant():
    measured = torch.zeros(1, 37, 53, dtype=torch.bool)
    measured[0, 3, 50] = True
    filled = fill_holes(torch.full((1, 1, 37, 53), 2.5), measured)
    torch.testing.assert_close(filled[:, :1], torch.full((1, 1, 37, 53), 2.5))


def test_it_meets_the_protocol_and_gives_logits_per_pixel(model):
    assert isinstance(model, MultiModalSegmenter)
    for size in ((32, 48), (33, 50), (38, 125)):
        inputs, kept = batch(size)
        logits = model(inputs, kept)
        assert logits.shape == (2, 2, *size)
        assert torch.isfinite(logits).all()


@given(seed=st.integers(0, 50), share=st.sampled_from([0.0, 0.002, 0.1, 0.9]))
def test_ablated_pixels_do_not_change_the_answer(model, seed, share):
    inputs, kept = batch(seed=seed, share=share)
    other = {
        m: torch.where(kept[m][:, None], values, torch.full_like(values, torch.nan)) for m, values in inputs.items()
    }
    with torch.no_grad():
        assert torch.equal(model(inputs, kept), model(other, kept))


def test_kept_pixels_do_change_it_and_no_mask_means_all(model):
    inputs, kept = batch()
    with torch.no_grad():
        plain = model(inputs)
        whole = {m: torch.ones_like(mask) for m, mask in kept.items()}
        assert torch.equal(plain, model(inputs, whole))
        assert not torch.equal(plain, model(inputs, kept))
        for modality in inputs:
            changed = {**inputs, modality: inputs[modality].flip(3)}
            assert not torch.equal(model(changed), plain)


def test_a_depth_of_zero_is_read_as_not_kept(model):
    inputs, _ = batch()
    mask = torch.rand(2, 32, 48, generator=torch.Generator().manual_seed(5)) < 0.5
    holes = {**inputs, "depth": torch.where(mask[:, None], inputs["depth"], 0.0)}
    whole = torch.ones(2, 32, 48, dtype=torch.bool)
    with torch.no_grad():
        torch.testing.assert_close(model(holes), model(inputs, {"rgb": whole, "depth": mask}))


def test_scales_are_those_of_the_measured_inverse_depth(model):
    depth = toy_samples().modalities["depth"]
    inverse = 1 / depth[depth > 0].astype(np.float64)
    assert float(model.scales["depth"].mean[0]) == pytest.approx(inverse.mean(), rel=1e-5)
    assert float(model.scales["depth"].deviation[0]) == pytest.approx(inverse.std(), rel=1e-4)


def test_saved_and_read_back_bit_equal(model, tmp_path):
    inputs, kept = batch()
    model.save_pretrained(tmp_path / "model")
    again = load_model(tmp_path / "model")
    assert (again.config, again.name) == (model.config, "road-net")
    with torch.no_grad():
        assert torch.equal(again(inputs, kept), model(inputs, kept))


@pytest.mark.parametrize("kind", ["resnet-18", "resnet-50"])
def test_resnet_encoders_have_the_scales_of_the_tiny_one(kind):
    small, large = Encoder("tiny", 4), Encoder(kind, 4)
    values = [torch.rand(1, 4, 61, 94), torch.rand(1, 4, 61, 94)]
    with torch.no_grad():
        for index in range(4):
            values = [part.eval().stage(index, value) for part, value in zip((small, large), values, strict=True)]
            assert values[0].shape[2:] == values[1].shape[2:]
            assert values[1].shape[1] == ENCODERS[kind].hidden_sizes[index]


def test_an_encoder_starts_from_a_local_resnet(tmp_path):
    from transformers import ResNetModel

    torch.manual_seed(0)
    source = ResNetModel(ENCODERS["resnet-18"]).eval()
    source.save_pretrained(tmp_path)
    rgb, one = Encoder("resnet-18", 6).eval(), Encoder("resnet-18", 4).eval()
    rgb.start_from(tmp_path)
    one.start_from(tmp_path)
    pixels = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        wanted = source(pixels, output_hidden_states=True).hidden_states
        found = torch.cat([pixels, torch.rand(1, 3, 64, 64)], dim=1)  # level and place weigh nothing at first
        for index in range(4):
            found = rgb.stage(index, found)
            torch.testing.assert_close(found, wanted[index + 1])
        grey = source.embedder(pixels[:, :1].expand(-1, 3, -1, -1))
        torch.testing.assert_close(one.stem(torch.cat([pixels[:, :1], torch.rand(1, 3, 64, 64)], dim=1)), grey)
    with pytest.raises(ValueError, match="but got 'tiny'"):
        Encoder("tiny", 6).start_from(tmp_path)
    with pytest.raises(ValueError, match="Expected a ResNet with stages"):
        Encoder("resnet-50", 6).start_from(tmp_path)


def test_wrong_inputs_are_refused(model, unchecked):
    inputs, kept = batch()
    with pytest.raises(ValueError, match="Expected an input 'depth'"):
        model({"rgb": inputs["rgb"]})
    with pytest.raises(ValueError, match=r"Expected a mask \[2, 32, 48\]"):
        model(inputs, {**kept, "rgb": kept["rgb"][:, 1:]})
    with pytest.raises(ValueError, match="of one size"):
        model({**inputs, "depth": inputs["depth"][:, :, 1:]})
    with pytest.raises(ValueError, match="two classes"):
        RoadNet({"rgb": 3}, ("road",))
    with pytest.raises(ValueError, match="did you mean 'resnet-18'"):
        RoadNet({"rgb": 3}, CLASSES, encoder="resnet18")
    with pytest.raises(ValueError, match="Unknown reading"):
        RoadNet({"rgb": 3}, CLASSES, reading={"rgb": "upside down"})


def test_what_cannot_be_distances_is_not_inverted_by_its_name_alone():
    rng = np.random.default_rng(0)
    rgb, labels = rng.random((2, 3, 32, 32), np.float32), np.zeros((2, 32, 32), np.int64)

    def made(depth, **options):
        samples = MultiModalSamples("toy", "train", {"rgb": rgb, "depth": depth}, labels, CLASSES, np.arange(2))
        return RoadNet.for_samples(samples, **options)

    distances = rng.random((2, 1, 32, 32), np.float32)
    assert made(distances).reading == {"rgb": "dense", "depth": "inverse"}
    for other, why in ((rng.random((2, 3, 32, 32), np.float32), "3 channels"), (-distances, "negative values")):
        with pytest.warns(UserWarning, match=f"'depth' has {why}"):
            assert made(other).reading["depth"] == "sparse"
        assert made(other, reading={"depth": "dense"}).reading["depth"] == "dense"
    with_holes = made(rng.integers(0, 2, (2, 3, 32, 32)).astype(np.float32), reading={"depth": "inverse"})
    assert all(bool(tensor.isfinite().all()) for tensor in with_holes.state_dict().values())
    with pytest.raises(ValueError, match="Unknown modality of `reading` 'dept': did you mean 'depth'"):
        made(distances, reading={"dept": "dense"})
    with pytest.raises(ValueError, match="Expected values of 'depth', but all are 0"):
        made(np.zeros_like(distances))
