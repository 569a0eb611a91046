"""A source that knows no word of the texts makes an attack that does nothing: it is said, once."""

import warnings

import pytest

from crossguard import evaluate
from crossguard.attacks import make_attack
from crossguard.attacks.stopwords import STOP_WORDS
from crossguard.data import PairBatch
from crossguard.threat import LInf, ThreatModel, WordEdits
from crossguard.training.swaps import Swaps

WORDS = ThreatModel(text=WordEdits(1))
SMALL = {"adaptive": {"rounds": 1, "steps": 5}, "sga": {"steps": 1}, "co-attack": {"steps": 1}, "sep": {"steps": 1}}


class Knows:
    """Proposes "cross" for some words."""

    name = "knows"

    def __init__(self, *words):
        self.words = words

    def candidates(self, texts, *, model=None):
        return [tuple(("cross",) if word in self.words else () for word in text.split()) for text in texts]


def said(run):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run()
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize("name", ["word-swap", "adaptive", "sga", "co-attack", "sep"])
def test_a_source_without_candidates_is_told_once_with_its_share(tiny_clip, toy_batch, name):
    attack = make_attack(name, source=Knows(), **SMALL.get(name, {}))
    threat = ThreatModel(image=LInf(2 / 255), text=WordEdits(1)).only(*sorted(attack.uses))
    words = sum(word not in STOP_WORDS for text in toy_batch.texts for word in text.split())
    (message,) = said(lambda: [attack(tiny_clip, toy_batch, threat=threat, seed=seed) for seed in (0, 1)])
    assert message.startswith(f"The source 'knows' has candidates for 0 of {words} words that may be attacked (0 %)")


def test_a_source_that_knew_some_words_before_is_not_blamed_for_a_batch(tiny_clip, toy_batch):
    attack = make_attack("word-swap", source=Knows("red"))
    one = PairBatch(
        toy_batch.pixels, ("a green disc",), toy_batch.links[:1], toy_batch.image_ids, toy_batch.text_ids[:1]
    )
    assert said(lambda: [attack(tiny_clip, batch, threat=WORDS, seed=0) for batch in (toy_batch, one)]) == []
    assert len(said(lambda: make_attack("word-swap", source=Knows("red"))(tiny_clip, one, threat=WORDS, seed=0))) == 1


def test_texts_without_words_that_may_change_say_nothing_about_a_source(tiny_clip, toy_batch):
    few = PairBatch(
        toy_batch.pixels, ("12 of the 13",), toy_batch.links[:1], toy_batch.image_ids, toy_batch.text_ids[:1]
    )
    assert said(lambda: make_attack("word-swap", source=Knows())(tiny_clip, few, threat=WORDS, seed=0)) == []


def test_deletions_need_no_candidates(tiny_clip, toy_batch):
    threat = ThreatModel(text=WordEdits(1, kinds=("deletion",)))
    assert said(lambda: make_attack("word-swap", source=Knows())(tiny_clip, toy_batch, threat=threat, seed=0)) == []


def test_training_says_it_too(tiny_clip):
    swaps = Swaps(Knows(), tiny_clip)
    (message,) = said(lambda: [swaps.of(["a red disc"]), swaps.of(["a green disc"])])
    assert "0 of 2 words" in message


@pytest.mark.parametrize(("known", "told"), [(("red",), True), (("small", "picture", "red", "disc"), False)])
def test_an_evaluation_notes_a_source_that_knows_few_words(tiny_clip, toy_pairs, known, told):
    pairs = toy_pairs.select(images=[0])
    result = evaluate(tiny_clip, pairs, attack=make_attack("word-swap", source=Knows(*known)), threat=WORDS)
    notes = [note for note in result.warnings if "has candidates for" in note]
    assert len(notes) == told
    # "small picture red disc", "bright red disc left side", "drawing red disc left"
    assert all("for 3 of 13 words that may be attacked (23 %)" in note for note in notes)
    clean = evaluate(
        tiny_clip, pairs, attack="pgd", threat=ThreatModel(image=LInf(2 / 255)), attack_options={"steps": 1}
    )
    assert not any("has candidates for" in note for note in clean.warnings)
    deleting = ThreatModel(text=WordEdits(1, kinds=("deletion",)))
    deleted = evaluate(tiny_clip, pairs, attack=make_attack("word-swap", source=Knows()), threat=deleting)
    assert not any("has candidates for" in note for note in deleted.warnings)


def test_any_object_may_be_a_source(tiny_clip, toy_batch):
    class Slots:
        """Not to be referred to weakly, so that it cannot be remembered."""

        __slots__ = ()
        name = "slots"
        candidates = Knows().candidates

    assert said(lambda: make_attack("word-swap", source=Slots())(tiny_clip, toy_batch, threat=WORDS, seed=0))
