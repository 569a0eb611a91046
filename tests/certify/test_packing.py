"""Dropping elements instead of overwriting them: the same votes, from exactly what was kept."""

from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest
import torch
from certify_toys import KEEP, SignNet
from hypothesis import given
from hypothesis import strategies as st

from crossguard.certify import certify, certify_early
from crossguard.certify.design import Design
from crossguard.certify.sampling import sub_samples
from crossguard.data import MultiModalSamples
from crossguard.models import EmotionNet, Packed, PackingClassifier, WatchNet
from crossguard.models.gallery_choice import GalleryChoice
from crossguard.models.packing import pack
from crossguard.models.patches import encode_patches, from_patches, to_patches
from shared import make_clip


class PackingSignNet(SignNet):
    """`SignNet` that takes the left sensor packed and the right one overwritten."""

    packs = ("left",)

    def classify_kept(self, inputs, kept):
        assert list(kept) == ["right"]
        left = inputs["left"]
        assert left.size == 6
        assert left.real is None or not left.values[~left.real].any()
        self._calls += 1
        score = left.values[..., 0].sum(dim=1) + (inputs["right"][..., 0] * kept["right"]).sum(dim=1)
        return torch.stack([-score, score, torch.full_like(score, -99.0)], dim=1)


@given(st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=4))
def test_packing_gathers_what_is_kept_in_order(rows):
    kept = torch.tensor(rows)
    values = torch.arange(kept.numel() * 2).float().view(len(rows), 5, 2) + 1
    values[~kept] = torch.nan
    before = values.clone()
    packed = pack(values, kept)
    torch.testing.assert_close(values, before, equal_nan=True)
    assert packed.size == 5
    for row, mask in enumerate(rows):
        real = torch.ones(packed.positions.shape[1], dtype=torch.bool) if packed.real is None else packed.real[row]
        assert packed.positions[row, real].tolist() == [i for i, keep in enumerate(mask) if keep]
        assert torch.equal(packed.values[row, real], values[row, kept[row]])
        assert not packed.values[row, ~real].any()


def test_dropping_gives_the_votes_of_overwriting(sensors):
    model = PackingSignNet()
    assert isinstance(model, PackingClassifier)
    assert not isinstance(SignNet(), PackingClassifier)
    for scheme in ("independent", "joint"):
        options = {"keep": KEEP, "draws": 50, "alpha": 0.01, "scheme": scheme, "seed": 0}
        few = sensors.head(4)
        overwritten = certify(model, few, fill=0.0, **options)
        for size in (7, 30, 4096):
            dropped = certify(model, few, batch_size=size, fill="drop", **options)
            assert (dropped.counts.votes == overwritten.counts.votes).all()
        assert dropped.ablation == "left dropped, filled with 0.0"
        assert (certify(model, few, **options).counts.votes == dropped.counts.votes).all()  # the default drops


def test_exactly_k_elements_and_their_positions_reach_the_model(sensors):
    design = Design(KEEP, {"left": 6, "right": 5}, seed=3, packs=("left", "right"))
    values = {m: sensors.modalities[m] for m in KEEP}
    position, draw = torch.arange(12).repeat_interleave(9), torch.arange(9).repeat(12)
    packed, kept = sub_samples(values, np.arange(12), np.arange(12), position, draw, design)
    masked, masks = sub_samples(values, np.arange(12), np.arange(12), position, draw, replace(design, packs=()))
    assert not kept
    for m, k in KEEP.items():
        assert packed[m].values.shape == (108, k, 1)
        assert packed[m].real is None
        assert torch.equal(packed[m].positions, masks[m].nonzero()[:, 1].view(108, k))
        assert torch.equal(packed[m].values, masked[m].gather(1, packed[m].positions[..., None]))


def test_joint_draws_pad_what_differs_in_length():
    design = Design({"left": 1, "right": 2}, {"left": 2, "right": 3}, packs=("left", "right"), scheme="joint")
    values = {"left": np.ones((1, 2, 1), dtype=np.float32), "right": np.ones((1, 3, 1), dtype=np.float32)}
    draws = torch.arange(50)
    packed, _ = sub_samples(values, np.arange(1), np.arange(1), torch.zeros_like(draws), draws, design)
    total = sum(part.values.sum(dim=(1, 2)) for part in packed.values())
    assert (total == 3).all()
    assert {int(count) for count in packed["left"].real.sum(dim=1)} == {0, 1, 2}


def test_early_stopping_drops_too(sensors):
    options = {"keep": KEEP, "radii": {"left": 1}, "draws": 500, "alpha": 0.01, "seed": 0}
    model = PackingSignNet()
    dropped, filled = certify_early(model, sensors, **options), certify_early(model, sensors, fill=0.0, **options)
    assert (dropped.draws == filled.draws).all()
    assert (dropped.certified == filled.certified).all()


def test_a_model_that_takes_nothing_packed_is_named(unchecked, sign_net, sensors):
    options = {"keep": KEEP, "draws": 200, "alpha": 0.01}
    with pytest.raises(ValueError, match="'sign-net' does not"):
        certify(sign_net, sensors, fill="drop", **options)
    with pytest.raises(ValueError, match="finite number, 'mean' or 'drop', but got 'drops'"):
        certify(sign_net, sensors, fill="drops", **options)
    wrong = PackingSignNet()
    wrong.packs = ("lefd",)
    with pytest.raises(ValueError, match="did you mean 'left'"):
        certify(wrong, sensors, **options)
    assert sign_net.calls == wrong.calls == 0


def test_pixels_are_packed_across_their_channels():
    values = {"image": np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)}
    design = Design({"image": 6}, {"image": 20}, packs=("image",))
    rows = torch.arange(8)
    packed, _ = sub_samples(values, np.arange(2), np.arange(2), rows // 4, rows % 4, design)
    for row in range(8):
        pixels = values["image"][row // 4].reshape(3, 20)[:, packed["image"].positions[row].numpy()]
        assert (packed["image"].values[row].numpy() == pixels.T).all()


@pytest.fixture
def watch():
    rng = np.random.default_rng(0)
    samples = MultiModalSamples(
        "toy",
        "test",
        {m: rng.normal(size=(4, 32, 3)).astype(np.float32) for m in ("accelerometer", "gyroscope")},
        np.array([0, 1, 0, 1]),
        ("walk", "run"),
        np.arange(4),
    )
    return WatchNet.for_samples(samples, width=16).eval(), samples


@torch.no_grad()
def test_the_watch_classifier_drops_as_it_overwrites(watch):
    model, samples = watch
    assert isinstance(model, PackingClassifier)
    inputs = {m: torch.from_numpy(values) for m, values in samples.modalities.items()}
    every = {m: pack(values, torch.ones(4, 32, dtype=torch.bool)) for m, values in inputs.items()}
    assert torch.equal(model.classify_kept(every, {}), model(inputs))  # dropping nothing
    options = {"keep": dict.fromkeys(inputs, 5), "draws": 30, "alpha": 0.01, "seed": 0}
    dropped = certify(model, samples, **options)
    assert dropped.ablation == "accelerometer, gyroscope dropped"
    assert (dropped.counts.votes == certify(model, samples, fill=0.0, **options).counts.votes).all()
    for size in (11, 50):
        assert (certify(model, samples, batch_size=size, **options).counts.votes == dropped.counts.votes).all()


@torch.no_grad()
@pytest.mark.parametrize("numbers", [1, 4, 192])  # single features, vectors, frames of 8 x 8 pixels
def test_the_emotion_classifier_drops_as_it_overwrites(numbers):
    rng = np.random.default_rng(0)
    arrays = {"video": rng.normal(size=(3, 6, numbers)), "sound": rng.normal(size=(3, 9, 2))}
    samples = MultiModalSamples(
        "toy",
        "test",
        {m: values.astype(np.float32) for m, values in arrays.items()},
        np.array([0, 1, 0]),
        ("calm", "angry"),
        np.arange(3),
    )
    model = EmotionNet.for_samples(samples, width=8).eval()
    assert isinstance(model, PackingClassifier)
    inputs = {m: torch.from_numpy(values) for m, values in samples.modalities.items()}
    every = {m: pack(values, torch.ones(values.shape[:2], dtype=torch.bool)) for m, values in inputs.items()}
    assert torch.equal(model.classify_kept(every, {}), model(inputs))
    for scheme in ("independent", "joint"):
        options = {
            "keep": {"video": 2, "sound": 3},
            "draws": 20,
            "alpha": 0.01,
            "scheme": scheme,
            "batch_size": 16,
            "seed": 0,
        }
        dropped = certify(model, samples, **options)
        assert dropped.ablation == "video, sound dropped"
        assert (dropped.counts.votes == certify(model, samples, fill=0.0, **options).counts.votes).all()


@torch.no_grad()
def test_patches_of_a_vision_language_model():
    model = make_clip()
    pixels = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    patches = to_patches(pixels, model.patch_grid)
    assert patches.shape == (3, 4, 3, 8, 8)
    assert torch.equal(patches[1, 2], pixels[1, :, 8:, :8])  # row by row
    assert torch.equal(from_patches(patches, model.patch_grid), pixels)
    every = pack(patches, torch.ones(3, 4, dtype=torch.bool))
    torch.testing.assert_close(encode_patches(model, every), model.encode_image(pixels), atol=1e-6, rtol=1e-6)
    kept = torch.tensor([[1, 0, 0, 1], [0, 1, 0, 0], [1, 1, 1, 1]], dtype=torch.bool)
    assert torch.equal(encode_patches(model, pack(patches, kept)), model.encode_image(pixels, kept))
    with pytest.raises(ValueError, match="2 x 2 patches, but got some of 9"):
        encode_patches(model, Packed(patches[:, :1], torch.zeros(3, 1, dtype=torch.int64), 9))
    with pytest.raises(ValueError, match="3 x 3 patches divide"):
        to_patches(pixels, (3, 3))


class Bag(SignNet):
    """Adds up the kept values of the left sensor, wherever they stood; the right one it reads in place."""

    packs, position_free = ("left",), ("left",)

    def classify_kept(self, inputs, kept):
        left = inputs["left"]
        assert left.size == KEEP["left"]  # neither n nor places are told
        assert (left.positions == torch.arange(left.positions.shape[1])).all()
        score = left.values[..., 0].sum(dim=1) + (inputs["right"][..., 0] * kept["right"]).sum(dim=1)
        return torch.stack([-score, score, torch.full_like(score, -99.0)], dim=1)


def bag_probability(left, right):
    """Exact probability of "yes" of a bag of any length."""
    sums = [
        [sum(side[i] for i in chosen) for chosen in combinations(range(len(side)), k)]
        for side, k in ((left, KEEP["left"]), (right, KEEP["right"]))
    ]
    return np.mean([a + b > 0 for a, b in product(*sums)])


def edited(bag, r, kind):
    """All bags of worst values that r edits make of one."""
    for value in (-9.0, 9.0):
        for inserted in range(r + 1 if kind == "edit" else (r if kind == "insertion" else 0) + 1):
            for gone in combinations(range(len(bag)), 0 if kind == "insertion" else r - inserted):
                rest = [v for i, v in enumerate(bag) if i not in gone]
                yield rest + [value] * inserted  # deleted
                if kind == "edit":
                    yield rest + [value] * r  # substituted


@pytest.mark.parametrize("kind", ["insertion", "deletion", "edit"])
def test_position_free_certificates_withstand_every_insertion_and_deletion(sensors, kind):
    found = certify(Bag(), sensors, keep=KEEP, draws=3000, alpha=0.01, kind={"left": kind}, seed=0)
    assert found.kinds == {"left": kind, "right": "substitution"}
    assert "positions of left withheld" in found.ablation
    tried = 0
    for i in range(len(sensors)):
        left, right = (sensors.modalities[m][i, :, 0].tolist() for m in ("left", "right"))
        largest = max((r for r, s in found.frontier(i).tolist()), default=0)
        for r in range(min(largest, 3) + 1):
            for bag in edited(left, r, kind):
                if len(bag) >= KEEP["left"]:
                    assert (bag_probability(bag, right) > 0.5) == (found.labels[i] == 1)
                    tried += r > 0
    assert tried > 20


def test_other_kinds_are_refused_where_positions_may_be_seen(unchecked, sign_net, sensors):
    options = {"keep": KEEP, "draws": 100, "alpha": 0.01}
    for model, changes in (
        (sign_net, {"kind": "edit"}),
        (PackingSignNet(), {"kind": {"left": "deletion"}}),  # packed, and told where elements stood
        (Bag(), {"kind": {"right": "insertion"}}),
        (Bag(), {"kind": {"left": "edit"}, "fill": 0.0}),  # in place
    ):
        with pytest.raises(ValueError, match=r"Expected kind 'substitution' of '(left|right)'"):
            certify(model, sensors, **options, **changes)
    wrong = PackingSignNet()
    wrong.position_free = ("right",)
    with pytest.raises(ValueError, match="modality in `packs`"):
        certify(wrong, sensors, **options)


@torch.no_grad()
def test_shipped_models_that_qualify_do_not_see_order(watch):
    _, samples = watch
    frames = {"video": np.random.default_rng(1).normal(size=(4, 6, 1, 8, 9)).astype(np.float32)}
    clips = replace(samples, modalities={**samples.modalities, **frames})
    nets = (
        WatchNet.for_samples(samples, width=8, position_free=("gyroscope",)).eval(),
        EmotionNet.for_samples(clips, width=8, position_free=("gyroscope", "video")).eval(),
    )
    for net, data in zip(nets, (samples, clips), strict=True):
        inputs = {m: torch.from_numpy(values) for m, values in data.modalities.items()}
        turned = {m: v.flip(1) if m in net.position_free else v for m, v in inputs.items()}
        torch.testing.assert_close(net(turned), net(inputs), rtol=1e-4, atol=1e-5)
        every = {m: v.flip(1) for m, v in inputs.items()}
        assert not torch.allclose(net(every), net(inputs), rtol=1e-4, atol=1e-5)
        found = certify(
            net,
            data,
            keep=dict.fromkeys(inputs, 3),
            draws=50,
            alpha=0.01,
            kind=dict.fromkeys(net.position_free, "edit"),
        )
        assert found.kinds["gyroscope"] == "edit"
    choice = GalleryChoice(make_clip(), torch.eye(2, 16), ("a", "b"), vocabulary=("red", "blue", "big"))
    assert choice.position_free == ("text",)


def test_nets_take_any_names_and_half_precision():
    rng = np.random.default_rng(0)
    names = ("a.b", "keys", "type", "as:x", "plain")
    values = {m: (300 + 100 * rng.normal(size=(4, 64, 2))).astype(np.float16) for m in names}
    samples = MultiModalSamples("toy", "test", values, np.array([0, 1, 0, 1]), ("no", "yes"), np.arange(4))
    for make in (WatchNet, EmotionNet):
        net = make.for_samples(samples, width=8)
        parts = net.streams if make is WatchNet else net.branches
        for m in names:
            expected = values[m].astype(np.float64)
            assert parts[m].scale.isfinite().all()
            assert np.allclose(parts[m].scale.flatten()[:2], expected.std(axis=(0, 1)), rtol=1e-5)
            assert np.allclose(parts[m].mean.flatten()[:2], expected.mean(axis=(0, 1)), rtol=1e-5)
        assert certify(net, samples, keep=dict.fromkeys(names, 2), draws=30, alpha=0.01).counts.draws == 30
