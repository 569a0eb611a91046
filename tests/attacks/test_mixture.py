"""Choosing the worst set among candidates, against counting by loops and against every set there is."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crossguard.attacks import mixture
from crossguard.attacks.mixture import Chosen, Goal, Links, Mixture, harm, replacement_gains, standing

GOALS = [Goal(1.0, 0.0), Goal(0.0, 1.0), Goal(1.0, 1.0)]


class Table:
    """Scores of candidates, given as a matrix."""

    def __init__(self, values):
        self.values = values

    def __call__(self, images, texts):
        return self.values[images][:, texts]


def a_case(seed, *, images=4, texts=5, more=5):
    """Scores of all candidates, whose they are, and links; an image and a text may be linked to nothing."""
    rng = torch.Generator().manual_seed(seed)
    positives = torch.rand(images, texts, generator=rng) < 0.3
    positives[0, 0] = True
    owners = [
        torch.cat([torch.arange(count), torch.randint(count, (more,), generator=rng)]) for count in (images, texts)
    ]
    values = (3 * torch.randn(images + more, texts + more, generator=rng)).round(decimals=1)  # ties come up
    links = Links(positives.nonzero(), images=images, texts=texts)
    return Mixture(Table(values), links, *owners), positives


def plain_standing(scores, positives):
    """Margins of all rows by loops; None for a row without a partner."""
    margins = []
    for row, own in zip(scores.tolist(), positives.tolist(), strict=True):
        mine = [v for v, is_own in zip(row, own, strict=True) if is_own]
        others = [v for v, is_own in zip(row, own, strict=True) if not is_own]
        margins.append((max(others) if others else 0.0) - max(mine) if mine else None)
    return margins


def failed(mix, positives, chosen, goal):
    scores = mix.scores(chosen.images, chosen.texts)
    total = 0.0
    for weight, margins in (
        (goal.tr, plain_standing(scores, positives)),
        (goal.ir, plain_standing(scores.T, positives.T)),
    ):
        asked = [m for m in margins if m is not None]
        total += weight * float(np.mean([m >= -1e-5 for m in asked]))
    return total


@settings(max_examples=25)
@given(st.integers(0, 2**31), st.sampled_from([1, 7, 1 << 22]))
def test_margins_equal_loops_in_slices_of_any_size(seed, chunk):
    mix, positives = a_case(seed)
    scores = mix.scores(mix.clean.images, mix.clean.texts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mixture, "CHUNK", chunk)
        found = standing(mix.scores, mix.clean.images, mix.clean.texts, mix.links)
    for side, matrix, links in zip(found, (scores, scores.T), (positives, positives.T), strict=True):
        for margin, expected in zip(side.margins.tolist(), plain_standing(matrix, links), strict=True):
            assert expected is None or margin == pytest.approx(expected)
        for tops, mask in ((side.own, links), (side.others, ~links)):
            for row in range(len(matrix)):
                kept = torch.arange(matrix.shape[1])
                for left_out in kept.tolist():
                    rest = matrix[row][mask[row] & (kept != left_out)]
                    if len(rest):
                        assert float(tops.without(torch.tensor([left_out]))[0, row]) == float(rest.max())


@settings(max_examples=12)
@given(st.integers(0, 2**31), st.sampled_from(GOALS), st.sampled_from([1, 1 << 22]))
def test_gains_equal_replacing_and_counting_again(seed, goal, chunk):
    mix, positives = a_case(seed)
    counted = positives.any(dim=1), positives.any(dim=0)

    def value(rows):
        total = 0.0
        sides = standing(mix.scores, rows, mix.clean.texts, mix.links)
        for weight, side, asked in zip((goal.tr, goal.ir), sides, counted, strict=True):
            total += weight * float(harm(side.margins[asked], 0.5).mean())
        return total

    pool = torch.arange(len(mix.image_owners))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mixture, "CHUNK", chunk)
        gains = replacement_gains(
            mix.scores, mix.links, mix.standing(mix.clean), mix.clean.texts, (goal.tr, goal.ir), pool,
            mix.image_owners, 0.5,
        )  # fmt: skip
    before = value(mix.clean.images)
    for candidate, gain in zip(pool.tolist(), gains.tolist(), strict=True):
        rows = mix.clean.images.clone()
        rows[mix.image_owners[candidate]] = candidate
        assert gain == pytest.approx(value(rows) - before, abs=1e-6)


def every_set(mix):
    """All sets that the candidates make."""
    choices = [
        [(owners == item).nonzero().squeeze(1).tolist() for item in range(count)]
        for owners, count in ((mix.image_owners, mix.links.images), (mix.text_owners, mix.links.texts))
    ]
    for images in itertools.product(*choices[0]):
        for texts in itertools.product(*choices[1]):
            yield Chosen(torch.tensor(images), torch.tensor(texts))


def test_the_set_is_nearly_the_worst_of_all_sets():
    """Coordinate ascent may stop short; over many small cases it must come close to trying everything."""
    reached, possible, start = 0.0, 0.0, 0.0
    for seed in range(6):
        mix, positives = a_case(seed, images=3, texts=3, more=3)
        for goal in GOALS:
            pools = {"images": torch.arange(len(mix.image_owners)), "texts": torch.arange(len(mix.text_owners))}
            found = mix.worst([mix.clean], goal, **pools)
            worst = max(failed(mix, positives, chosen, goal) for chosen in every_set(mix))
            value, clean = (failed(mix, positives, chosen, goal) for chosen in (found, mix.clean))
            assert clean <= value <= worst + 1e-9
            assert mix.worth(found, goal).failed == pytest.approx(value)
            reached, possible, start = reached + value, possible + worst, start + clean
    assert reached - start > 0.8 * (possible - start) > 1


@settings(max_examples=15)
@given(st.integers(0, 2**31), st.sampled_from(GOALS), st.data())
def test_never_worth_less_than_any_start_and_only_of_what_may_be_chosen(seed, goal, data):
    mix, positives = a_case(seed)
    pools = [
        torch.tensor(data.draw(st.lists(st.integers(0, len(owners) - 1), unique=True)), dtype=torch.int64)
        for owners in (mix.image_owners, mix.text_owners)
    ]
    other = mix.worst([mix.clean], GOALS[data.draw(st.integers(0, 2))], images=pools[0], texts=pools[1])
    fixed = data.draw(st.sampled_from(["images", "texts", "nothing"]))
    asked = Goal(goal.tr, goal.ir, images=fixed != "images", texts=fixed != "texts")
    found = mix.worst([mix.clean, other], asked, images=pools[0], texts=pools[1])
    for start in (mix.clean, other):
        assert failed(mix, positives, found, goal) >= failed(mix, positives, start, goal) - 1e-9
        assert not mix.worth(start, goal).beats(mix.worth(found, goal))
    assert torch.equal(mix.image_owners[found.images], torch.arange(mix.links.images))
    assert torch.equal(mix.text_owners[found.texts], torch.arange(mix.links.texts))
    starts = {"images": (mix.clean.images, other.images), "texts": (mix.clean.texts, other.texts)}
    for name, pool in zip(("images", "texts"), pools, strict=True):
        picked = getattr(found, name)
        kept = [torch.equal(picked, start) for start in starts[name]]
        if fixed == name:
            assert any(kept)
        allowed = torch.cat([pool, *starts[name]])
        assert bool(torch.isin(picked, allowed).all())


def test_links_are_looked_up_by_image():
    links = Links(torch.tensor([[2, 1], [0, 3], [2, 0]]), images=4, texts=4)
    rows = torch.tensor([2, 1, 2, 0, 3])
    expected = torch.zeros(4, 4, dtype=torch.bool)
    expected[[2, 0, 2], [1, 3, 0]] = True
    assert torch.equal(links.among(rows), expected[rows])
    assert links.linked.tolist() == [True, False, True, False]
    assert torch.equal(links.flipped.among(torch.arange(4)), expected.T)
