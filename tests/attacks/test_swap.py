import pytest
import torch
from swap_reference import swap_words_slowly

from crossguard.attacks import Characters, EmbeddingNeighbours, Thesaurus, make_attack, swap_words
from crossguard.attacks.stopwords import NEGATIONS, STOP_WORDS
from crossguard.threat import ThreatModel, WordEdits
from shared import make_clip

SOURCES = {
    "thesaurus": Thesaurus(limit=5),
    "embedding": EmbeddingNeighbours(limit=4),
    "characters": Characters(limit=5),
}


class Fixed:
    """The same candidates for every word that is not a stop word."""

    name = "fixed"

    def __init__(self, *words):
        self.words = words

    def candidates(self, texts, *, model=None):
        return [tuple(self.words if w.lower() not in STOP_WORDS else () for w in text.split()) for text in texts]


@pytest.mark.parametrize("order", ["importance", "all"])
@pytest.mark.parametrize("words", [1, 3])
@pytest.mark.parametrize("source", list(SOURCES))
def test_equals_the_reference_that_goes_caption_by_caption(toy_batch, source, words, order):
    model = make_clip(seed=3)
    features = model.encode_image(toy_batch.pixels).detach()
    texts, positives = toy_batch.texts[:8], toy_batch.positives[:, :8]
    options = {"words": words, "source": SOURCES[source], "order": order}
    fast = swap_words(model, texts, features, positives, **options)
    assert fast == swap_words_slowly(model, texts, features, positives, **options)
    assert fast != texts


def test_all_finds_the_best_single_substitution(tiny_clip, toy_batch):
    features = tiny_clip.encode_image(toy_batch.pixels).detach()
    words = ("disc", "left", "green", "plain")
    (found,) = swap_words(
        tiny_clip, toy_batch.texts[:1], features, toy_batch.positives[:, :1], words=1, source=Fixed(*words), order="all"
    )
    pieces = toy_batch.texts[0].split()
    variants = [
        " ".join([*pieces[:i], new, *pieces[i + 1 :]])
        for i, old in enumerate(pieces)
        for new in words
        if old not in STOP_WORDS
    ]
    partners = torch.nn.functional.normalize(features[toy_batch.positives[:, 0]], dim=-1)
    scores = torch.nn.functional.normalize(tiny_clip.encode_text(variants), dim=-1) @ partners.mean(dim=0)
    assert found == variants[int(scores.argmin())]


def test_negations_and_stop_words_stay(tiny_clip):
    text = "a disc that is not on the left"
    features = tiny_clip.encode_image(torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))).detach()
    (found,) = swap_words(
        tiny_clip, (text,), features, torch.ones(1, 1, dtype=torch.bool), words=9, source=Fixed("large", "right")
    )
    before, after = text.split(), found.split()
    changed = {a for a, b in zip(before, after, strict=True) if a != b}
    assert changed
    assert changed <= {"disc", "left"}
    assert not NEGATIONS & set(after) - set(before)


def test_punctuation_white_space_and_capitals_stay(tiny_clip):
    text = '  A "Disc",\tleft-side: 12!'
    features = tiny_clip.encode_image(torch.zeros(1, 3, 16, 16)).detach()
    (found,) = swap_words(
        tiny_clip, (text,), features, torch.ones(1, 1, dtype=torch.bool), words=1, source=Fixed("cross", "bright")
    )
    assert found in {text.replace("Disc", new) for new in ("Cross", "Bright")} | {
        text.replace("left-side", new) for new in ("cross", "bright")
    } | {text}


def test_a_text_without_partners_stays(tiny_clip, toy_batch):
    positives = toy_batch.positives.clone()
    positives[:, 2] = False
    features = tiny_clip.encode_image(toy_batch.pixels).detach()
    found = swap_words(tiny_clip, toy_batch.texts, features, positives, words=2, source=SOURCES["characters"])
    assert found[2] == toy_batch.texts[2]
    assert found[0] != toy_batch.texts[0]


def test_no_candidates_leave_texts_as_they_are(tiny_clip, toy_batch):
    with pytest.warns(UserWarning, match="'fixed' has candidates for 0 of 88 words"):
        found = make_attack("word-swap", source=Fixed())(
            tiny_clip, toy_batch, threat=ThreatModel(text=WordEdits(2)), seed=0
        )
    assert found.texts == toy_batch.texts
    assert found.words.sum() == 0


def test_a_change_never_helps_the_victim(tiny_clip, toy_batch):
    found = make_attack("word-swap", source="characters")(
        tiny_clip, toy_batch, threat=ThreatModel(text=WordEdits(1)), seed=0
    )
    assert (found.text_drop >= -1e-6).all()
    assert (found.text_drop[found.words > 0] > 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": "importanse"}, "did you mean 'importance'"),
        ({"source": "thesaurs"}, "did you mean 'thesaurus'"),
        ({"source": {"name": "thesaurus", "limits": 3}}, "did you mean 'limit'"),
        ({"source": {"name": "masked-lm"}}, "Expected the option 'model' of candidate source"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        make_attack("word-swap", **options)
