"""Masks: exactly k of n, uniform, and the same whatever the batch; ablation that tells nothing of what is ablated."""

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from crossguard.certify.subsample import ablate, draw_masks


def masks(inputs, draws, *, n, k, seed=0, modality=0):
    return draw_masks(
        seed=seed, inputs=torch.as_tensor(inputs), modality=modality, draws=torch.as_tensor(draws), n=n, k=k
    )


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(0, 200), st.integers(0, 2**70), st.integers(1, 9))
def test_exactly_k_of_n(n, k, seed, rows):
    k = min(k, n)
    found = masks(torch.zeros(rows, dtype=torch.int64), torch.arange(rows), n=n, k=k, seed=seed)
    assert found.shape == (rows, n)
    assert (found.sum(dim=1) == k).all()


@pytest.mark.parametrize(("n", "k"), [(6, 2), (6, 4), (5, 1), (7, 6)])
def test_every_set_is_equally_likely(n, k):
    found = masks(torch.zeros(60_000, dtype=torch.int64), torch.arange(60_000), n=n, k=k, seed=3)
    code = (found * 2 ** torch.arange(n)).sum(dim=1).numpy()
    sets = [sum(2**i for i in chosen) for chosen in combinations(range(n), k)]
    assert set(code) <= set(sets)
    assert chisquare([(code == s).sum() for s in sets]).pvalue > 1e-4


def test_draws_inputs_modalities_and_seeds_are_independent():
    draws = 40_000
    zeros, count = torch.zeros(draws, dtype=torch.int64), torch.arange(draws)
    first = masks(zeros, count, n=4, k=1)
    others = [
        masks(zeros + 1, count, n=4, k=1),
        masks(zeros, count + 1, n=4, k=1),
        masks(zeros, count, n=4, k=1, modality=1),
        masks(zeros, count, n=4, k=1, seed=1),
    ]
    for other in others:
        table = torch.zeros(4, 4).index_put_((first.int().argmax(1), other.int().argmax(1)), torch.tensor(1.0), True)
        assert chisquare(table.flatten().numpy()).pvalue > 1e-4


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(0, 60), st.integers(1, 20), st.integers(1, 5))
def test_a_mask_does_not_depend_on_its_batch(n, k, rows, size):
    k = min(k, n)
    inputs, draws = torch.arange(rows) % 3, torch.arange(rows) * 7
    whole = masks(inputs, draws, n=n, k=k)
    parts = [masks(inputs[i : i + size], draws[i : i + size], n=n, k=k) for i in range(0, rows, size)]
    assert torch.equal(whole, torch.cat(parts))
    order = torch.arange(rows).flip(0)
    assert torch.equal(whole[order], masks(inputs[order], draws[order], n=n, k=k))


def reference(seed, index, modality, draw, n, k):
    """The same masks in whole numbers, one at a time."""

    def mix(z):
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
        return z ^ (z >> 31)

    state = seed % 2**63
    for part in (index, modality, draw):
        state = mix((state + (part + 1) * 0x9E3779B97F4A7C15) % 2**64)
    few, chosen, counter = min(k, n - k), set(), 0
    while len(chosen) < few:
        counter += 1
        chosen.add(mix((state + counter * 0x9E3779B97F4A7C15) % 2**64) % 2**63 % n)
    return chosen if few == k else set(range(n)) - chosen


@settings(deadline=None)
@given(
    st.integers(0, 2**66), st.integers(0, 999), st.integers(0, 3), st.integers(0, 2**41), st.integers(1, 40), st.data()
)
def test_equals_a_slow_reference(seed, index, modality, draw, n, data):
    k = data.draw(st.integers(0, n))
    found = masks([index], [draw], n=n, k=k, seed=seed, modality=modality)[0]
    assert set(found.nonzero().flatten().tolist()) == reference(seed, index, modality, draw, n, k)


def test_large_inputs():
    found = masks([0, 0], [0, 1], n=465_750, k=8988)
    assert found.sum(dim=1).tolist() == [8988, 8988]
    shared = int((found[0] & found[1]).sum())
    assert shared == pytest.approx(8988**2 / 465_750, abs=6 * 13.2)
    nearly_all = masks([0], [0], n=465_750, k=465_000)
    assert int(nearly_all.sum()) == 465_000


@pytest.mark.parametrize("fill", [0.0, -2.5, "mean"])
def test_ablation_depends_on_kept_elements_only(fill):
    rng = np.random.default_rng(0)
    kept = masks([0, 1, 2], [0, 0, 0], n=8, k=3)
    values = torch.from_numpy(rng.normal(size=(3, 8, 2)).astype(np.float32))
    before = values.clone()
    found = ablate(values, kept, fill=fill)
    assert torch.equal(values, before)
    assert torch.equal(found[kept], values[kept])
    other = torch.where(kept[..., None], values, torch.full_like(values, 1e6))
    assert torch.equal(ablate(other, kept, fill=fill), found)
    expected = values[kept].reshape(3, 3, 2).mean(dim=1, keepdim=True) if fill == "mean" else torch.tensor(fill)
    assert torch.allclose(found[~kept].reshape(3, 5, 2), expected.expand(3, 5, 2))


def test_wrong_arguments_are_refused(unchecked):
    with pytest.raises(ValueError, match="k = 9 kept of n = 8"):
        masks([0], [0], n=8, k=9)
    with pytest.raises(ValueError, match="leading shape"):
        ablate(torch.zeros(2, 8, 3), torch.ones(2, 7, dtype=torch.bool))
