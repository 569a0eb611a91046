"""Scores of captions against their definitions written a second time; words with and without Java; what is missing."""

import json
import math
import os
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossguard.evaluate import captioning_scores, captioning_tokens, score_captions
from crossguard.evaluate.captioning_scores import BLEU, unavailable_metrics
from crossguard.evaluate.captioning_tokens import find_java, run_java, talk_to_java, tokenize

pytest.importorskip("pycocoevalcap.bleu.bleu_scorer", reason="pycocoevalcap is not installed (extra `captions`)")
with_java = pytest.mark.skipif(find_java() is None, reason="there is no Java here")

words = st.sampled_from(["a", "red", "blue", "disc", "dog", "runs", "on", "the", "left"])
captions = st.lists(words, min_size=1, max_size=8).map(" ".join)
sets = st.lists(st.tuples(st.lists(captions, min_size=1, max_size=3), captions), min_size=2, max_size=4)


@pytest.fixture
def no_java(monkeypatch):
    monkeypatch.setattr(captioning_tokens.shutil, "which", lambda _: None)


def grams(text, n):
    pieces = text.split()
    return Counter(tuple(pieces[i : i + n]) for i in range(len(pieces) - n + 1))


def bleu(references, written):
    """Papineni et al. (2002), over the whole set; brevity from the reference next in length, the shorter of two."""
    scores, product = [], 1.0
    length = sum(len(text.split()) for text in written)
    near = 0
    for several, text in zip(references, written, strict=True):
        lengths = [len(reference.split()) for reference in several]
        near += min(lengths, key=lambda other: (abs(other - len(text.split())), other))
    for n in range(1, 5):
        right = total = 0
        for several, text in zip(references, written, strict=True):
            found = grams(text, n)
            most = Counter()
            for reference in several:
                most |= grams(reference, n)
            right += sum((found & most).values())
            total += sum(found.values())
        product *= (right + 1e-15) / (total + 1e-9)
        scores.append(100 * product ** (1 / n) * (1.0 if length >= near else math.exp(1 - near / length)))
    return scores


def rouge(several, text):
    """Lin (2004): F of the longest common subsequence, beta 1.2, best precision and best recall over references."""

    def longest(a, b):
        if not a or not b:
            return 0
        if a[0] == b[0]:
            return 1 + longest(a[1:], b[1:])
        return max(longest(a[1:], b), longest(a, b[1:]))

    found = text.split()
    lengths = [(longest(found, reference.split()), len(reference.split())) for reference in several]
    precision, recall = max(n / len(found) for n, _ in lengths), max(n / size for n, size in lengths)
    return 100 * (1 + 1.44) * precision * recall / (recall + 1.44 * precision) if precision and recall else 0.0


def cider(references, written):
    """CIDEr-D (Vedantam et al., 2015): clipped cosines of tf-idf n-gram vectors, Gauss of the lengths, times 10."""
    images = len(references)
    known = [
        Counter(g for gram in {g for r in several for g in grams(r, n)} for g in [gram])
        for n in range(1, 5)
        for several in references
    ]
    documents = [Counter() for _ in range(4)]
    for n in range(4):
        for i in range(images):
            documents[n].update(known[n * images + i].keys())

    def vector(text, n):
        return {g: c * (math.log(images) - math.log(max(1, documents[n - 1][g]))) for g, c in grams(text, n).items()}

    def norm(v):
        return math.sqrt(sum(x * x for x in v.values()))

    scores = []
    for several, text in zip(references, written, strict=True):
        total = 0.0
        for reference in several:
            gauss = math.exp(-((len(text.split()) - len(reference.split())) ** 2) / (2 * 36))
            for n in range(1, 5):
                a, b = vector(text, n), vector(reference, n)
                dot = sum(min(a[g], b.get(g, 0)) * b.get(g, 0) for g in a)
                if norm(a) and norm(b):
                    total += gauss * dot / (norm(a) * norm(b)) / 4
        scores.append(100 * 10 * total / len(several))
    return scores


@settings(max_examples=40)
@given(sets)
def test_scores_equal_their_definitions(several):
    references, written = [list(refs) for refs, _ in several], [text for _, text in several]
    scores = plain_scores(references, written)
    overall = {metric: value[0] for metric, value in scores.overall().items()}
    assert [overall[metric] for metric in BLEU] == pytest.approx(bleu(references, written), rel=1e-6, abs=1e-9)
    assert scores.each["ROUGE-L"].tolist() == pytest.approx(
        [rouge(r, w) for r, w in zip(references, written, strict=True)]
    )
    assert scores.each["CIDEr"].tolist() == pytest.approx(cider(references, written), rel=1e-6, abs=1e-6)
    assert overall["CIDEr"] == pytest.approx(scores.each["CIDEr"].mean())


def plain_scores(references, written):
    java = captioning_tokens.shutil.which
    captioning_tokens.shutil.which = lambda _: None
    try:
        return score_captions(references, written, tokenizer="plain")
    finally:
        captioning_tokens.shutil.which = java


@given(st.lists(st.integers(0, 3), min_size=3, max_size=3))
def test_weights_count_images_as_often_as_they_say(weights):
    references = [["a red disc on the left", "the red disc"], ["a dog runs"], ["blue dog on a disc"]]
    written = ["a red disc", "the dog runs on the left", "blue disc"]
    if not sum(weights):
        return
    whole = plain_scores(references, written)
    places = [place for place, times in enumerate(weights) for _ in range(times)]
    counted = {metric: value[0] for metric, value in whole.overall(np.array([weights], float)).items()}
    repeated = bleu([references[p] for p in places], [written[p] for p in places])
    assert [counted[metric] for metric in BLEU] == pytest.approx(repeated, rel=1e-6)
    assert counted["CIDEr"] == pytest.approx(np.mean([whole.each["CIDEr"][p] for p in places]))


def test_a_perfect_and_an_empty_caption(no_java):
    references = [["a red disc on the left"], ["a dog runs on the right side"]]
    scores = score_captions(references, ["A red disc, on the left!", ""], tokenizer="plain")
    assert scores.each["ROUGE-L"].tolist() == [100, 0]
    assert scores.each["CIDEr"].tolist() == pytest.approx([1000, 0])
    assert scores.each["BLEU-4"].tolist() == pytest.approx([100, 0], abs=1e-4)


def test_without_java_the_others_are_given_and_the_reason_is_said(no_java):
    scores = score_captions([["a dog"]], ["a dog"], tokenizer="plain")
    assert scores.metrics == (*BLEU, "ROUGE-L", "CIDEr")
    assert set(scores.missing) == {"METEOR", "SPICE"}
    assert "there is no `java`" in scores.missing["METEOR"]
    assert captioning_tokens.choose_tokenizer() == "plain"
    with pytest.raises(RuntimeError, match="Expected Java on the path"):
        run_java(["-version"], "")


@pytest.mark.slow
@with_java
def test_meteor_with_java_and_spice_says_which_files_it_lacks():
    references = [["a red disc on the left", "the disc"], ["two dogs run"], ["a blue square"]]
    scores = score_captions(references, ["a red disc on the left", "two dogs sleep", ""], tokenizer="ptb")
    assert scores.each["METEOR"][0] == pytest.approx(100)
    assert 0 < scores.each["METEOR"][1] < 100
    assert scores.each["METEOR"][2] == 0
    assert scores.overall()["METEOR"][0] == pytest.approx(scores.meteor)
    if "SPICE" in scores.missing:
        assert "stanford-corenlp-3.6.0" in scores.missing["SPICE"]
        assert "run once" in scores.missing["SPICE"]
    assert captioning_tokens.choose_tokenizer() == "ptb"


def test_a_metric_that_fails_is_missing_and_the_others_are_given(monkeypatch):
    def broken(truth, found):
        raise RuntimeError("Java failed with exit code 1: no memory")

    monkeypatch.setattr(captioning_scores, "unavailable_metrics", lambda: {"SPICE": "no jars"})
    monkeypatch.setattr(captioning_scores, "_meteor", broken)
    scores = score_captions([["a dog"]], ["a dog"], tokenizer="plain")
    assert scores.missing == {"SPICE": "no jars", "METEOR": "it failed: Java failed with exit code 1: no memory"}
    assert "CIDEr" in scores.metrics


@with_java
def test_java_that_fails_tells_its_last_words(tmp_path):
    with pytest.raises(RuntimeError, match="exit code 1: .*nowhere"):
        run_java(["nowhere.Main"], "")
    with (
        pytest.raises(RuntimeError, match="exit code 1: .*nowhere"),
        talk_to_java(["nowhere.Main"], folder=tmp_path) as ask,
    ):
        ask(["a line"] * 50_000, 1)


_METEOR = """#!{python}
import sys
for line in sys.stdin:
    verb, *parts = line.rstrip("\\n").split(" ||| ")
    if verb == "SCORE":
        print(len(parts) - 1, len(parts[-1].split()), flush=True)
    else:
        print(*("0.%s" % part.replace(" ", "") for part in [*parts, "9"]), sep="\\n", flush=True)
"""


def test_meteor_is_asked_for_counts_and_then_for_scores(monkeypatch, tmp_path):
    """By a program that speaks as METEOR does, which is started once."""
    (tmp_path / "java").write_text(_METEOR.format(python=sys.executable))
    (tmp_path / "java").chmod(0o755)
    monkeypatch.setattr(captioning_tokens, "find_java", lambda: str(tmp_path / "java"))
    each, overall = captioning_scores._meteor([["a", "b"], ["c"], ["d ||| e"]], ["one two", "three", ""])
    assert each.tolist() == pytest.approx([22, 11, 10])
    assert overall == pytest.approx(90)


def test_a_program_is_talked_to_line_by_line(monkeypatch, tmp_path):
    """Answers are read while the question is still being sent, and the second question goes to the same program."""
    told = "import sys\nfor n, line in enumerate(sys.stdin): print(n, line.strip(), flush=True)\nsys.exit(1)"
    monkeypatch.setattr(captioning_tokens, "find_java", lambda: sys.executable)
    with talk_to_java(["-c", told], folder=tmp_path) as ask:
        assert ask([f"line {n}" for n in range(20_000)], 20_000)[-1] == "19999 line 19999"
        assert ask(["more"], 1) == ["20000 more"]


def test_a_package_that_is_not_there_is_named(monkeypatch):
    def gone(name):
        raise ImportError(name)

    monkeypatch.setattr(captioning_tokens, "import_module", gone)
    with pytest.raises(ImportError, match=r"pip install 'pycocoevalcap>=1.2'"):
        unavailable_metrics()


WORDS = [
    ("A man's dog, isn't it?", "a man 's dog is n't it"),
    ("Two   dogs -- running...", "two dogs running"),
    ('the (left) "big" one; 3.5 m', "the -lrb- left -rrb- big one 3.5 m"),
    ("it’s at 5:30 p.m. in the U.S. café", "it 's at 5:30 p.m. in the u.s. café"),
    ("a t-shirt\nand they can't", "a t-shirt and they ca n't"),
    ("a horse 's lead, we cannot see", "a horse 's lead we can not see"),
    ("", ""),
]


@pytest.mark.parametrize("tokenizer", ["plain", pytest.param("ptb", marks=with_java)])
def test_words(tokenizer):
    captions, expected = zip(*WORDS, ("a dog", "a dog"), strict=True)
    assert tokenize(captions, tokenizer=tokenizer) == list(expected)


@with_java
@pytest.mark.skipif("CROSSGUARD_DATA" not in os.environ, reason="CROSSGUARD_DATA is not set")
def test_both_tokenizers_agree_on_real_captions():
    rows = json.loads((Path(os.environ["CROSSGUARD_DATA"]) / "flickr8k" / "test.json").read_text())
    texts = [caption for row in rows for caption in row["caption"]]
    pairs = zip(tokenize(texts, tokenizer="plain"), tokenize(texts, tokenizer="ptb"), strict=True)
    assert [pair for pair in pairs if pair[0] != pair[1]] == []


@pytest.mark.parametrize(("references", "written"), [([], []), ([["a"]], ["a", "b"]), ([["a"], []], ["a", "b"])])
def test_every_caption_needs_references(references, written):
    with pytest.raises(ValueError, match="Expected references for each"):
        score_captions(references, written, tokenizer="plain")
