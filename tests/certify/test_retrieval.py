"""Retrieval: items that are certified to be among the K likeliest stay there, and a large gallery costs nothing."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from certify_toys import attacked
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from torch import nn

from crossguard.certify import SmoothedRetrieval, certify, certify_retrieval
from crossguard.certify.bounds import clopper_pearson
from crossguard.data import MultiModalSamples
from crossguard.evaluate.envelope import sparse_envelope

ITEMS, KEEP = (-2.0, -0.7, 0.7, 2.0), {"query": 2}


class Nearest(nn.Module):
    """Likes the items that are nearest to the mean of what is kept."""

    name, modalities = "nearest", ("query",)

    def __init__(self, items=ITEMS):
        super().__init__()
        self.items = nn.Parameter(torch.tensor(items))
        self.classes = tuple(map(str, range(len(items))))

    def forward(self, inputs, kept=None):
        seen = torch.ones(inputs["query"].shape[:2]) if kept is None else kept["query"]
        mean = (inputs["query"][..., 0] * seen).sum(dim=1) / seen.sum(dim=1)
        return -((mean[:, None] - self.items) ** 2)


def exact(values, most):
    """The probability of each item to be among the K likeliest of a sub-sample."""
    means = [np.mean([values[i] for i in kept]) for kept in combinations(range(len(values)), KEEP["query"])]
    order = np.argsort((np.array(means)[:, None] - np.array(ITEMS)) ** 2, axis=1, kind="stable")[:, :most]
    return np.array([(order == item).any(axis=1).mean() for item in range(len(ITEMS))])


def queries(samples=12, elements=12, seed=0, items=4):
    rng = np.random.default_rng(seed)
    labels = np.arange(samples) % len(ITEMS)
    values = np.array(ITEMS)[labels][:, None, None] + 0.2 * rng.normal(size=(samples, elements, 1))
    return MultiModalSamples(
        "toy", "test", {"query": values}, labels, tuple(map(str, range(items))), np.arange(samples)
    )


@pytest.mark.parametrize("most", [1, 2])
def test_certified_items_withstand_every_attack(most):
    samples = queries()
    found = certify_retrieval(Nearest(), samples, most=most, keep=KEEP, draws=1500, alpha=0.01, seed=0)
    stays = found.items({"query": 1})
    assert stays.any(axis=1).sum() >= 6
    for values, items in zip(samples.modalities["query"][..., 0], stays, strict=True):
        worst = np.min([exact(other, most) for other in attacked(values, 1)], axis=0)
        assert (worst[items] > 0.5).all()
    assert found.accuracy({"query": 1}) == found.certified({"query": 1}).mean() <= found.accuracy()
    assert found.accuracy() <= found.clean_accuracy == 1
    assert (found.found.sum(axis=1) < 2 * most).all()
    assert found.metric == f"recall@{most}"
    table = found.grid({"query": range(4)}).accuracy
    np.testing.assert_allclose(table, [found.accuracy({"query": r}) for r in range(4)])
    rows = found.rows()
    assert [row["right"] for row in rows] == [True] * 12
    assert max(len(row["frontier"]) for row in rows) == 1
    assert found.summary()["items"] == 4


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 3), st.integers(20, 120), st.floats(0.001, 0.1), st.integers(0, 10**6))
def test_the_chance_of_any_wrong_certificate_is_at_most_alpha(most, draws, alpha, seed):
    rng = np.random.default_rng(seed)
    p = np.concatenate([np.ones(2 * most) / 2, rng.dirichlet(np.ones(9)) * most])
    split = rng.integers(2, 2 * most + 9)
    p = p[:split] * most / p[:split].sum()
    p = p[p <= 1]
    bound = clopper_pearson(np.arange(draws + 1), draws, alpha / (2 * most), side="lower")
    wrong = [binom.pmf(np.flatnonzero((bound >= 0.5) & (bound > item)), draws, item).sum() for item in p]
    assert sum(wrong) <= alpha


def test_alpha_is_spent_where_two_items_share_all_votes():
    bound = clopper_pearson(np.arange(2001), 2000, 0.05 / 2, side="lower")
    assert 2 * binom.pmf(np.flatnonzero(bound >= 0.5), 2000, 0.5).sum() > 0.04


def test_a_large_gallery_costs_nothing():
    samples, few = queries(), {"keep": KEEP, "draws": 400, "alpha": 0.01, "seed": 0}
    far = tuple(np.linspace(20, 40, 996))
    truth = np.zeros((12, 1000), dtype=bool)
    truth[np.arange(12), samples.labels] = True
    small = certify_retrieval(Nearest(), samples, **few)
    large = certify_retrieval(Nearest((*ITEMS, *far)), queries(items=1000), truth=truth, **few)
    assert (small.gaps == large.gaps).all()


def test_first_answers_of_one_item_each_are_labels():
    samples, options = queries(), {"keep": KEEP, "draws": 600, "alpha": 0.01, "seed": 0}
    found = certify_retrieval(Nearest(), samples, **options)
    labels = certify(Nearest(), samples, bound="majority", **options)
    for r in range(3):
        assert found.accuracy({"query": r}) == pytest.approx(labels.accuracy({"query": r}), abs=0.1)
    assert (found.counts.votes[..., 1] == labels.counts.votes).all()


def test_of_several_right_items_one_is_enough():
    samples = queries()
    truth = np.ones((12, 4), dtype=bool)
    found = certify_retrieval(Nearest(), samples, truth=truth, most=2, keep=KEEP, draws=400, alpha=0.01, seed=0)
    assert (found.gaps == found.leads.max(axis=1)).all()


@pytest.mark.parametrize("most", [1, 2])
def test_certified_recall_is_never_above_what_an_attack_leaves(most):
    samples, truth = queries(), np.eye(4, dtype=bool)[np.arange(12) % 4]
    truth[::3, 1] = True  # some queries have two right items
    options = {"keep": KEEP, "draws": 400}
    found = certify_retrieval(Nearest(), samples, truth=truth, most=most, alpha=0.01, seed=0, **options)
    victim = SmoothedRetrieval(Nearest(), truth=truth, most=most, attack_draws=12, **options)
    asked = replace(samples, labels=np.ones(12, dtype=np.int64), classes=victim.classes)
    vectors = [{"query": r} for r in (0, 1, 4, 12)]
    left = sparse_envelope(victim, asked, vectors, attack_options={"rounds": 1, "steps": 8})
    assert (left.answers[0] == found.right).all()
    for vector, answers in zip(vectors, left.answers, strict=True):
        assert answers[found.certified(vector)].all()
    assert found.accuracy(vectors[1]) > 0.4
    assert 0.4 < left.accuracy[1] <= left.accuracy[0] == 1
    assert left.accuracy[3] < left.accuracy[1]


def test_a_smoothed_retrieval_of_other_items_is_refused():
    for truth, most in ((np.ones((3, 5), dtype=bool), 1), (np.ones((3, 4), dtype=bool), 4)):
        with pytest.raises(ValueError, match=r"`truth` of 4 items and `most` in 1\.\.3"):
            SmoothedRetrieval(Nearest(), truth=truth, most=most, keep=KEEP)


def test_published_designs_hold_for_certain():
    samples = queries()
    found = certify_retrieval(Nearest(), samples, keep=KEEP, design="product")
    assert (found.alpha, found.counts.draws) == (0, 6)
    for values, items in zip(samples.modalities["query"], found.items({"query": 1}), strict=True):
        for other in attacked(values[:, 0], 1):
            changed = queries(1)
            changed.modalities["query"][:] = other[None, :, None]
            again = certify_retrieval(Nearest(), changed, keep=KEEP, design="product")
            assert again.found[0][items].all()
        break


def test_counts_resume_and_are_told_from_others(tmp_path):
    samples, options = queries(), {"keep": KEEP, "alpha": 0.01, "folder": tmp_path}
    first = certify_retrieval(Nearest(), samples, draws=200, **options)
    again = certify_retrieval(Nearest(), samples, draws=200, **options)
    assert (first.counts.votes == again.counts.votes).all()
    assert len(list(tmp_path.iterdir())) == 1
    more = certify_retrieval(Nearest(), samples, draws=300, **options)
    assert more.counts.looks == (200, 300)
    with pytest.raises(ValueError, match="same model and data"):
        certify_retrieval(Nearest((-1.0, 0.0, 1.0, 2.0)), samples, draws=300, **options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"most": 4}, "`most` in 1..3, fewer than the gallery has, but got 4"),
        ({"most": 0}, "`most` to be a whole number >= 1"),
        ({"truth": np.zeros((12, 4), dtype=bool)}, "queries without one"),
        ({"truth": np.ones((12, 3), dtype=bool)}, r"truth of shape \[12, 3\]"),
        ({"bound": "gap"}, "Unknown option 'bound' of `certify_retrieval`"),
        ({"draws": 5}, "can only abstain"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        certify_retrieval(Nearest(), queries(), **({"keep": KEEP, "draws": 100, "seed": 0} | changes))
