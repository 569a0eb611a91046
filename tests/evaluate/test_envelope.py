"""Certified accuracy is never above accuracy under a sparse attack of the same radii, whatever the task."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crossguard.attacks import Storage, attack_samples
from crossguard.certify import Smoothed, certify, certify_segmentation
from crossguard.certify.smoothed import even_masks
from crossguard.data import MultiModalSamples, load_samples
from crossguard.evaluate.envelope import Envelope, sparse_envelope
from crossguard.models import WatchNet
from crossguard.threat import Elements, ThreatModel
from crossguard.training import train_ablated

KEEP = {"accelerometer": 5, "gyroscope": 5}
VECTORS = [{"accelerometer": r, "gyroscope": r} for r in (0, 2, 4, 8, 16, 40)]


class Columns(torch.nn.Module):
    """A label per pixel from the mean colour and depth that is kept, and the pixel's own if it is."""

    name, modalities, classes = "columns", ("rgb", "depth"), ("other", "road")

    def __init__(self):
        super().__init__()
        self.bias = torch.nn.Parameter(torch.zeros(()))

    def forward(self, inputs, kept=None):
        score = self.bias
        for modality in self.modalities:
            values = inputs[modality].mean(dim=1) - 0.5
            mask = torch.ones_like(values) if kept is None else kept[modality].to(values.dtype)
            here = values * mask
            score = score + here + here.sum(dim=(1, 2), keepdim=True) / mask.sum(dim=(1, 2), keepdim=True)
        return torch.stack([-score, score], dim=1) * 4


@pytest.fixture(scope="module")
def watch():
    training = load_samples("watch", split="train", stride=64)
    model = WatchNet.for_samples(training, width=48, seed=0)
    train_ablated(model, training, keep=KEEP, steps=150, batch_size=128, seed=0)
    test = load_samples("watch", split="test")
    return model.eval(), test.select(range(0, len(test), 16))


@pytest.fixture(scope="module")
def scenes():
    generator = np.random.default_rng(0)
    labels = np.repeat(np.array([0, 1, 1, 0])[:, None, None], 4, axis=1).repeat(5, axis=2)
    labels[:, 0] = 1 - labels[:, 0]
    labels[1, 1] = -1
    base = np.array([0.2, 0.8, 0.85, 0.15])[:, None, None, None] + generator.normal(scale=0.1, size=(4, 2, 4, 5))
    values = base.clip(0, 1).astype(np.float32)
    return MultiModalSamples(
        "toy",
        "test",
        {"rgb": np.repeat(values[:, :1], 3, axis=1), "depth": values[:, 1:]},
        labels,
        ("other", "road"),
        np.arange(4),
    )


@pytest.mark.slow
def test_the_smoothed_watch_classifier_lies_between_its_bounds(watch):
    model, samples = watch
    certificate = certify(model, samples, keep=KEEP, draws=400, alpha=0.001, seed=0)
    smoothed = Smoothed(model, keep=KEEP, draws=400, attack_draws=24)
    found = sparse_envelope(
        smoothed, samples, VECTORS, attack_options={"rounds": 2, "steps": 8}, batch_size=len(samples)
    )
    certified = [certificate.accuracy(vector) for vector in VECTORS]
    assert (found.answers[0] == certificate.labels).all()
    assert found.accuracy[0] == certificate.clean_accuracy
    assert all(low <= high for low, high in zip(certified, found.accuracy, strict=True))
    # Per sample too: what is certified is never broken.
    for vector, answers in zip(VECTORS, found.answers, strict=True):
        assert (answers == certificate.labels)[certificate.certified(vector)].all()
    # Neither bound is empty: something is certified, and the attack breaks something.
    assert certified[1] > 0.1
    assert found.accuracy[-1] < 0.5 * found.accuracy[0]
    assert all(a >= b for a, b in zip(found.accuracy, found.accuracy[1:], strict=False))


def test_attacking_the_smoothed_model_beats_attacking_the_base_model(watch):
    model, samples = watch
    smoothed = Smoothed(model, keep=KEEP, draws=200, attack_draws=50)
    threat = ThreatModel(accelerometer=Elements(16), gyroscope=Elements(16))
    options = {"rounds": 1, "steps": 20}
    own = attack_samples(smoothed, samples, threat=threat, attack="sparse", attack_options=options)
    other = attack_samples(model, samples, threat=threat, attack="sparse", attack_options=options)
    transferred = attack_samples(
        smoothed, other.samples, threat=ThreatModel(accelerometer=Elements(0)), attack="sparse"
    )
    assert own.robust_accuracy < transferred.robust_accuracy


def test_the_smoothed_segmenter_lies_between_its_bounds(scenes):
    keep, vectors = {"rgb": 2, "depth": 2}, [{"rgb": r, "depth": r} for r in (0, 1, 2, 10)]
    model = Columns()
    certificate = certify_segmentation(model, scenes, keep=keep, draws=600, alpha=0.01, batch_size=200, seed=0)
    smoothed = Smoothed(model, keep=keep, draws=600, attack_draws=16, segments=True, batch_size=200)
    found = sparse_envelope(smoothed, scenes, vectors, attack_options={"rounds": 2, "steps": 5})
    bounds = certificate.bounds(vectors, positive=1)
    metrics = found.metrics()
    for v, bound in enumerate(bounds):
        for metric in ("accuracy", "recall", "precision", "f_score", "iou"):
            assert getattr(bound, metric) <= metrics[metric][v] + 1e-12
    assert bounds[1].accuracy > 0
    assert metrics["accuracy"][-1] < metrics["accuracy"][0]
    for index in range(len(scenes)):
        image = certificate.image(index, vectors)
        assert (found.answers[0][index] == image.label).all()
        for v in range(len(vectors)):
            assert (found.answers[v][index] == image.label)[image.certified[v]].all()


def test_the_smoothed_model_votes_as_its_certificate_whatever_mode_its_base_is_in(watch):
    model, samples = watch
    few = samples.head(6)
    inputs = {m: torch.from_numpy(values) for m, values in few.modalities.items()}
    votes = certify(model, few, keep=KEEP, draws=100, alpha=0.01, seed=0).counts.votes
    smoothed, ids = Smoothed(model, keep=KEEP, draws=100, attack_draws=4), torch.arange(6)
    climbed = smoothed.log_probabilities(inputs, ids)
    model.train()  # with dropout
    try:
        assert (smoothed.votes(inputs, ids).numpy() == votes).all()
        assert torch.equal(smoothed.log_probabilities(inputs, ids), climbed)
        assert model.training
    finally:
        model.eval()


@given(n=st.integers(1, 40), k=st.integers(1, 40), draws=st.integers(1, 30), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_even_masks_keep_k_and_show_every_element_as_often(n, k, draws, seed):
    k = min(k, n)
    ids = torch.tensor([4, 7])
    masks = even_masks(ids, n=n, k=k, draws=draws, seed=seed, stream=0)
    assert masks.shape == (2, draws, n)
    assert (masks.sum(dim=2) == k).all()
    per_order = n // k
    for first in range(0, draws - per_order + 1, per_order):
        assert int(masks[:, first : first + per_order].sum(dim=1).max()) == 1
    assert torch.equal(masks[1:], even_masks(ids[1:], n=n, k=k, draws=draws, seed=seed, stream=0))


def test_even_masks_are_uniform():
    masks = even_masks(torch.arange(3000), n=5, k=2, draws=3, seed=0, stream=0)
    for draw in range(3):
        codes, counts = torch.unique(masks[:, draw].int() @ (2 ** torch.arange(5)).int(), return_counts=True)
        assert len(codes) == 10
        assert int(counts.min()) > 240
        assert int(counts.max()) < 360


def test_attacks_within_smaller_radii_count_for_larger_ones():
    samples = MultiModalSamples("toy", "test", {"x": np.zeros((2, 3, 1))}, np.array([0, 1]), ("a", "b"), np.arange(2))
    answers = np.array([[0, 1], [1, 1], [0, 0], [0, 1]])
    radii = ({"x": 0}, {"x": 1}, {"y": 1, "x": 0}, {"x": 2, "y": 2})
    assert Envelope(samples, radii, answers, {}).accuracy == (1.0, 0.5, 0.5, 0.0)


def test_answers_are_kept_and_refused_for_another_attack(watch, tmp_path):
    model, samples = watch
    few, vectors = samples.head(4), VECTORS[:2]
    options = {"rounds": 1, "steps": 2}

    def run(seed=0, samples=few, storage=None, **changes):
        smoothed = Smoothed(model, **({"keep": KEEP, "draws": 20, "attack_draws": 4} | changes))
        return sparse_envelope(
            smoothed, samples, vectors, attack_options=options, storage=storage, seed=seed, folder=tmp_path
        )

    first = run()
    written = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert set(written) == {"sparse-0-0.npz", "sparse-2-2.npz"}
    again = run()
    assert (again.answers == first.answers).all()
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == written
    (tmp_path / "sparse-2-2.npz").write_bytes((tmp_path / "sparse-2-2.npz").read_bytes()[:-40])
    assert (run().answers == first.answers).all()  # made again
    other_values = {m: values + 1 for m, values in few.modalities.items()}
    for changes in (
        {"seed": 1},
        {"samples": replace(few, modalities=other_values)},
        {"storage": {"gyroscope": Storage(-9.0, 9.0)}},
        {"fill": "mean"},
    ):
        with pytest.raises(ValueError, match="Expected answers of the same attack"):
            run(**changes)
    smoothed = Smoothed(model, keep=KEEP, draws=20, attack_draws=4, seed=1)  # of the voting draws
    with pytest.raises(ValueError, match="Expected answers of the same attack"):
        sparse_envelope(smoothed, few, vectors, attack_options=options, folder=tmp_path)
    rows = first.rows()
    assert len(rows) == 4
    assert rows[0]["attacked"][0]["radii"] == vectors[0]
    assert rows[0]["attacked"][0]["judged"] == 1


def test_answers_at_as_many_edits_of_another_modality_are_kept_apart(watch, tmp_path):
    model, samples = watch
    smoothed = Smoothed(model, keep=KEEP, draws=20, attack_draws=4)
    vectors = [{"gyroscope": 2}, {"accelerometer": 2}, {}]
    options = {"attack_options": {"rounds": 1, "steps": 2}, "folder": tmp_path}
    found = sparse_envelope(smoothed, samples.head(2), vectors, **options)
    assert {path.name for path in tmp_path.iterdir()} == {"sparse-0-2.npz", "sparse-2-0.npz", "sparse-0-0.npz"}
    turned = sparse_envelope(smoothed, samples.head(2), vectors[::-1], **options)
    assert (turned.answers == found.answers[::-1]).all()
    with pytest.raises(ValueError, match="did you mean 'gyroscope'"):
        sparse_envelope(smoothed, samples.head(2), [{"gyroscop": 2}], **options)
