"""Threat models: values are checked, equal values are equal, and a round trip through JSON loses nothing."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossguard import Elements, LInf, ThreatModel, WordEdits

budgets = st.one_of(
    st.builds(LInf, eps=st.floats(0, 1)),
    st.sampled_from(
        [WordEdits(n, kinds) for n in (0, 1, 9) for kinds in (("substitution",), ("deletion", "insertion"))]
    ),
    st.builds(Elements, r=st.integers(0, 99), kind=st.sampled_from(["substitution", "insertion", "deletion", "edit"])),
)


@given(
    st.dictionaries(st.sampled_from(["image", "text", "gyroscope"]), budgets),
    st.sampled_from(["query", "gallery", "both"]),
)
def test_json_round_trip(given_budgets, target):
    threat = ThreatModel(target=target, **given_budgets)
    again = ThreatModel.from_dict(json.loads(json.dumps(threat.to_dict())))
    assert again == threat
    assert hash(again) == hash(threat)
    assert dict(threat) == given_budgets


@pytest.mark.parametrize("eps", [-0.1, 1.5, float("nan"), 8])
def test_eps_outside_the_unit_interval_is_refused(eps, unchecked):
    with pytest.raises(ValueError, match=r"Expected `eps` in \[0, 1\]"):
        LInf(eps=eps)


@pytest.mark.parametrize("words", [-1, True, 1.5])
def test_words_must_be_a_whole_number(words, unchecked):
    with pytest.raises(ValueError, match="`words` to be a whole number"):
        WordEdits(words=words)


def test_numbers_of_numpy_are_kept_as_plain_ones(unchecked):
    assert Elements(np.int64(3)) == Elements(3)
    assert WordEdits(np.uint8(2)) == WordEdits(2)
    assert LInf(np.float32(0.5)) == LInf(0.5)
    plain = ThreatModel(a=Elements(np.int64(3)), b=LInf(np.float32(0.5))).to_dict()
    assert json.loads(json.dumps(plain)) == plain
    for wrong in (True, np.bool_(True), "0.1"):
        with pytest.raises(ValueError, match="Expected `eps`"):
            LInf(wrong)


def test_kinds_of_word_edits_are_checked_and_told(unchecked):
    assert WordEdits(words=1, kinds=["insertion", "substitution"]) == WordEdits(1, ("substitution", "insertion"))
    assert str(WordEdits(words=2, kinds=("deletion",))) == "2 word edits (deletion)"
    assert str(WordEdits(words=1)) == "1 word"
    with pytest.raises(ValueError, match="did you mean 'deletion'"):
        WordEdits(words=1, kinds=("deletions",))
    for nothing in ((), "deletion"):
        with pytest.raises(ValueError, match="Expected `kinds` of edit"):
            WordEdits(words=1, kinds=nothing)


def test_wrong_kinds_and_targets_name_the_nearest(unchecked):
    with pytest.raises(ValueError, match="did you mean 'substitution'"):
        Elements(r=1, kind="substitutions")
    with pytest.raises(ValueError, match="did you mean 'query'"):
        ThreatModel(target="querys")
    with pytest.raises(ValueError, match="budget of 'image'"):
        ThreatModel(image=0.1)
    with pytest.raises(ValueError, match="did you mean 'l-inf'"):
        ThreatModel.from_dict({"image": {"type": "linf", "eps": 0.1}})
    with pytest.raises(ValueError, match="did you mean 'eps'"):
        ThreatModel.from_dict({"image": {"type": "l-inf", "epss": 0.1}})


def test_only_keeps_the_named_budgets_and_the_target():
    threat = ThreatModel(image=LInf(eps=0.1), text=WordEdits(words=1), target="query")
    assert threat.only("image") == ThreatModel(image=LInf(eps=0.1), target="query")
    with pytest.raises(ValueError, match="Unknown modality 'txt'"):
        threat.only("txt")
