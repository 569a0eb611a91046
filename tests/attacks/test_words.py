"""Words and letters of texts in any script: what is attached to a word stays, what is part of a letter goes with it."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossguard.attacks import Characters
from crossguard.attacks.characters import one_edit
from crossguard.attacks.words import delete_word, insert_word, replace_word, split_letters, split_words

MARKS = "\u0301\u0327\u0308\u0328\u034f\u05b8\u064b\u0941\u093e\u0bcd\u20e3\ufe0f"
BASES = "aeox\u00e9\u0436\u03b1\u5b57\u0915\u05d1\u06287_"
# Attached signs, among them emoji of several code points: skin tones, joined people, keycaps without digit, flags.
SIGNS = [".", ",", "!", '"', "(", ")", "\u2019", "'", "-", "\u201c", "\U0001f431", "\u2764\ufe0f\u200d\U0001f525"]
SIGNS += ["\U0001f469\U0001f3fd\u200d\U0001f692", "\U0001f1eb\U0001f1f7", "\U0001f3f4\u200d\u2620\ufe0f"]
letters = st.builds(str.__add__, st.sampled_from(BASES), st.text(MARKS, max_size=3))
inner = st.sampled_from(["", "'", "\u2019", "-", "\u200d", "\u02bc"])
cores = st.builds(lambda parts, joint: joint.join(parts), st.lists(letters, min_size=1, max_size=5), inner)
signs = st.lists(st.sampled_from(SIGNS), max_size=3).map("".join)
spaces = st.text(" \t\n\u00a0\u3000", min_size=1, max_size=2)


@st.composite
def written(draw):
    """A text, and per white-space piece what stands before its core, the core, and what stands behind it."""
    pieces = draw(st.lists(st.tuples(signs, st.one_of(cores, st.just("")), signs), min_size=1, max_size=5))
    pieces = [(before, core, behind) for before, core, behind in pieces if before + core + behind]
    text = draw(spaces).join("".join(piece) for piece in pieces)
    return text, pieces


@given(written())
def test_a_core_is_a_whole_word_with_all_its_marks_and_nothing_else(case):
    text, pieces = case
    words = split_words(text)
    assert [word.core for word in words] == [core for _, core, _ in pieces]
    assert all(text[word.start : word.end] == word.core for word in words)


@given(written(), st.data())
def test_replacing_leaves_no_mark_behind_and_what_is_attached_in_place(case, data):
    text, pieces = case
    i = data.draw(st.integers(0, len(pieces) - 1)) if pieces else 0
    if not pieces or not pieces[i][1]:
        return
    changed = replace_word(text, split_words(text)[i], "coffeehouse")
    before, _, behind = pieces[i]
    assert changed.split()[i].lower() == before + "coffeehouse" + behind
    assert [p for k, p in enumerate(changed.split()) if k != i] == [p for k, p in enumerate(text.split()) if k != i]
    assert replace_word(text, split_words(text)[i], pieces[i][1]) in {text, _upper(text, split_words(text)[i])}


def _upper(text, word):
    """Capitals are carried over by letter case of the whole or of the first letter, which may respell a core."""
    for respelt in (word.core.upper(), word.core[:1].upper() + word.core[1:]):
        if respelt != word.core:
            return text[: word.start] + respelt + text[word.end :]
    return text


@given(written(), st.data())
def test_inserting_and_deleting_touch_one_piece(case, data):
    text, pieces = case
    if not pieces:
        return
    i = data.draw(st.integers(0, len(pieces) - 1))
    word, whole = split_words(text)[i], text.split()
    assert insert_word(text, word, "new").split() == [*whole[:i], "new", *whole[i:]]
    assert delete_word(text, word).split() == [*whole[:i], *whole[i + 1 :]]


@given(cores)
def test_letters_make_up_the_word_and_each_has_one_base(word):
    parts = split_letters(word)
    assert "".join(parts) == word
    for part in parts:
        assert not unicodedata.category(part[0]).startswith("M")
        assert all(unicodedata.category(c).startswith("M") or c == "\u200d" for c in part[1:])


@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("cafe\u0301", ["cafe\u0301"]),
        ("un (cafe\u0301), noir", ["un", "cafe\u0301", "noir"]),
        ("\u0939\u093f\u0928\u094d\u0926\u0940!", ["\u0939\u093f\u0928\u094d\u0926\u0940"]),
        # A Malayalam chillu: a consonant, the sign that silences it, and a joiner that gives it its form.
        ("\u0d28\u0d4d\u200d.", ["\u0d28\u0d4d\u200d"]),
        ("cat\u200d\U0001f431", ["cat"]),
        ("\U0001f468\u200d\U0001f469\u200d\U0001f467", [""]),
        ("1\ufe0f\u20e3", ["1\ufe0f\u20e3"]),
        ("the dogs' bowl, don\u2019t", ["the", "dogs", "bowl", "don\u2019t"]),
        ("\u0301cat", ["cat"]),
    ],
)
def test_scripts_emoji_and_apostrophes(text, cores):
    assert [word.core for word in split_words(text)] == cores


def test_an_accented_word_is_replaced_whole():
    for form in ("NFC", "NFD"):
        text = unicodedata.normalize(form, "A \u00abCaf\u00e9\u00bb \u2615\ufe0f")
        assert replace_word(text, split_words(text)[1], "coffeehouse") == "A \u00abCoffeehouse\u00bb \u2615\ufe0f"


@given(cores, st.integers(0, 2))
def test_character_edits_never_part_a_letter_from_its_marks(word, first):
    base = split_letters(word)
    for edit in one_edit(word, first=min(first, len(base))):
        parts = split_letters(edit)
        common = [p for p in parts if p in base]
        assert abs(len(parts) - len(base)) <= 1
        assert len(common) >= len(base) - 1


@pytest.mark.parametrize("word", ["cafe\u0301", "nai\u0308ve"])
def test_misspellings_of_decomposed_words_are_those_of_composed_ones(word):
    def composed(words):
        return {unicodedata.normalize("NFC", w) for w in words}

    one = one_edit(unicodedata.normalize("NFC", word))
    assert composed(one_edit(word)) == set(one)
    assert all(not edit.startswith("\u0301") for edit in Characters(limit=None).of(word))
