"""Training segmenters on ablated images: they learn, equal seeds agree, augmentation keeps modalities in step."""

import numpy as np
import pytest
import torch

from crossguard.data import MultiModalSamples
from crossguard.models.road_net import RoadNet
from crossguard.training.ablated_loop import random_masks
from crossguard.training.ablated_segmenter import flip_and_tint, train_ablated_segmenter

SIZE = (16, 24)
KEEP = {"rgb": 40, "depth": 40}


def toy(count=24, seed=0):
    """The road is the red half; depth tells nothing."""
    generator = np.random.default_rng(seed)
    labels = np.zeros((count, *SIZE), dtype=np.int64)
    for row, edge in enumerate(generator.integers(4, 20, count)):
        labels[row, :, edge:] = 1
    rgb = generator.random((count, 3, *SIZE), dtype=np.float32) * 0.3
    rgb[:, 0] += 0.6 * labels
    labels[:, 0] = -1
    depth = generator.uniform(1, 9, (count, 1, *SIZE)).astype(np.float32)
    return MultiModalSamples("toy", "train", {"rgb": rgb, "depth": depth}, labels, ("a", "b"), np.arange(count))


def trained(samples, **options):
    settings = {"keep": KEEP, "steps": 40, "batch_size": 8, "lr": 5e-3, "seed": 1}
    return train_ablated_segmenter(RoadNet.for_samples(samples, seed=0), samples, **{**settings, **options})


def test_it_learns_to_label_sub_samples_of_new_images():
    model, test = trained(toy(), augment=flip_and_tint), toy(seed=9)
    assert not model.training
    generator = torch.Generator().manual_seed(0)
    kept = {m: random_masks(24, 16 * 24, k, generator=generator).unflatten(1, SIZE) for m, k in KEEP.items()}
    with torch.no_grad():
        answer = model({m: torch.from_numpy(v) for m, v in test.modalities.items()}, kept).argmax(dim=1).numpy()
    assert (answer == test.labels)[test.labels >= 0].mean() > 0.85


def test_equal_seeds_give_equal_weights_and_leave_the_global_generator_alone():
    samples = toy()
    torch.manual_seed(7)
    before = torch.get_rng_state()
    one, two, other = trained(samples, steps=3), trained(samples, steps=3), trained(samples, steps=3, seed=2)
    assert torch.equal(torch.get_rng_state(), before)
    weights = [torch.cat([p.flatten() for p in model.parameters()]) for model in (one, two, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": {"rgb": 40}}, r"keep\['depth'\]"),
        ({"keep": {"rgb": 40, "depth": 16 * 24 + 1}}, r"\[0, 384\]"),
        ({"keep": {**KEEP, "dept": 1}}, "did you mean 'depth'"),
        ({"whole": 1.5}, r"`whole` in \[0, 1\]"),
        ({"class_weights": [1.0]}, "2 class weights"),
    ],
)
def test_wrong_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        trained(toy(2), **options)


def test_images_without_judged_pixels_teach_nothing_and_break_nothing():
    samples = toy(6)
    samples.labels[::2] = -1
    left = samples.select([1, 3, 5])
    settings = {"keep": KEEP, "steps": 3, "batch_size": 2, "lr": 5e-3, "seed": 1}
    both = [train_ablated_segmenter(RoadNet.for_samples(left, seed=0), found, **settings) for found in (samples, left)]
    weights = [torch.cat([p.flatten() for p in model.parameters()]) for model in both]
    assert torch.equal(*weights)


def test_labels_must_be_masks():
    samples = toy(2)
    unjudged = MultiModalSamples("t", "s", samples.modalities, samples.labels * 0 - 1, ("a", "b"), samples.groups)
    with pytest.raises(ValueError, match="Expected masks"):
        trained(unjudged)


def test_mirroring_turns_modalities_masks_and_normals_together():
    labels = torch.arange(6).reshape(1, 1, 6).repeat(64, 1, 1)
    images = {"rgb": labels[:, None].repeat(1, 3, 1, 1) / 10, "normals": labels[:, None].repeat(1, 3, 1, 1).float()}
    before = {m: values.clone() for m, values in images.items()}
    changed, turned = flip_and_tint(images, labels, torch.Generator().manual_seed(0), tint=0.0)
    mirrored = turned[:, 0, 0] == 5
    assert 10 < int(mirrored.sum()) < 54
    torch.testing.assert_close(changed["rgb"][:, 0] * 10, turned.float())
    torch.testing.assert_close(changed["normals"][:, 1], turned.float())
    sign = torch.where(mirrored, -1.0, 1.0)[:, None, None]
    torch.testing.assert_close(changed["normals"][:, 0], sign * turned)
    assert all(torch.equal(images[m], before[m]) for m in images)


def test_tint_changes_colours_alone():
    images = {"rgb": torch.full((8, 3, 2, 2), 0.5), "depth": torch.full((8, 1, 2, 2), 0.5)}
    changed, _ = flip_and_tint(images, torch.zeros(8, 2, 2, dtype=torch.int64), torch.Generator().manual_seed(0))
    assert (changed["depth"] == 0.5).all()
    assert changed["rgb"][:, :, 0, 0].std() > 0.01
    assert changed["rgb"].max() <= 1


def test_colours_of_any_range_are_changed_within_it():
    """Values up to 255 are not cut at 1, and those in [0, 1] stay there."""
    labels, rgb = torch.zeros(8, 2, 2, dtype=torch.int64), torch.rand(8, 3, 2, 2)
    small, _ = flip_and_tint({"rgb": rgb}, labels, torch.Generator().manual_seed(0))
    large, _ = flip_and_tint({"rgb": 255 * rgb}, labels, torch.Generator().manual_seed(0))
    assert 0 <= small["rgb"].min() <= small["rgb"].max() <= 1
    assert large["rgb"].max() <= 255
    inside = (small["rgb"] < 0.9) & (large["rgb"] < 200)
    assert torch.allclose(255 * small["rgb"][inside], large["rgb"][inside], rtol=1e-4)
