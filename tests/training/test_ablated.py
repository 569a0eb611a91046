"""Training on ablated inputs: it learns, repeats itself, and changes nothing of the caller's."""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from crossguard.data import MultiModalSamples
from crossguard.models import WatchNet
from crossguard.training.ablated import train_ablated, turn_sensors
from crossguard.training.ablated_loop import random_kept, random_masks

KEEP = {"a": 3, "b": 2}


@pytest.fixture
def samples():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    shift = np.eye(3)[labels][:, None, :] * 2
    return MultiModalSamples(
        "toy",
        "train",
        {m: (shift + rng.normal(size=(60, n, 3))).astype(np.float32) for m, n in (("a", 12), ("b", 8))},
        np.where(np.arange(60) < 57, labels, -1),
        ("x", "y", "z"),
        np.zeros(60, dtype=np.int64),
    )


def trained(samples, **options):
    model = WatchNet.for_samples(samples, width=16)
    return train_ablated(model, samples, **({"keep": KEEP, "steps": 60, "batch_size": 32, "lr": 1e-2} | options))


def test_it_learns_to_label_sub_samples(samples):
    model = trained(samples)
    assert not model.training
    inputs = {m: torch.from_numpy(x[:57]) for m, x in samples.modalities.items()}
    generator = torch.Generator().manual_seed(1)
    kept = {m: random_masks(57, inputs[m].shape[1], k, generator=generator) for m, k in KEEP.items()}
    with torch.no_grad():
        right = model(inputs, kept).argmax(dim=1).numpy() == samples.labels[:57]
    assert right.mean() > 0.85


def test_equal_seeds_give_equal_weights_and_the_callers_state_is_left_alone(samples):
    before = {m: x.copy() for m, x in samples.modalities.items()}
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    one, two, other = (trained(samples, steps=5, seed=s, augment=turn_sensors).state_dict() for s in (0, 0, 1))
    assert torch.equal(torch.rand(2), expected)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)
    assert all((samples.modalities[m] == before[m]).all() for m in before)


class _Stopped(Exception):
    pass


class _StopsAfter:
    """A reporter that ends the training after so many steps, as a kill would."""

    def __init__(self, steps):
        self.left = steps

    @contextmanager
    def task(self, title, *, total, done=0):
        yield self

    def advance(self, steps=1, *, note=""):
        self.left -= 1
        if self.left == 0:
            raise _Stopped


def test_a_stopped_training_goes_on_to_the_same_weights(samples, tmp_path):
    """Batches, masks, dropout, moments and learning rate go on from the checkpoint."""
    options = {"steps": 9, "augment": turn_sensors, "folder": tmp_path / "checkpoint", "checkpoint_every": 2}
    whole = trained(samples, steps=9, augment=turn_sensors).state_dict()
    for steps in (3, 4):
        with pytest.raises(_Stopped):
            trained(samples, progress=_StopsAfter(steps), **options)
    again = trained(samples, **options).state_dict()
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    with pytest.raises(ValueError, match="`lr` is 0.01 there and 0.02 now"):
        trained(samples, lr=0.02, **options)
    with pytest.raises(ValueError, match=r"`noise\.b` is missing there and 0.5 now"):
        trained(samples, keep={"a": KEEP["a"]}, noise={"b": 0.5}, **options)


def test_masks_keep_exactly_k_of_n_uniformly():
    masks = random_masks(20_000, 6, 2, generator=torch.Generator().manual_seed(0))
    assert (masks.sum(dim=1) == 2).all()
    assert masks.float().mean(dim=0).numpy() == pytest.approx(np.full(6, 1 / 3), abs=0.02)


def test_joint_masks_keep_k_of_all_modalities_together(samples):
    generator = torch.Generator().manual_seed(0)
    sizes = {"a": 6, "b": 3}
    masks = random_kept(20_000, sizes, {"a": 1, "b": 2}, joint=True, generator=generator)
    assert {m: mask.shape[1] for m, mask in masks.items()} == sizes
    together = torch.cat(list(masks.values()), dim=1)
    assert (together.sum(dim=1) == 3).all()
    assert together.float().mean(dim=0).numpy() == pytest.approx(np.full(9, 1 / 3), abs=0.02)
    seen = []

    class Watching(WatchNet):
        def forward(self, inputs, kept=None):
            seen.append(sum(mask.sum(dim=1) for mask in kept.values()))
            return super().forward(inputs, kept)

    train_ablated(Watching.for_samples(samples, width=8), samples, keep=KEEP, joint=True, steps=2, batch_size=16)
    assert (torch.cat(seen) == 5).all()


def test_images_are_ablated_by_pixel():
    class Bright(torch.nn.Module):
        name, modalities, classes = "bright", ("image",), ("dark", "bright")

        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))

        def forward(self, inputs, kept=None):
            assert kept["image"].shape == (4, 20)
            assert (kept["image"].sum(dim=1) == 6).all()
            total = self.scale * (inputs["image"].mean(dim=1).flatten(1) * kept["image"]).sum(dim=1)
            return torch.stack([-total, total], dim=1)

    images = np.random.default_rng(0).normal(size=(5, 3, 4, 5)).astype(np.float32)
    labels = (images.mean(axis=(1, 2, 3)) > 0).astype(np.int64)
    samples = MultiModalSamples("toy", "train", {"image": images}, labels, ("dark", "bright"), np.arange(5))
    train_ablated(Bright(), samples, keep={"image": 6}, steps=2, batch_size=4)


def test_turning_keeps_lengths_and_is_shared_by_the_sensors():
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(7, 5, 3)
    turned = turn_sensors({"a": a, "b": a.clone()}, generator, degrees=20.0)
    assert torch.equal(turned["a"], turned["b"])
    assert torch.allclose(turned["a"].norm(dim=-1), a.norm(dim=-1), atol=1e-5)
    assert not torch.allclose(turned["a"], a, atol=1e-2)
    angles = torch.nn.functional.cosine_similarity(turned["a"], a, dim=-1).arccos().rad2deg()
    assert angles.max() < 90
    with pytest.raises(ValueError, match="elements, 3"):
        turn_sensors({"a": torch.zeros(2, 5, 4)}, generator)


def test_wrong_arguments_are_refused(unchecked, samples):
    for keep, message in (
        ({"a": 3}, r"keep\['b'\]"),
        ({"a": 3, "b": 9}, r"\[0, 8\], but got 9"),
        ({"a": -1, "b": 2}, "but got -1"),
        ({"a": 0, "b": 0}, "nothing is kept of any"),
        ({"a": 3, "c": 2}, "Unknown modality"),
    ):
        with pytest.raises(ValueError, match=message):
            trained(samples, keep=keep)
    with pytest.raises(ValueError, match="with labels"):
        trained(samples.select([57, 58, 59]))
    with pytest.raises(FloatingPointError, match="lower `lr`"):
        trained(samples, lr=1e30)


def test_a_modality_may_be_left_out_or_get_noise(samples, unchecked):
    seen = []

    class Watching(WatchNet):
        def forward(self, inputs, kept=None):
            seen.append((inputs, kept))
            return super().forward(inputs, kept)

    def watched(**options):
        seen.clear()
        model = Watching.for_samples(samples, width=8)
        train_ablated(model, samples, steps=2, batch_size=16, **options)
        return seen[-1]

    _, kept = watched(keep={"a": 0, "b": 2})
    assert kept["a"].sum() == 0
    inputs, kept = watched(keep={"b": 2}, noise={"a": 5.0})
    assert kept["a"].all()
    assert (kept["b"].sum(dim=1) == 2).all()
    stored = torch.from_numpy(samples.modalities["a"])
    assert inputs["a"].std() == pytest.approx(float((stored.var() + 25) ** 0.5), rel=0.1)
    for noise in ({"b": 1.0}, {"a": 0.0}, {"a": float("inf")}):
        with pytest.raises(ValueError, match="finite sigma > 0"):
            watched(keep={"b": 2}, noise=noise)
    with pytest.raises(ValueError, match="Unknown modality"):
        watched(keep={"b": 2}, noise={"c": 1.0})


def test_what_lies_behind_a_samples_length_is_never_kept(samples):
    seen = []

    class Watching(WatchNet):
        def forward(self, inputs, kept=None):
            seen.append(kept["b"])
            return super().forward(inputs, kept)

    def watched(**options):
        model = Watching.for_samples(samples, width=8)
        return train_ablated(model, samples, keep={"a": 1, "b": 3}, steps=2, batch_size=64, **options)

    lengths = np.arange(60) % 8 + 1
    watched(lengths={"b": lengths})
    kept = torch.cat(seen)
    last = (kept.float() * torch.arange(1, 9)).amax(dim=1)
    counts = kept.sum(dim=1)
    assert set(counts.tolist()) == {1, 2, 3}
    assert (counts == last)[counts < 3].all()  # of fewer than three all are kept
    with pytest.raises(ValueError, match="modalities that are sub-sampled apart"):
        watched(lengths={"b": lengths}, joint=True)
    with pytest.raises(ValueError, match=r"in 1\.\.8, the elements there are, but got 1\.\.9"):
        watched(lengths={"b": lengths + (lengths == 8)})
    with pytest.raises(ValueError, match="did you mean 'lengths'"):
        watched(length={"b": lengths})


def test_values_may_be_stored_in_any_way(samples):
    doubles = {m: values.astype(np.float64)[:, ::-1].copy()[:, ::-1] for m, values in samples.modalities.items()}
    expected, found = trained(samples, steps=3), trained(replace(samples, modalities=doubles), steps=3)
    for one, other in zip(expected.parameters(), found.parameters(), strict=True):
        torch.testing.assert_close(one, other)
