"""The default attack on classifiers and segmenters is the strongest of its objectives, and more of it is never weaker."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from torch import nn
from torch.nn.functional import cross_entropy

from crossguard.attacks import Storage, attack_samples
from crossguard.attacks.goals import OBJECTIVES, lost, objectives_of
from crossguard.data import MultiModalSamples
from crossguard.threat import LInf, ThreatModel

EPS = 6 / 255
THREAT = ThreatModel(rgb=LInf(EPS), depth=LInf(EPS))
STORAGE = {"rgb": Storage.pixels(), "depth": Storage(0.0, 1.0)}


class Small(nn.Module):
    """A small segmenter, or with `pooled` a classifier, of two modalities."""

    name, modalities = "small", ("rgb", "depth")

    def __init__(self, classes, pooled):
        super().__init__()
        self.classes, self.pooled, self.calls = classes, pooled, 0
        self.layers = nn.Sequential(
            nn.Conv2d(4, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 12, 3, padding=1), nn.ReLU()
        )
        self.head = nn.Conv2d(12, len(classes), 3, padding=1)

    def forward(self, inputs, kept=None):
        self.calls += 1
        scores = self.head(self.layers(torch.cat([inputs["rgb"], inputs["depth"]], dim=1) - 0.5))
        return 4 * scores.mean(dim=(2, 3)) if self.pooled else scores


def scenes(count, classes, pooled, seed):
    """Noisy pictures with a block of each class's own shade; the label is the mask, or the class of the largest block."""
    generator = np.random.default_rng(seed)
    rgb = generator.normal(0.5, 0.15, (count, 3, 12, 16))
    depth = generator.normal(0.5, 0.15, (count, 1, 12, 16))
    masks = np.zeros((count, 12, 16), dtype=np.int64)
    labels = generator.integers(0, len(classes), count)
    for i in range(count):
        kind = int(labels[i]) if pooled else 1 + i % (len(classes) - 1)
        top, left = generator.integers(0, 5), generator.integers(0, 6)
        masks[i, top : top + 7, left : left + 9] = kind
        block = masks[i] == kind if kind else np.ones((12, 16), bool)
        rgb[i, :, block] += 0.06 * np.array([kind - 1, 1 - kind, kind])
        depth[i, 0, block] += 0.05 * kind
    masks[0, 0] = -1
    return MultiModalSamples(
        name="shades",
        split="test",
        modalities={
            "rgb": (np.round(rgb.clip(0, 1) * 255) / 255).astype(np.float32),
            "depth": depth.clip(0, 1).astype(np.float32),
        },
        labels=labels if pooled else masks,
        classes=classes,
        groups=np.arange(count),
    )


@pytest.fixture(
    scope="module", params=["masks-of-2", pytest.param("masks-of-3", marks=pytest.mark.slow), "labels-of-3"]
)
def victim(request):
    """(model, samples): trained well enough to have something to lose."""
    kind, _, number = request.param.split("-")
    classes, pooled = ("a", "b", "c")[: int(number)], kind == "labels"
    train = scenes(64, classes, pooled, seed=1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Small(classes, pooled)
        optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
        inputs = {m: torch.from_numpy(v) for m, v in train.modalities.items()}
        for _ in range(60):
            optimiser.zero_grad()
            cross_entropy(model(inputs), torch.from_numpy(train.labels), ignore_index=-1).backward()
            optimiser.step()
    return model.requires_grad_(False).eval(), scenes(12, classes, pooled, seed=2)


def figures(samples, answers):
    """Right pixels or labels, and the IoU of the second class, in percent."""
    judged, truth = samples.labels >= 0, samples.labels
    hits = (answers == 1) & (truth == 1)
    either = ((answers == 1) | (truth == 1)) & judged
    return 100 * (answers == truth)[judged].mean(), 100 * hits.sum() / max(1, either.sum())


def plain_pgd(model, samples, objective, *, passes, step, seed=0):
    """Projected gradient descent as anyone would write it: a random start, signed steps, the last iterate."""
    clean = {m: torch.from_numpy(v) for m, v in samples.modalities.items()}
    truth = torch.from_numpy(samples.labels)
    generator = torch.Generator().manual_seed(seed)
    now = {m: (v + EPS * (2 * torch.rand(v.shape, generator=generator) - 1)).clamp(0, 1) for m, v in clean.items()}
    for _ in range(passes):
        leaves = {m: v.clone().requires_grad_(True) for m, v in now.items()}
        loss = OBJECTIVES[objective](model(leaves).log_softmax(dim=1), truth).sum()
        slopes = torch.autograd.grad(loss, list(leaves.values()))
        for (m, v), slope in zip(clean.items(), slopes, strict=True):
            moved = now[m] + step * slope.sign()
            now[m] = torch.minimum(torch.maximum(moved, v - EPS), v + EPS).clamp(0, 1)
    now["rgb"] = (now["rgb"] * 255).round() / 255
    return model(now).argmax(dim=1).numpy()


@pytest.mark.parametrize("options", [{"steps": 10}, pytest.param({}, marks=pytest.mark.slow)], ids=["few", "default"])
@pytest.mark.parametrize("attack", ["adaptive", "apgd"])
def test_no_plain_pgd_of_any_objective_beats_the_default_at_equal_passes(victim, attack, options):
    model, samples = victim
    if not options:
        samples = scenes(24, samples.classes, samples.labels.ndim == 1, seed=2)
    model.calls = 0
    found = attack_samples(
        model, samples, threat=THREAT, attack=attack, attack_options=options or None, storage=STORAGE
    )
    passes = model.calls
    ours = figures(samples, found.attacked)
    assert ours[0] < figures(samples, found.answers)[0] - 10
    for objective in objectives_of("strongest", masks=samples.labels.ndim > 1):
        for step in (EPS / 4, EPS / 12):
            theirs = figures(samples, plain_pgd(model, samples, objective, passes=passes, step=step))
            assert ours[0] <= theirs[0], (objective, step)
            if samples.labels.ndim > 1:
                # An attack is judged by its wrong pixels, of which IoU counts some more than others.
                assert ours[1] <= theirs[1] + (3 if options else 1), (objective, step)


def lost_pixels(samples, found):
    wrong = (found.attacked != samples.labels) & (samples.labels >= 0)
    return wrong.reshape(len(wrong), -1).sum(axis=1)


def test_more_steps_and_restarts_never_leave_more(victim):
    model, samples = victim

    def left(**options):
        found = attack_samples(
            model, samples, threat=THREAT, attack="adaptive", attack_options=options, storage=STORAGE
        )
        return lost_pixels(samples, found)

    by_steps = [left(steps=steps) for steps in (5, 10, 15, 30)]
    assert (by_steps[0] == by_steps[1]).all()  # runs of ten
    assert all((more >= fewer).all() for fewer, more in pairwise(by_steps))
    by_restarts = [by_steps[1], left(steps=10, restarts=2), left(steps=10, restarts=3)]
    assert all((more >= fewer).all() for fewer, more in pairwise(by_restarts))


@pytest.mark.parametrize("attack", ["pgd", "apgd"])
def test_the_strongest_loses_at_least_what_its_first_objective_loses(victim, attack):
    model, samples = victim
    options = {"attack": attack, "attack_options": {"steps": 5}, "storage": STORAGE}
    first = objectives_of("strongest", masks=samples.labels.ndim > 1)[0]
    strongest = attack_samples(model, samples, threat=THREAT, **options)
    alone = attack_samples(model, samples, threat=THREAT, objective=first, **options)
    assert (lost_pixels(samples, strongest) >= lost_pixels(samples, alone)).all()


def slow_loss(name, scores, truth):
    """The losses of one sample, pixel by pixel."""
    values = []
    for pixel in np.ndindex(truth.shape):
        if truth[pixel] < 0:
            continue
        log_p = scores[(slice(None), *pixel)]
        own = log_p[truth[pixel]]
        lead = np.delete(log_p, truth[pixel]).max() - own
        one_hot = np.eye(len(log_p))[truth[pixel]]
        values.append(
            {
                "cross-entropy": -own,
                "margin": lead if truth.ndim == 0 else min(lead, 1.0),
                "masked-cross-entropy": np.log(len(log_p)) if lead > 0 else -own,
                "jensen-shannon": jensenshannon(np.exp(log_p), one_hot) ** 2,
            }[name]
        )
    return np.mean(values) if values else 0.0


@pytest.mark.parametrize("name", OBJECTIVES)
@given(seed=st.integers(0, 10_000), labels=st.integers(2, 4), shape=st.sampled_from([(), (2, 3)]))
@settings(max_examples=15, deadline=None)
def test_objectives_are_their_definitions(name, seed, labels, shape):
    generator = torch.Generator().manual_seed(seed)
    raw = (4 * torch.randn(5, labels, *shape, generator=generator)).requires_grad_(True)
    truth = torch.randint(-1, labels, (5, *shape), generator=generator)
    scores = raw.log_softmax(dim=1)
    found = OBJECTIVES[name](scores, truth)
    expected = [slow_loss(name, scores[i].detach().double().numpy(), truth[i].numpy()) for i in range(5)]
    assert found.tolist() == pytest.approx(expected, rel=1e-3, abs=1e-5)
    (slope,) = torch.autograd.grad(found.sum(), raw)
    assert slope.isfinite().all()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradients_are_finite_for_answers_without_doubt(name):
    raw = torch.tensor([[200.0, -200.0], [-200.0, 200.0]]).requires_grad_(True)
    value = OBJECTIVES[name](raw.log_softmax(dim=1), torch.tensor([0, 0]))
    (slope,) = torch.autograd.grad(value.sum(), raw)
    assert value.isfinite().all()
    assert slope.isfinite().all()


def test_masks_are_judged_by_their_wrong_pixels():
    scores = torch.tensor([[[0.9, 0.2, 0.6]], [[0.1, 0.8, 0.4]]]).log().permute(1, 0, 2)[..., None]
    assert lost(scores, torch.tensor([[[0], [0], [-1]]])).tolist() == [0.5]
    assert lost(torch.tensor([[0.25, 0.75]]).log(), torch.tensor([0])).tolist() == pytest.approx([np.log(3)])


def test_unknown_objectives_are_named():
    with pytest.raises(ValueError, match="did you mean 'strongest'"):
        objectives_of("strongst", masks=True)
