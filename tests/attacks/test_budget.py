from itertools import combinations
from math import inf

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crossguard.attacks import LInfBall, count_word_edits, within_words
from crossguard.attacks.budget import beyond_budget
from crossguard.threat import Elements, LInf, ThreatModel, WordEdits

GREY = st.integers(0, 255)


@given(st.lists(st.tuples(GREY, st.floats(-0.5, 1.5)), min_size=1, max_size=12), st.floats(0, 0.2))
def test_pixels_end_on_the_grid_within_budget_and_as_near_as_may_be(values, eps):
    source = torch.tensor([[[[grey / 255 for grey, _ in values]]] * 3])
    wanted = torch.tensor([[[[value for _, value in values]]] * 3], dtype=torch.float32)
    grid = LInfBall(source, eps).to_pixels(wanted)[0, 0, 0].double().numpy() * 255
    assert np.allclose(grid, grid.round(), atol=1e-4)
    for (grey, value), found in zip(values, grid.round(), strict=True):
        allowed = [g for g in range(256) if abs(g - grey) <= eps * 255 + 1e-3]
        nearest = min(abs(np.float32(value) * 255 - g) for g in allowed)
        assert found in allowed
        assert abs(np.float32(value) * 255 - found) <= nearest + 2e-3


def test_pixels_off_the_grid_keep_their_value_where_no_grey_level_is_in_reach():
    source = torch.full((1, 3, 1, 1), 10.5 / 255)
    moved = source + 0.3 / 255
    assert torch.equal(LInfBall(source, 0.3 / 255).to_pixels(moved), source)
    assert torch.allclose(LInfBall(source, 0.6 / 255).to_pixels(moved), torch.tensor(11 / 255))


def slow_distance(a, b):
    if not a or not b:
        return len(a) + len(b)
    return min(slow_distance(a[1:], b) + 1, slow_distance(a, b[1:]) + 1, slow_distance(a[1:], b[1:]) + (a[0] != b[0]))


@given(*[st.lists(st.sampled_from("ab"), max_size=5)] * 2)
def test_word_edits_are_the_least_number_of_edits(a, b):
    assert count_word_edits(" ".join(a), " ".join(b)) == slow_distance(a, b)


def slow_distance_of(a, b, kinds):
    """Every way to turn one list of words into the other by the allowed edits, tried out."""
    if a == b:
        return 0
    ways = [slow_distance_of(a[1:], b[1:], kinds) + (a[0] != b[0])] if a and b and keeps(a, b, kinds) else []
    ways += [slow_distance_of(a[1:], b, kinds) + 1] if a and "deletion" in kinds else []
    ways += [slow_distance_of(a, b[1:], kinds) + 1] if b and "insertion" in kinds else []
    return min(ways, default=inf)


def keeps(a, b, kinds):
    return a[0] == b[0] or "substitution" in kinds


@given(
    *[st.lists(st.sampled_from("ab"), max_size=4)] * 2,
    st.sampled_from([k for n in (1, 2, 3) for k in combinations(("substitution", "insertion", "deletion"), n)]),
    st.integers(0, 3),
)
def test_only_the_allowed_kinds_of_edit_count(a, b, kinds, words):
    source, edited = " ".join(a), " ".join(b)
    slow = slow_distance_of(a, b, kinds)
    assert count_word_edits(source, edited, kinds=kinds) == (None if slow == inf else slow)
    assert within_words(source, edited, WordEdits(words=words, kinds=kinds)) == (slow <= words)


class TestWhatComesFromAFile:
    CLEAN = torch.full((2, 3, 4, 4), 100 / 255)
    THREAT = ThreatModel(image=LInf(eps=2 / 255), text=WordEdits(words=1))

    def said(self, pixels=None, texts=("a cat", "a dog"), threat=THREAT, **more):
        pixels = self.CLEAN if pixels is None else pixels
        return beyond_budget(self.CLEAN, pixels, ("a cat", "a dog"), texts, threat, **more)

    def test_within(self):
        assert self.said() == ""
        assert self.said(self.CLEAN + 2 / 255, ("a cow", "a dog")) == ""
        assert self.said(threat=ThreatModel()) == ""

    @pytest.mark.parametrize(
        ("change", "texts", "said"),
        [
            (3 / 255, ("a cat", "a dog"), "a pixel that moved by 0.01176"),
            (float("nan"), ("a cat", "a dog"), "outside of"),
            (1.0, ("a cat", "a dog"), "outside of"),
            (0.0, ("the cow", "a dog"), "the text 'the cow' for 'a cat'"),
            (0.0, ("", "a dog"), "the text ''"),
            (0.0, ("a cat",), "1 texts"),
        ],
    )
    def test_beyond(self, change, texts, said):
        assert said in self.said(self.CLEAN + change, texts)

    def test_what_has_no_budget_may_not_change(self):
        only = ThreatModel(text=WordEdits(words=1))
        assert "where 0 is allowed" in self.said(self.CLEAN + 1 / 255, threat=only)
        assert "where 0 words may be edited" in self.said(texts=("a cow", "a dog"), threat=self.THREAT.only("image"))

    def test_patches(self):
        threat = ThreatModel(image=Elements(1))
        pixels = self.CLEAN.clone()
        pixels[0, :, :2, :2] = 1
        assert self.said(pixels, threat=threat, grid=(2, 2)) == ""
        pixels[0, :, 2:, 2:] = 0
        assert "2 changed patches" in self.said(pixels, threat=threat, grid=(2, 2))
