"""Placement of sparse attacks: against a plain reference, closed forms, and what every search must keep."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sparse_reference import greedy

from crossguard.attacks import auto_maximise
from crossguard.attacks.parts import Box
from crossguard.attacks.placement import Singles, SparseSearch, first_order_gain, sparse_ascent


def toy_loss(seed, sizes=(("a", 5, 2), ("b", 3, 1))):
    """A small random network over two modalities, with a loss per row."""
    generator = torch.Generator().manual_seed(seed)
    width = sum(elements * features for _, elements, features in sizes)
    first = torch.randn(width, 8, generator=generator)
    second = torch.randn(8, generator=generator)

    def loss(parts, rows=None):
        flat = torch.cat([parts[name].flatten(1) for name, _, _ in sizes], dim=1)
        return (flat @ first).tanh() @ second

    clean = {name: torch.rand(4, e, f, generator=generator) for name, e, f in sizes}
    return loss, clean


def changed(found, clean):
    return {name: (found[name] != clean[name]).any(dim=2).sum(dim=1) for name in clean}


@given(seed=st.integers(0, 500), a=st.integers(0, 5), b=st.integers(0, 3))
@settings(max_examples=25, deadline=None)
def test_greedy_is_that_of_the_plain_reference(seed, a, b):
    loss, clean = toy_loss(seed)
    found = sparse_ascent(
        loss,
        clean,
        sites={"a": Singles(a), "b": Singles(b)},
        search=SparseSearch(steps=0, rows_per_forward=7),
        ids=torch.arange(4),
        seed=0,
    )
    for i in range(4):
        one = {name: values[i : i + 1] for name, values in clean.items()}
        slow = greedy(loss, one, budgets={"a": a, "b": b})
        for name in clean:
            assert torch.equal(found[name][i], slow[name][0])


@given(
    seed=st.integers(0, 500),
    placement=st.sampled_from(["greedy", "gradient"]),
    budgets=st.fixed_dictionaries({"a": st.integers(0, 7), "b": st.integers(0, 4)}),
    shortlist=st.sampled_from([None, 1, 3]),
    trials=st.integers(0, 2),
    steps=st.integers(0, 4),
)
@settings(max_examples=40, deadline=None)
def test_within_budget_in_range_never_worse_and_nothing_touched(seed, placement, budgets, shortlist, trials, steps):
    loss, clean = toy_loss(seed)
    before = {name: values.clone() for name, values in clean.items()}
    search = SparseSearch(placement, shortlist, 2, trials, steps=steps)

    sites = {name: Singles(min(r, clean[name].shape[1])) for name, r in budgets.items()}
    found = sparse_ascent(loss, clean, sites=sites, search=search, ids=torch.arange(4), seed=seed)
    again = sparse_ascent(
        loss,
        {name: values[2:3] for name, values in clean.items()},
        sites=sites,
        search=replace(search, rows_per_forward=3),
        ids=torch.tensor([2]),
        seed=seed,
    )
    for name, count in changed(found, clean).items():
        assert int(count.max()) <= budgets[name]
        assert float(found[name].min()) >= 0
        assert float(found[name].max()) <= 1
        assert torch.equal(clean[name], before[name])
        assert torch.allclose(found[name][2:3], again[name], atol=1e-5)
    assert bool((loss(found) >= loss(clean)).all())


def test_a_linear_loss_is_solved_exactly():
    weights = torch.tensor([[1.0, -2.0], [5.0, 0.0], [-3.0, 1.0]])
    clean = {"x": torch.tensor([[[0.5, 0.5], [0.9, 0.1], [0.2, 0.0]]])}
    gains = first_order_gain(clean["x"], weights[None])
    assert gains[0].tolist() == pytest.approx([0.5 + 1.0, 0.5, 0.6 + 1.0])
    for placement in ("greedy", "gradient"):
        found = sparse_ascent(
            lambda parts, rows: (parts["x"] * weights).sum(dim=(1, 2)),
            clean,
            sites={"x": Singles(2)},
            search=SparseSearch(placement, rounds=1),
            ids=torch.tensor([0]),
            seed=0,
        )
        assert found["x"][0].tolist() == [pytest.approx(row) for row in ([1.0, 0.0], [0.9, 0.1], [0.0, 1.0])]


def test_greedy_beats_gradient_where_the_gradient_misleads():
    # The gradient vanishes at element 1, whose change matters most.
    def loss(parts, rows):
        x = parts["x"][..., 0]
        return 0.1 * x[:, 0] + torch.relu(x[:, 1] - 0.5)

    clean = {"x": torch.zeros(1, 2, 1)}
    found = {
        placement: sparse_ascent(
            loss, clean, sites={"x": Singles(1)}, search=SparseSearch(placement), ids=torch.tensor([0]), seed=0
        )["x"].flatten()
        for placement in ("greedy", "gradient")
    }
    assert found["greedy"].tolist() == [0.0, 1.0]
    assert found["gradient"].tolist() == [1.0, 0.0]


@pytest.mark.parametrize("placement", ["greedy", "gradient"])
def test_words_stay_whole_numbers_and_are_tried(placement):
    # Eleven words; word 7 in place 2 is what hurts.
    def loss(parts, rows):
        ids = (parts["text"][..., 0] * 10).round()
        return (ids[:, 2] == 7).float() + 0.1 * parts["image"].sum(dim=(1, 2))

    clean = {"text": torch.zeros(3, 4, 1), "image": torch.zeros(3, 5, 2)}
    found = sparse_ascent(
        loss,
        clean,
        sites={"text": Singles(1), "image": Singles(2)},
        search=SparseSearch(placement, word_trials=200, rounds=2),
        ids=torch.arange(3),
        seed=1,
        words={"text": 11},
    )
    ids = found["text"][..., 0] * 10
    assert torch.allclose(ids, ids.round(), atol=1e-5)
    assert ids[:, 2].round().tolist() == [7, 7, 7]
    assert [int(count) for count in changed(found, clean)["image"]] == [2, 2, 2]
    assert float(loss(found, None).min()) == pytest.approx(1.4)


def test_climbing_in_a_box_reaches_the_best_corner():
    generator = torch.Generator().manual_seed(0)
    low = {"a": torch.rand(3, 2, 2, generator=generator) / 2, "b": torch.full((3, 1, 1), 0.3)}
    high = {"a": low["a"] + 0.25, "b": torch.full((3, 1, 1), 0.3)}
    slope = torch.tensor([[1.0, -1.0], [2.0, -0.5]])
    start = {"a": low["a"] + 0.1, "b": low["b"]}
    box = Box.between(low, high)
    loss = box.loss(lambda parts, rows: (parts["a"] * slope).sum(dim=(1, 2)) + parts["b"].sum(dim=(1, 2)))
    found = box.split(auto_maximise(loss, box.ball, steps=10, start=box.join(start)))
    assert torch.equal(found["b"], start["b"])
    assert torch.allclose(found["a"], torch.where(slope > 0, high["a"], low["a"]))
