"""Segmentation: certificates hold under every attack on small images, metrics are lower bounds."""

import json
from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from crossguard.certify import certify_segmentation, pixel_bounds, predict
from crossguard.certify.pixel_metrics import pixel_bounds_over
from crossguard.certify.sampling import most_likely
from crossguard.data import MultiModalSamples

HEIGHT, WIDTH, KEEP = 2, 3, {"image": 2, "depth": 1}


class TwoRegions(nn.Module):
    """The left column follows the sign of the image's kept pixels, the rest that of the depth's."""

    name, modalities, classes = "two-regions", ("image", "depth"), ("other", "road")

    def forward(self, inputs, kept=None):
        assert kept["image"].shape[1:] == (HEIGHT, WIDTH)
        image = (inputs["image"][:, :1] * kept["image"][:, None]).sum(dim=(1, 2, 3))
        depth = (inputs["depth"] * kept["depth"][:, None]).sum(dim=(1, 2, 3))
        score = torch.stack([image] + [depth] * (WIDTH - 1), dim=1)[:, None, :].expand(-1, HEIGHT, -1)
        return torch.stack([-score, score], dim=1)


def as_doubles(samples):
    """The same values as float64, mirrored twice, so that strides are negative."""
    return replace(
        samples, modalities={m: v.astype(float)[..., ::-1].copy()[..., ::-1] for m, v in samples.modalities.items()}
    )


@pytest.fixture
def samples():
    rng = np.random.default_rng(0)
    signs = rng.choice([-1.0, 1.0], p=[0.1, 0.9], size=(5, 2, HEIGHT, WIDTH)).astype(np.float32)
    masks = np.ones((5, HEIGHT, WIDTH), dtype=np.int64)
    masks[1, 0], masks[2, :, 1] = -1, 0
    return MultiModalSamples(
        "toy",
        "test",
        {"image": np.repeat(signs[:, :1], 3, axis=1), "depth": signs[:, 1:]},
        masks,
        ("other", "road"),
        np.arange(5),
    )


def run(samples, **options):
    return certify_segmentation(
        TwoRegions(), samples, **({"keep": KEEP, "draws": 800, "alpha": 0.01, "batch_size": 400, "seed": 0} | options)
    )


def exact(values, k):
    flat = values.ravel()
    return np.mean([sum(flat[list(chosen)]) > 0 for chosen in combinations(range(flat.size), k)])


def attacked(values, r):
    for places in combinations(range(values.size), r):
        for new in product((-9.0, 9.0), repeat=r):
            other = values.ravel().copy()
            other[list(places)] = new
            yield other


def test_certified_pixels_withstand_every_attack(samples):
    found = run(samples)
    checked = 0
    for i in range(len(samples)):
        image, depth = samples.modalities["image"][i, 0], samples.modalities["depth"][i, 0]
        for r, s in product(range(3), range(3)):
            certificate = found.image(i, [{"image": r, "depth": s}])
            certified, label = certificate.certified[0], certificate.label
            if certified[:, 0].any():
                assert all((exact(x, 2) > 0.5) == label[0, 0] for x in attacked(image, r))
                checked += r > 0
            if certified[:, 1:].any():
                assert all((exact(x, 1) > 0.5) == label[0, 1] for x in attacked(depth, s))
                checked += s > 0
    assert checked > 3


@pytest.mark.parametrize("labels", [2, 3, 200])
def test_most_likely_is_the_lowest_largest(labels):
    logits = torch.randint(0, 5, (3, labels, 4, 5)).float()
    expected = logits.numpy().argmax(axis=1)
    assert (most_likely(logits).numpy() == expected).all()


def test_counts_do_not_depend_on_batches_and_resume(samples, tmp_path):
    whole = run(samples)
    small = run(samples.head(2), batch_size=37)
    for i in range(2):
        assert (small.counts[i].votes == whole.counts[i].votes).all()
    first = run(samples.head(2), folder=tmp_path, draws=300)
    assert first.counts[0].draws == 300
    more = run(samples, folder=tmp_path)
    for i in range(5):
        assert (more.counts[i].votes == whole.counts[i].votes).all()
        assert more.counts[i].votes.shape == (HEIGHT, WIDTH, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"image-{i:05d}.npz" for i in range(5)]


def test_curves_pay_for_all_radii_and_single_radii_do_not(samples):
    found = run(samples)
    curve = [{"image": r, "depth": r} for r in range(3)]
    assert found.image(0, curve).correction == "bonferroni"
    assert found.image(0, curve[:1]).correction == "holm"
    bounds = found.bounds(curve)
    for metric in ("accuracy", "recall", "precision", "f_score", "iou"):
        values = [getattr(bound, metric) for bound in bounds]
        assert all(0 <= value <= 1 for value in values)
        assert values == sorted(values, reverse=True)
    single = found.bounds(curve[:1])[0]
    assert single.judged == (samples.labels >= 0).sum()
    assert single.accuracy >= bounds[0].accuracy


@settings(deadline=None)
@given(st.integers(0, 2**32))
def test_metrics_are_lower_bounds_over_whatever_uncertified_pixels_become(seed):
    rng = np.random.default_rng(seed)
    truth = rng.integers(-1, 2, size=(3, 4))
    label, certified = rng.integers(0, 2, size=(3, 4)), rng.random((3, 4)) < 0.6
    bounds = pixel_bounds(label, certified, truth)
    judged = truth >= 0
    for _ in range(8):
        answer = np.where(certified, label, rng.integers(0, 2, size=(3, 4)))
        tp = ((answer == 1) & (truth == 1)).sum()
        fp, fn = ((answer == 1) & (truth == 0)).sum(), ((answer == 0) & (truth == 1)).sum()
        if judged.any():
            assert bounds.accuracy <= (answer == truth)[judged].mean() + 1e-12
        if tp + fn:
            assert bounds.recall <= tp / (tp + fn) + 1e-12
        if tp + fp:
            assert bounds.precision <= tp / (tp + fp) + 1e-12
        if tp + fp + fn:
            assert bounds.iou <= tp / (tp + fp + fn) + 1e-12
            assert bounds.f_score <= 2 * tp / (2 * tp + fp + fn) + 1e-12
    # The worst answer meets every bound.
    worst = np.where(certified, label, 1 - truth)
    tp, fp = ((worst == 1) & (truth == 1)).sum(), ((worst == 1) & (truth == 0)).sum()
    assert (bounds.hits, bounds.false_alarms, bounds.right) == (tp, fp, (worst == truth)[judged].sum())


@given(st.integers(0, 2**32), st.integers(1, 12))
def test_bounds_over_radii_equal_those_of_each_radius(seed, draws):
    rng = np.random.default_rng(seed)
    truth, label = rng.integers(-1, 3, size=(4, 5)), rng.integers(0, 3, size=(4, 5))
    votes, needed = rng.integers(0, draws + 1, size=(4, 5)), rng.integers(0, draws + 2, size=6)
    for positive in range(3):
        found = pixel_bounds_over(label, votes, truth, needed, positive=positive)
        for bounds, least in zip(found, needed, strict=True):
            certified, of = votes >= least, truth == positive
            assert bounds.judged == (truth >= 0).sum()
            assert bounds.right == (certified & (label == truth)).sum()
            assert (bounds.positives, bounds.hits) == (of.sum(), (of & certified & (label == positive)).sum())
            others = (truth >= 0) & ~of
            assert bounds.false_alarms == (others & ~(certified & (label != positive))).sum()


def test_wrong_arguments_are_refused(unchecked, samples):
    for changes, message in (
        ({"draws": 7}, r"7 can only abstain .* shared by 6 elements"),
        ({"keep": {"image": 2}}, "'depth' is missing"),
        ({"keep": {"image": 7, "depth": 1}}, "<= 6"),
        ({"kind": "edits"}, "did you mean"),
    ):
        with pytest.raises(ValueError, match=message):
            run(samples, **changes)
    flat = MultiModalSamples(
        "toy", "test", samples.modalities, np.zeros(5, dtype=np.int64), samples.classes, np.arange(5)
    )
    with pytest.raises(ValueError, match="masks"):
        run(flat)
    with pytest.raises(ValueError, match="did you mean 'image'"):
        run(samples, draws=50).image(0, [{"imag": 1}])


@pytest.mark.parametrize("scheme", ["independent", "joint"])
def test_figures_equal_plain_loops(samples, scheme):
    found = run(samples, scheme=scheme, keep={"image": 2, "depth": 2})
    judged = samples.labels >= 0
    vectors = [{"image": r} for r in range(7)], [{"depth": r} for r in range(7)]
    reached, right, abstained = {"image": 0, "depth": 0}, 0, 0
    for i in range(len(samples)):
        for modality, along in zip(reached, vectors, strict=True):
            certificate = found.image(i, along)
            assert certificate.correction == "bonferroni"
            fine = (certificate.label == samples.labels[i]) & judged[i]
            reached[modality] += int((certificate.certified.sum(axis=0) - 1).clip(min=0)[fine].sum())
        right += fine.sum()
        abstained += (~certificate.certified[0] & judged[i]).sum()
        assert ((found.gaps(i) >= 0) == certificate.certified[0]).all()
    figures = json.loads(json.dumps(found.summary()))
    assert figures["average_radius"] == pytest.approx({m: total / judged.sum() for m, total in reached.items()})
    assert max(figures["average_radius"].values()) > 0
    assert figures["clean_accuracy"] == pytest.approx(right / judged.sum())
    assert figures["abstention"] == pytest.approx(abstained / judged.sum())
    assert figures["scheme"] == scheme
    assert figures["certified_unattacked"]["accuracy"] == found.bounds([{}], correction="bonferroni")[0].accuracy
    assert figures["seconds"] > 0


def test_mean_iou_is_that_of_the_classes_that_occur(samples):
    three = replace(samples, classes=(*samples.classes, "never"))
    found = replace(
        certify_segmentation(TwoRegions(), samples, keep=KEEP, draws=400, alpha=0.01, batch_size=200, seed=0),
        samples=three,
    )
    radii = [{}, {"image": 1}]
    own = [[bound.iou for bound in found.bounds(radii, positive=label)] for label in (0, 1)]
    np.testing.assert_allclose(found.mean_iou(radii), np.mean(own, axis=0))
    assert found.summary()["mean_iou_unattacked"] == found.mean_iou([{}], correction="bonferroni")[0]
    blind = replace(found, samples=replace(three, labels=np.full_like(three.labels, -1)))
    assert np.isnan(blind.mean_iou(radii)).all()


def test_metrics_of_other_shapes_and_truths_are_refused(unchecked):
    label = np.zeros((3, 4), dtype=np.int64)
    certified = np.ones((3, 4), dtype=bool)
    with pytest.raises(ValueError, match="of one shape"):
        pixel_bounds(label, certified, label[:, :1])
    with pytest.raises(ValueError, match=">= -1, but got -2"):
        pixel_bounds(label, certified, label - 2)


def test_values_may_be_stored_in_any_way(samples):
    options = {"keep": KEEP, "draws": 50, "alpha": 0.01, "seed": 0}
    expected, found = (certify_segmentation(TwoRegions(), s, **options) for s in (samples, as_doubles(samples)))
    for one, other in zip(expected.counts, found.counts, strict=True):
        assert (one.votes == other.votes).all()


class AnySize(nn.Module):
    """A picture, depth at half its size, and points that are no image at all."""

    name, modalities, classes = "any-size", ("rgb", "depth", "points"), ("no", "yes")

    def forward(self, inputs, kept=None):
        assert kept["rgb"].shape[1:] == (6, 8)
        assert kept["depth"].shape[1:] == (3, 4)
        assert kept["points"].shape[1:] == (5,)
        assert ((inputs["points"] == 0) | kept["points"][..., None]).all()
        half = torch.nn.functional.avg_pool2d(inputs["depth"], 3, stride=1, padding=1)
        depth = torch.nn.functional.interpolate(half, size=(6, 8))
        score = depth + 0.01 * inputs["rgb"][:, :1] + 0.01 * inputs["points"].mean(dim=(1, 2))[:, None, None, None]
        return torch.cat([-score, score], dim=1)


@pytest.mark.parametrize("design", ["random", "fixed"])
def test_modalities_may_have_sizes_of_their_own(design, tmp_path):
    rng = np.random.default_rng(0)
    truth = np.repeat((np.arange(8) >= 4).astype(int)[None, None], 6, axis=1).repeat(2, axis=0)
    values = {
        "rgb": rng.normal(size=(2, 3, 6, 8)).astype(np.float32),
        "depth": (2.0 * truth[:, None, ::2, ::2] - 1).astype(np.float32),
        "points": rng.normal(size=(2, 5, 3)).astype(np.float32),
    }
    scenes = MultiModalSamples("toy", "test", values, truth, AnySize.classes, np.arange(2))
    keep = {"rgb": 10, "depth": 8, "points": 2}
    draws = 200 if design == "random" else 40
    options = {"keep": keep, "draws": draws, "design": design, "alpha": 0.01, "seed": 0, "folder": tmp_path}
    found = certify_segmentation(AnySize(), scenes, **options)
    assert found.counts[0].n == {"rgb": 48, "depth": 12, "points": 5}
    assert found.counts[0].votes.shape == (6, 8, 2)
    assert found.bounds([{}])[0].accuracy > 0.7
    assert found.bounds([{"rgb": 40}])[0].accuracy < found.bounds([{}])[0].accuracy
    again = certify_segmentation(AnySize(), scenes, **options)
    assert (again.counts[1].votes == found.counts[1].votes).all()
    if design == "random":
        said = predict(AnySize(), scenes, keep=keep, draws=300, seed=2)
        assert said.shape == truth.shape
        assert (said[said >= 0] == np.stack([found.image(i, [{}]).label for i in range(2)])[said >= 0]).mean() > 0.95
    with pytest.raises(ValueError, match=r"`keep\['depth'\]` <= 12"):
        certify_segmentation(AnySize(), scenes, keep={**keep, "depth": 13}, draws=200)
