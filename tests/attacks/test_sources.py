import itertools
import string

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from masked_lm_files import TEXTS, WORDS, write_bert

from crossguard.attacks import SOURCES, Characters, EmbeddingNeighbours, MaskedLM, Thesaurus, make_source
from crossguard.attacks.candidates import attackable
from crossguard.attacks.masked_lm import best_combinations
from crossguard.attacks.meaning import antonyms, keeps_meaning
from crossguard.attacks.stopwords import NEGATIONS, STOP_WORDS
from crossguard.attacks.words import replace_word, split_words
from crossguard.data import load_pairs
from crossguard.evaluate.fingerprint import describe


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return write_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(params=["thesaurus", "embedding", "characters", "masked-lm"])
def source(request, bert):
    return make_source({"name": "masked-lm", "model": str(bert)} if request.param == "masked-lm" else request.param)


def test_the_fixture_covers_the_table():
    assert set(SOURCES) == {"thesaurus", "embedding", "characters", "masked-lm"}


def test_what_a_run_notes_of_a_source_does_not_change_with_use(source, tiny_clip):
    """A resumed evaluation knows its attack by this."""
    before = describe(source)
    assert before["class"] == type(source).__name__
    source.candidates(TEXTS, model=tiny_clip)
    assert describe(source) == before


def test_every_source_gives_single_words_in_place_of_words_that_may_change(source, tiny_clip):
    found = source.candidates(TEXTS, model=tiny_clip)
    some = 0
    for text, candidates in zip(TEXTS, found, strict=True):
        words = split_words(text)
        assert len(candidates) == len(words)
        for word, options in zip(words, candidates, strict=True):
            if word.core.lower() in STOP_WORDS or not any(c.isalpha() for c in word.core):
                assert options == ()
            for option in options:
                some += 1
                assert len(option.split()) == 1
                assert option == option.lower() != word.core.lower()
                assert option not in NEGATIONS
                changed = replace_word(text, word, option)
                assert len(split_words(changed)) == len(words)
            assert len(set(options)) == len(options)
    assert some > 0
    assert source.candidates(TEXTS[1:], model=tiny_clip) == found[1:]


def test_thesaurus_knows_nine_of_ten_words_of_the_emoji_captions():
    pairs = load_pairs("emoji", split="test")
    captions = [text for text, kind in zip(pairs.texts, pairs.text_kinds, strict=True) if kind == "caption"]
    known = [sum(map(bool, options)) for options in Thesaurus().candidates(captions, model=None)]
    words = [sum(word.core not in STOP_WORDS for word in split_words(caption)) for caption in captions]
    assert sum(known) >= 0.9 * sum(words)
    assert min(known) >= 1


def test_thesaurus_knows_common_words_and_their_forms():
    thesaurus = Thesaurus()
    assert thesaurus.of("sofa")[0] == "couch"
    assert "couches" in thesaurus.of("SOFAS")
    assert "felines" in thesaurus.of("cats")
    assert "large" in thesaurus.of("big")
    assert "not" not in {option for word in WORDS for option in thesaurus.of(word)}
    assert thesaurus.of("not") == thesaurus.of("zzyzx") == ()
    assert len(Thesaurus(limit=2).of("big")) == 2
    assert thesaurus.of("cat") == ("feline",)
    assert Thesaurus(broader="never").of("cat") == ()
    assert thesaurus.of("sofa") == ("couch", "lounge")
    assert Thesaurus(broader="always").of("sofa") == ("couch", "lounge", "seat")
    with pytest.raises(ValueError, match="did you mean 'fallback'"):
        Thesaurus(broader="falback")


@pytest.mark.parametrize(
    "word", ["don't", "Don\u2019t", "WON\u02bcT", "ain't", "mightn't", "shan\u2019t", "shant", "daren't"]
)
def test_negations_are_left_alone_however_they_are_spelt(word):
    assert not attackable(word)
    assert not keeps_meaning("do", word)
    assert Characters().of(word) == ()


@pytest.mark.parametrize(
    ("a", "b"),
    [("small", "large"), ("red", "blue"), ("two", "three"), ("left", "right"), ("man", "woman"), ("cat", "not")],
)
def test_opposites_and_exclusives_are_refused(a, b):
    assert not keeps_meaning(a, b)
    assert not keeps_meaning(a, a)


def test_antonyms_go_both_ways():
    assert ("hot", "cold") in antonyms()
    assert {(b, a) for a, b in antonyms()} == antonyms()


def test_neighbours_are_the_nearest_tokens(tiny_clip):
    weight = torch.nn.functional.normalize(tiny_clip.network.text_model.get_input_embeddings().weight.detach(), dim=-1)
    vocabulary = tiny_clip.tokenizer.get_vocab()
    words = [w for w in vocabulary if w.isalpha() and keeps_meaning("disc", w)]
    cosines = {w: float(weight[vocabulary["disc"]] @ weight[vocabulary[w]]) for w in words}
    expected = sorted((w for w in words if cosines[w] >= -1), key=cosines.get, reverse=True)[:5]
    found = EmbeddingNeighbours(limit=5, min_cosine=-1.0).candidates(["disc, unknownword"], model=tiny_clip)
    assert found == [(tuple(expected), ())]


def test_neighbours_follow_weights_that_are_trained_on(tiny_clip):
    source = EmbeddingNeighbours(limit=5, min_cosine=-1.0)
    before = source.candidates(["disc"], model=tiny_clip)
    with torch.no_grad():
        tiny_clip.network.text_model.get_input_embeddings().weight.normal_(generator=torch.Generator().manual_seed(5))
    assert source.candidates(["disc"], model=tiny_clip) != before


def test_neighbours_ask_for_a_model_with_token_embeddings(tiny_clip):
    del tiny_clip.tokenizer
    with pytest.raises(ValueError, match="Use the 'thesaurus' source"):
        EmbeddingNeighbours().candidates(["disc"], model=tiny_clip)


def slow_guesses(source, text, *, shift, limit, min_logit):
    """Top tokens for words of one token, from one plain forward of one text."""
    words = [word.core.lower() for word in split_words(text)]
    encoded = source.tokenizer(" ".join(words), return_tensors="pt")
    logits = source.network(**encoded).logits[0]
    tokens = source.tokenizer.convert_ids_to_tokens(encoded["input_ids"][0])
    result = []
    for word in words:
        if word not in tokens or word in STOP_WORDS:
            result.append(None)
            continue
        row = logits[tokens.index(word) + shift]
        ranked = [int(i) for i in row.argsort(descending=True)]
        names = source.tokenizer.convert_ids_to_tokens(ranked)
        pairs = [(i, name) for i, name in zip(ranked, names, strict=True) if shift or name[0] not in "[#"]
        result.append([name for i, name in pairs[:limit] if row[i] >= min_logit])
    return result


@pytest.mark.parametrize("compat", [False, True])
def test_masked_lm_reads_each_word_at_its_own_place_unless_told_otherwise(bert, tiny_clip, compat):
    source = MaskedLM(model=bert, limit=8, min_logit=0.3, compat=compat)
    checked = 0
    for text, found in zip(TEXTS, source.candidates(TEXTS, model=tiny_clip), strict=True):
        words = [word.core.lower() for word in split_words(text)]
        for word, options, expected in zip(
            words, found, slow_guesses(source, text, shift=-1 if compat else 0, limit=8, min_logit=0.3), strict=True
        ):
            if expected is not None:
                plain = [w for w in expected if w.isalpha() and w != word and w not in STOP_WORDS]
                assert list(options) == (plain if compat else [w for w in plain if keeps_meaning(word, w)])
                checked += len(options)
    assert checked > 10


def test_masked_lm_spells_words_of_several_pieces(bert, tiny_clip):
    source = MaskedLM(model=bert, limit=30, min_logit=-99.0)
    (found,) = source.candidates(["picture"], model=tiny_clip)
    assert len(found[0]) > 0
    assert any(len(source.tokenizer.tokenize(word)) == 2 for word in found[0])
    assert MaskedLM(model=bert, limit=30, min_logit=-99.0, max_pieces=1).candidates(["picture"], model=tiny_clip) == [
        ((),)
    ]


@given(st.lists(st.lists(st.floats(-9, 0), min_size=3, max_size=3), min_size=1, max_size=4), st.integers(1, 9))
def test_the_beam_finds_the_best_products(values, limit):
    ids = [[10 * piece + rank for rank in range(3)] for piece in range(len(values))]
    found = best_combinations(values, ids, [[True] * 3] * len(values), limit=limit)
    sums = {
        tuple(ids[p][r] for p, r in enumerate(ranks)): sum(values[p][r] for p, r in enumerate(ranks))
        for ranks in itertools.product(range(3), repeat=len(values))
    }
    expected = sorted(sums.values(), reverse=True)[:limit]
    assert [sums[combination] for combination in found] == pytest.approx(expected)


def test_a_folder_that_is_no_language_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="Expected a masked language model"):
        MaskedLM(model=tmp_path, offline=True)


def test_character_edits_are_all_strings_one_edit_away():
    letters = string.ascii_lowercase
    found = set(Characters(limit=None, real_words=True).of("cat"))
    brute = {
        "".join(p)
        for length in (2, 3, 4)
        for p in itertools.product("cat" + "".join(set(letters) - set("cat")), repeat=length)
        if one_apart("".join(p), "cat")
    }
    assert found == brute
    assert "car" not in Characters(limit=None).of("cat")
    assert all(word[0] == "c" for word in Characters(limit=None, keep_first=True).of("cat"))
    assert len(Characters(limit=7).of("cat")) == 7


@pytest.mark.parametrize(
    ("word", "others"),
    [
        ("boys", {"toys"}),
        ("ropes", {"rapes", "roses"}),
        ("hand", {"and", "sand"}),
        ("walked", {"talked"}),
        ("cats", {"bats", "cars"}),
    ],
)
def test_character_edits_make_no_other_english_word(word, others):
    assert not others & set(Characters(limit=None).of(word))
    assert others <= set(Characters(limit=None, real_words=True).of(word))
    assert len(Characters(limit=None).of(word)) > 100


def one_apart(a, b):
    if len(a) == len(b):
        return sum(x != y for x, y in zip(a, b, strict=True)) == 1
    longer, shorter = (a, b) if len(a) > len(b) else (b, a)
    return any(longer[:i] + longer[i + 1 :] == shorter for i in range(len(longer)))
