"""BLEU, METEOR, ROUGE-L, CIDEr and SPICE of written captions, by pycocoevalcap; what cannot be computed says why."""

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from crossguard.evaluate.captioning_tokens import (
    UTF8,
    Tokenizer,
    find_java,
    package,
    package_folder,
    talk_to_java,
    tokenize,
)

BLEU = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4")
CAPTION_METRICS = (*BLEU, "METEOR", "ROUGE-L", "CIDEr", "SPICE")
SPICE_JARS = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
FETCH = "python -c 'import pycocoevalcap.spice.get_stanford_models as m; m.get_stanford_models()'"

Lines = Sequence[str]
ManyLines = Sequence[Sequence[str]]


@dataclass(frozen=True)
class CaptionScores:
    """Scores of the captions of one data set, all times 100, as they are published.

    Args:
        each: by metric, float64 [images]: the score of every image alone.
        counts: what BLEU over all images is made of, float64 [images, 10]: length of the caption, length of the
            reference next to it, then for n = 1..4 the n-grams found in a reference and all n-grams.
        meteor: METEOR's own score of the whole data set, which is not the mean over images; None without METEOR.
        missing: by metric, why it could not be computed.
        tokenizer: how captions were cut into words.
    """

    each: Mapping[str, Float64[np.ndarray, " images"]]
    counts: Float64[np.ndarray, "images 10"]
    meteor: float | None
    missing: Mapping[str, str]
    tokenizer: Tokenizer

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that could be computed, in their usual order."""
        return tuple(metric for metric in CAPTION_METRICS if metric in self.each)

    def overall(
        self, weights: Float64[np.ndarray, "draws images"] | None = None
    ) -> dict[str, Float64[np.ndarray, " draws"]]:
        """Return every metric over the whole data set.

        BLEU follows from summed counts; ROUGE-L, CIDEr and SPICE are means over images. METEOR is its own score of the
        whole, moved as the mean over images moves with the weights.

        Args:
            weights: how often each image counts, one row per draw (of a bootstrap); None: each once.
        """
        if weights is None:
            weights = np.ones((1, len(self.counts)))
        share = weights / weights.sum(axis=1, keepdims=True)
        bleu = bleu_of_counts(weights @ self.counts)
        found = {metric: bleu[:, place] for place, metric in enumerate(BLEU)}
        found |= {metric: share @ self.each[metric] for metric in self.metrics if metric not in BLEU}
        if self.meteor is not None:
            found["METEOR"] = found["METEOR"] - self.each["METEOR"].mean() + self.meteor
        return {metric: found[metric] for metric in self.metrics}


def unavailable_metrics() -> dict[str, str]:
    """Return, by metric, why it cannot be computed here; empty when all can.

    Raises:
        ImportError: pycocoevalcap is not installed.
    """
    library = package_folder() / "spice" / "lib"
    if find_java() is None:
        return dict.fromkeys(("METEOR", "SPICE"), "it needs Java, and there is no `java` on the path")
    absent = [jar for jar in SPICE_JARS if not (library / jar).is_file()]
    if absent:
        return {
            "SPICE": f"it needs Stanford CoreNLP 3.6.0, but {' and '.join(absent)} are not in {library}; where there "
            f"is a network, run once: {FETCH}"
        }
    return {}


def score_captions(references: ManyLines, written: Lines, *, tokenizer: Tokenizer) -> CaptionScores:
    """Score one caption per image against the image's references.

    Args:
        references: per image at least one caption.
        written: one caption per image; may be empty, which matches nothing.
        tokenizer: see `captioning_tokens.tokenize`; scores from different ones are not to be compared.

    Raises:
        ValueError: other numbers of images, no image, or an image without reference.
        ImportError: pycocoevalcap is not installed.
    """
    if not written or len(references) != len(written) or not all(references):
        raise ValueError(
            f"Expected references for each of {len(written)} >= 1 captions, but got {len(references)} images with "
            f"references, {sum(not several for several in references)} of them with none."
        )
    missing = unavailable_metrics()
    flat = [caption for several in references for caption in several]
    tokens = tokenize([*flat, *written], tokenizer=tokenizer)
    ends = np.cumsum([len(several) for several in references])
    truth = [tokens[stop - len(several) : stop] for stop, several in zip(ends, references, strict=True)]
    found = tokens[len(flat) :]
    counts, bleu = _bleu(truth, found)
    each = {metric: 100 * bleu[:, place] for place, metric in enumerate(BLEU)}
    each |= {"ROUGE-L": 100 * _rouge(truth, found), "CIDEr": 100 * _cider(truth, found)}
    meteor = None
    if "METEOR" not in missing:
        try:
            each["METEOR"], meteor = _meteor(truth, found)
        except (RuntimeError, OSError, ValueError) as error:
            missing["METEOR"] = f"it failed: {error}"
    if "SPICE" not in missing:
        try:
            each["SPICE"] = _spice(truth, found)
        except (RuntimeError, OSError, ValueError) as error:
            missing["SPICE"] = f"it failed: {error}"
    return CaptionScores(each, counts, meteor, missing, tokenizer)


class References:
    """What people wrote for all pictures of a data set, to hold some captions against as they are written.

    Args:
        references: per image at least one caption.
        tokenizer: see `captioning_tokens.tokenize`.
    """

    def __init__(self, references: ManyLines, *, tokenizer: Tokenizer) -> None:
        ends = np.cumsum([len(several) for several in references])
        tokens = tokenize([caption for several in references for caption in several], tokenizer=tokenizer)
        self._truth = [tokens[stop - len(several) : stop] for stop, several in zip(ends, references, strict=True)]
        self._tokenizer = tokenizer

    def cider(self, written: Mapping[int, str]) -> Float64[np.ndarray, " captions"]:
        """Return CIDEr (times 100) of the captions of some images, words weighed as in the whole data set."""
        found = [""] * len(self._truth)
        for image, caption in zip(written, tokenize(list(written.values()), tokenizer=self._tokenizer), strict=True):
            found[image] = caption
        return 100 * _cider(self._truth, found)[list(written)]


def bleu_of_counts(counts: Float64[np.ndarray, "sets 10"]) -> Float64[np.ndarray, "sets 4"]:
    """Return BLEU-1 to BLEU-4 in percent (Papineni et al., 2002) of summed counts, see `CaptionScores.counts`."""
    length, reference = counts[:, :1], counts[:, 1:2]
    right, every = counts[:, 2::2], counts[:, 3::2]
    with np.errstate(divide="ignore", invalid="ignore"):
        # The tiny terms are those of the COCO caption evaluation, which keep the logarithm of nothing finite.
        precision = np.log((right + 1e-15) / (every + 1e-9)).cumsum(axis=1) / np.arange(1, 5)
        brevity = np.minimum(0.0, 1 - (reference + 1e-9) / (length + 1e-15))
    found: np.ndarray = 100 * np.exp(precision + brevity)
    return found


def _bleu(truth: ManyLines, found: Lines) -> tuple[np.ndarray, np.ndarray]:
    scorer = package("bleu.bleu_scorer").BleuScorer(n=4)
    for several, caption in zip(truth, found, strict=True):
        scorer += (caption, list(several))
    _, each = scorer.compute_score(option="closest", verbose=0)
    rows = []
    for one in scorer.ctest:
        nearest = min((abs(length - one["testlen"]), length) for length in one["reflen"])[1]
        pairs = zip(one["correct"], one["guess"], strict=True)
        rows.append([one["testlen"], nearest, *(value for pair in pairs for value in pair)])
    return np.array(rows, dtype=np.float64), np.array(each, dtype=np.float64).T


def _rouge(truth: ManyLines, found: Lines) -> np.ndarray:
    return np.array(package("rouge.rouge").Rouge().compute_score(*_by_image(truth, found))[1], dtype=np.float64)


def _cider(truth: ManyLines, found: Lines) -> np.ndarray:
    return np.array(package("cider.cider").Cider().compute_score(*_by_image(truth, found))[1], dtype=np.float64)


def _meteor(truth: ManyLines, found: Lines) -> tuple[np.ndarray, float]:
    """METEOR 1.5 (Denkowski and Lavie, 2014), of every image and overall: first it counts matches, then it scores."""
    program = ["-Xmx2G", *UTF8, "-jar", "meteor-1.5.jar", "-", "-", "-stdio", "-l", "en", "-norm"]
    lines = [
        f"SCORE ||| {' ||| '.join(_without_bars(line) for line in several)} ||| {_without_bars(caption)}"
        for several, caption in zip(truth, found, strict=True)
    ]
    with talk_to_java(program, folder=package_folder() / "meteor") as ask:  # it reads its tables for seconds, once
        counts = ask(lines, len(found))
        scores = ask([f"EVAL ||| {' ||| '.join(counts)}"], len(found) + 1)
    return 100 * np.array(scores[:-1], dtype=np.float64), 100 * float(scores[-1])


def _without_bars(line: str) -> str:
    return line.replace("|||", " ").replace("  ", " ")


def _spice(truth: ManyLines, found: Lines) -> np.ndarray:
    """SPICE (Anderson et al., 2016), through pycocoevalcap's own wrapper."""
    try:
        each = package("spice.spice").Spice().compute_score(*_by_image(truth, found))[1]
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"Java failed with exit code {error.returncode} (SPICE 1.0 was made for Java 8)") from error
    # A caption without any object has no score; it matches nothing.
    return 100 * np.nan_to_num(np.array([one["All"]["f"] for one in each], dtype=np.float64))


def _by_image(truth: ManyLines, found: Lines) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    return (
        {place: list(several) for place, several in enumerate(truth)},
        {place: [caption] for place, caption in enumerate(found)},
    )
