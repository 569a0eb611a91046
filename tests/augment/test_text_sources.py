"""Sources of texts that need no model: what they may and may not do to words and links."""

from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crossguard.attacks import Thesaurus
from crossguard.attacks.stopwords import NEGATIONS
from crossguard.attacks.words import split_words
from crossguard.augment import EDA, OwnImages, OwnTexts, Request, Shuffled, augment, thin
from crossguard.augment.word_edits import delete_words, insert_words, replace_words, swap_words
from crossguard.data import OneToManyPairs, Picture

THESAURUS = Thesaurus(broader="never")
WORDS = "a red sofa, dog runs. no! not grinning face (big) small cat's house - never on".split()  # noqa: SIM905
texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(" ".join)
seeds = st.integers(0, 2**32)


def cores(text):
    return [word.core.lower() for word in split_words(text) if word.core]


def request(pool, *, count=3, seed=0):
    return Request(count, seed, 8, torch.device("cpu"), pool)


class TestWordEdits:
    @given(texts, st.integers(1, 4), seeds)
    def test_replacing_changes_only_words_that_have_synonyms_and_gives_synonyms(self, text, words, seed):
        new = replace_words(text, words, Random(seed), THESAURUS)
        before, after = split_words(text), split_words(new)
        changed = [(a.core, b.core) for a, b in zip(before, after, strict=True) if a.core != b.core]
        assert len(changed) == min(words, sum(bool(THESAURUS.of(word.core)) for word in before))
        assert all(b.lower() in THESAURUS.of(a) for a, b in changed)

    @given(texts, st.integers(1, 4), seeds)
    def test_inserting_adds_synonyms_and_moves_nothing(self, text, words, seed):
        pieces, new = text.split(), insert_words(text, words, Random(seed), THESAURUS).split()
        synonyms = {s for word in split_words(text) for s in THESAURUS.of(word.core)}
        assert len(new) == len(pieces) + (words if synonyms else 0)
        rest = iter(new)
        assert all(piece in rest for piece in pieces)  # still there, in order
        assert set((Counter(new) - Counter(pieces)).elements()) <= synonyms

    @given(texts, st.integers(1, 4), seeds)
    def test_swapping_keeps_the_words_and_the_punctuation(self, text, words, seed):
        new = swap_words(text, words, Random(seed))
        assert Counter(cores(new)) == Counter(cores(text))
        marks = [
            ["".join(c for c in piece if not c.isalnum() and c != "'") for piece in t.split()] for t in (text, new)
        ]
        assert marks[0] == marks[1]

    @given(texts, seeds)
    def test_one_swap_exchanges_two_words(self, text, seed):
        before, after = ([word.core for word in split_words(t)] for t in (text, swap_words(text, 1, Random(seed))))
        moved = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
        assert len(moved) == (2 if len(set(filter(None, before))) > 1 else 0)
        assert not moved or moved[0] == moved[1][::-1]

    @given(texts, st.integers(1, 20), seeds)
    def test_deleting_spares_negations_and_one_other_word(self, text, words, seed):
        before, after = cores(text), cores(delete_words(text, words, Random(seed)))
        gone = Counter(before) - Counter(after)
        assert not NEGATIONS & gone.keys()
        deletable = sum(core not in NEGATIONS for core in before)
        assert gone.total() == max(0, min(words, deletable - 1))
        assert not Counter(after) - Counter(before)


class TestEDA:
    @settings(deadline=None)
    @given(texts, st.integers(1, 8), seeds, st.floats(0.05, 1.0))
    def test_variants_are_different_not_blank_and_a_prefix_of_more_variants(self, text, count, seed, alpha):
        eda = EDA(alpha=alpha)
        found = eda.variants(text, count, seed=seed)
        assert len({text, *found}) == len(found) + 1 <= count + 1
        assert all(variant.strip() for variant in found)
        assert found == EDA(alpha=alpha).variants(text, count, seed=seed)
        assert eda.variants(text, count + 3, seed=seed)[: len(found)] == found

    def test_all_kinds_of_edits_are_used(self):
        text = "a small red sofa beside a big house"
        lengths = {len(v.split()) - len(text.split()) for v in EDA().variants(text, 4, seed=0)}
        assert lengths == {-1, 0, 1}
        assert all(len(v.split()) == 8 for v in EDA(edits=["swap"]).variants(text, 9, seed=0))

    @pytest.mark.parametrize(("alpha", "changed"), [(0.01, 1), (0.25, 2), (0.5, 4)])
    def test_alpha_is_the_share_of_edited_words(self, alpha, changed):
        text = "small red sofas large houses fast dogs cats"
        for variant in EDA(alpha=alpha, edits=["delete"]).variants(text, 5, seed=0):
            assert len(variant.split()) == 8 - changed

    def test_seeds_and_texts_decide(self):
        a, b = (EDA().variants("a small red sofa beside a big house", 4, seed=seed) for seed in (0, 1))
        assert a != b

    def test_bad_options(self):
        with pytest.raises(ValueError, match=r"`alpha` in \(0, 1\]"):
            EDA(alpha=0.0)
        with pytest.raises(ValueError, match="did you mean 'delete'"):
            EDA(edits=["delet"])
        with pytest.raises(ValueError, match="at least one of `edits`"):
            EDA(edits=[])


class TestShuffled:
    @settings(deadline=None, max_examples=20)
    @given(seed=seeds)
    def test_texts_belong_to_other_pictures(self, toy_pairs, seed):
        made = Shuffled().make_texts(toy_pairs, range(24), request(toy_pairs, seed=seed))
        assert [len(samples) for samples in made] == [3] * 24
        known = [sorted(cores(text)) for text in toy_pairs.texts]
        for image, samples in enumerate(made):
            own = [known[j] for j in toy_pairs.texts_of(image)]
            for one in samples:
                assert one.images == (image,)
                assert one.content not in toy_pairs.texts
                words = sorted(cores(one.content))
                assert words in known
                assert words not in own

    def test_too_few_texts_give_fewer_samples(self, toy_pairs):
        alone = toy_pairs.head(1)
        assert Shuffled().make_texts(alone, [0], request(alone)) == [[]]


class TestOwn:
    def test_own_texts_are_true_and_new_and_name_every_picture_that_they_are_true_of(self, toy_pairs):
        part = thin(toy_pairs, texts_per_image=1, seed=0)
        assert len(part.texts) < len(toy_pairs.texts)
        for image, samples in enumerate(
            OwnTexts().make_texts(part, range(len(part.images)), request(toy_pairs, count=9))
        ):
            key = part.images[image].key
            whole = {toy_pairs.texts[j] for j in toy_pairs.texts_of(image)}
            assert toy_pairs.images[image].key == key
            left = whole - set(part.texts)
            assert {one.content for one in samples} == (left or whole)
            for one in samples:
                true = toy_pairs.images_of(toy_pairs.texts.index(one.content))
                assert {part.images[i].key for i in one.images} == {toy_pairs.images[i].key for i in true}

    def test_own_images_are_true_and_new(self, toy_pairs):
        part = thin(toy_pairs, images_per_text=1, seed=0)
        part = part.select(images=range(0, len(part.images), 2))
        kept = {picture.key for picture in part.images}
        for text, samples in enumerate(
            OwnImages().make_images(part, range(len(part.texts)), request(toy_pairs, count=9))
        ):
            whole = toy_pairs.images_of(toy_pairs.texts.index(part.texts[text]))
            keys = {toy_pairs.images[i].key for i in whole}
            assert {one.content.key for one in samples} == ((keys - kept) or keys)
            for one in samples:
                of = next(n for n, p in enumerate(toy_pairs.images) if p.key == one.content.key)
                true = {toy_pairs.texts[j] for j in toy_pairs.texts_of(of)} & set(part.texts)
                assert {part.texts[j] for j in one.texts} == true

    def test_own_texts_and_own_images_are_linked_to_each_other_as_the_data_say(self, toy_pairs, tmp_path):
        true = {
            ("0", "a red thing"),
            ("0", "red"),
            ("1", "a red thing"),
            ("1", "red"),
            ("2", "a red thing"),
            ("2", "blue"),
        }
        pictures = tuple(Picture(f"{n}", toy_pairs.images[n].path) for n in range(3))
        texts = ("a red thing", "red", "blue")
        links = np.array([(int(key), texts.index(text)) for key, text in true])
        pool = OneToManyPairs("pool", "train", pictures, texts, links)
        part = pool.select(images=[0], texts=[0])
        made = augment(part, sources=["own-texts", "own-images"], pool=pool, folder=tmp_path / "a")
        assert {p.key for p in made.images} == {"0", "1", "2"}
        assert made.texts == ("a red thing", "red")
        assert {(made.images[i].key, made.texts[j]) for i, j in made.links} == true - {("2", "blue")}

    def test_more_samples_begin_with_the_fewer(self):
        pictures = tuple(Picture(f"{n}", Path(f"{n}.png")) for n in range(40))
        many = OneToManyPairs("many", "train", pictures, ("same",), np.array([[n, 0] for n in range(40)]))
        part = many.select(images=[0])
        chosen = [
            [one.content.key for one in OwnImages().make_images(part, [0], request(many, count=count))[0]]
            for count in (2, 5, 6, 21, 39)
        ]
        assert len(chosen[-1]) == len(set(chosen[-1])) == 39
        assert all(fewer == chosen[-1][: len(fewer)] for fewer in chosen)

    def test_own_pictures_of_a_shard_are_read_there(self, toy_pairs, tmp_path):
        content = [picture.path.read_bytes() for picture in toy_pairs.images[:2]]
        (tmp_path / "shard").write_bytes(b"".join(content))
        ends = (0, len(content[0]), len(content[0]) + len(content[1]))
        pictures = tuple(Picture(f"{n}", tmp_path / "shard", "", ends[n], ends[n + 1] - ends[n]) for n in range(2))
        pool = OneToManyPairs("shard", "train", pictures, ("same",), np.array([[0, 0], [1, 0]]))
        made = augment(pool.head(1), sources=["own-images"], pool=pool, folder=tmp_path / "a")
        assert made.images[1].load().tobytes() == toy_pairs.images[1].load().tobytes()

    def test_without_a_pool_the_own_texts_are_given(self, toy_pairs):
        made = OwnTexts().make_texts(toy_pairs, [3], request(toy_pairs, count=2))
        own = {toy_pairs.texts[j] for j in toy_pairs.texts_of(3)}
        assert len(made[0]) == 2
        assert {one.content for one in made[0]} < own


class TestThin:
    @settings(deadline=None, max_examples=20)
    @given(texts=st.integers(1, 3), images=st.one_of(st.none(), st.integers(1, 2)), seed=seeds)
    def test_no_true_pair_is_lost_among_what_is_left(self, toy_pairs, texts, images, seed):
        part = thin(toy_pairs, texts_per_image=texts, images_per_text=images, seed=seed)
        true = {(toy_pairs.images[i].key, toy_pairs.texts[j]) for i, j in toy_pairs.links}
        left = {(part.images[i].key, part.texts[j]) for i, j in part.links}
        keys, kept = {p.key for p in part.images}, set(part.texts)
        assert left == {(key, text) for key, text in true if key in keys and text in kept}
        if images is None:
            assert len(part.images) == len(toy_pairs.images)
            assert len(part.texts) <= texts * len(part.images)
            assert min(np.bincount(part.links[:, 0])) >= texts

    def test_bad_numbers(self, toy_pairs):
        with pytest.raises(ValueError, match="`texts_per_image` >= 1"):
            thin(toy_pairs, texts_per_image=0, seed=0)
        assert thin(toy_pairs, seed=0) is toy_pairs


@pytest.mark.parametrize("word", ["don't", "Don\u2019t", "ain't", "shan\u2019t"])
def test_negations_are_never_deleted_however_they_are_spelt(word):
    assert word in delete_words(f"they {word} run here", 9, Random(0)).split()
