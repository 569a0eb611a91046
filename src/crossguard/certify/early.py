"""Early stopping: draw in rounds, stop each sample as soon as a required radius is decided, and pay for every look.

Sizes of the rounds, and the votes that certify in each, are fixed before anything is drawn, so that a wrong certificate
in any of them has probability at most alpha (`spending`). Giving a sample up early costs certificates, never the
guarantee.

Of a segmentation every round has a share of alpha, the last nearly all of it (`doubling_rounds`). At the end of a round
the whole image is looked at: Holm's step-down over all its pixels at that share. The image stops when at most a given
share of its pixels is neither certified nor without hope, and what is certified at that look is what is claimed. So
counts are all the state there is: they are the counts of `certify_segmentation`, and a call that was interrupted goes
on in the round it was in.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64

from crossguard.certify.accumulate import add_draws, resume
from crossguard.certify.arguments import probability
from crossguard.certify.bounds import clopper_pearson
from crossguard.certify.counts import Counts
from crossguard.certify.decide import CountCertificate
from crossguard.certify.design import Design, design_for
from crossguard.certify.elements import Radii, certified_elements
from crossguard.certify.fingerprint import fingerprint, model_fingerprint
from crossguard.certify.leaders import most_votes
from crossguard.certify.options import CertifyOptions
from crossguard.certify.rehearsal import check_answers
from crossguard.certify.sampling import Asked, class_votes, evaluation_mode, pixel_votes
from crossguard.certify.segment import IMAGE, PER_PASS, counted_before, image_size
from crossguard.certify.spending import Rounds, doubling_rounds, plan_rounds
from crossguard.checks import lookup
from crossguard.data.samples import MultiModalSamples
from crossguard.models.base import MultiModalClassifier, MultiModalSegmenter
from crossguard.models.inputs import input_arrays
from crossguard.models.plain_torch import plain_torch
from crossguard.progress import Silent

GIVE_UP = 0.01  # chance, over all rounds, that a sample is given up although its probability is above the threshold
OTHERS = ("design", "bound", "selection_draws")
"""Options that early stopping does not take."""


@dataclass(frozen=True)
class EarlyDecision:
    """Which samples, or pixels of images, are certified at one radius vector, and what that took.

    Attributes:
        labels: int64 [samples] or [images, height, width], the smoothed labels by the votes drawn.
        certified: bool, as `labels`; any wrong one of a sample has probability at most alpha.
        draws: int64 [samples], draws spent on each sample.
        rounds: total draws at the end of each round; the last is the most that is spent on a sample.
        alpha: per sample, shared by the rounds and by the pixels.
    """

    labels: Int64[np.ndarray, "samples ..."]
    certified: Bool[np.ndarray, "samples ..."]
    draws: Int64[np.ndarray, " samples"]
    rounds: tuple[int, ...]
    alpha: float

    @property
    def saved(self) -> float:
        """Share of the draws of a fixed number per sample that were not needed, in [0, 1)."""
        return float(1 - self.draws.mean() / self.rounds[-1])


@plain_torch()
def certify_early(
    model: MultiModalClassifier, samples: MultiModalSamples, *, radii: Radii, **options: Any
) -> EarlyDecision:
    """Decide for each sample whether its smoothed label is certified at `radii`, with as few draws as it takes.

    With a `folder` the counts of each round are kept. A call that was interrupted goes on where it stopped, and
    decides what it would have decided; several processes share the draws of each round.

    Args:
        model: the base classifier, as in `certify`.
        samples: what to certify.
        radii: elements that may be edited, by modality, and L2 distances of noisy ones; one that is not named is not
            attacked.
        options: by the names of `CertifyOptions`, but `design`, `bound` and `selection_draws`; `draws` is the most that
            is spent on a sample.

    Raises:
        ValueError: wrong names or numbers as in `certify`, radii that no number of draws reaches, or `draws` that do
            not reach them even with unanimous votes (the message names the number needed).
    """
    how = CertifyOptions.read(options, "certify_early", without=OTHERS)
    values = input_arrays(model, samples)
    design = design_for(model, values, how, names=("early-",))
    threshold = 0.5 + required_margin(design, radii) / 2
    schedule = plan_rounds(threshold, design.draws, probability(how.alpha))
    asked = Asked(model, values, design)
    weights = model_fingerprint(asked, how)
    total = len(samples) * schedule.draws[-1]
    with evaluation_mode(model, design.device), (how.progress or Silent()).task("certify early", total=total) as task:

        def vote(ids: np.ndarray, start: int, stop: int) -> np.ndarray:
            # Which samples are still open is a part of what these counts are of.
            source = fingerprint(weights, values, design, hashlib.sha256(ids.tobytes()).hexdigest())
            empty = design.no_votes((len(ids), len(model.classes)), source)
            path = None if how.place is None else how.place / design.file(f"early-{start:09d}-{stop:09d}")
            found = resume(path, empty, stop - start)
            task.advance(found.draws * len(ids))
            least, ask = design.draws_per_batch(len(ids)), partial(class_votes, asked=asked, ids=ids, task=task)
            return np.asarray(add_draws(found, ask, (start, stop), path=path, least=least).votes)

        check_answers(asked)
        shape = (len(samples), len(model.classes))
        found = decide_in_rounds(vote, shape, threshold=threshold, alpha=how.alpha, rounds=schedule)
        task.advance(total - int(found.draws.sum()), note=f"{100 * found.saved:.0f} % of the draws saved")
    return found


def required_margin(design: Design, radii: Radii) -> float:
    """Return the lead p_A - p_B that a radius vector asks for.

    Raises:
        ValueError: an unknown modality, a radius that is not whole or > n, or a lead that no number of draws proves.
    """
    empty = design.no_votes((0, 2), "")
    for modality in radii:
        lookup(design.kinds, modality, what="modality in `radii`")
    margin = float(empty.margins(design.kinds).at([[radii.get(m, 0) for m in empty.modalities]])[0])
    if margin >= 1:
        raise ValueError(f"Expected radii within reach of some number of draws, but {dict(radii)} are of none.")
    return margin


def decide_in_rounds(
    vote: Callable[[np.ndarray, int, int], np.ndarray],
    shape: tuple[int, int],
    *,
    threshold: float,
    alpha: float,
    rounds: Rounds,
) -> EarlyDecision:
    """Draw round by round for the samples that are not decided yet.

    Args:
        vote: gives the votes [chosen, labels] of the draws [start, stop) for chosen samples.
        shape: numbers of samples and of labels.
        threshold: tau, what p_A must exceed.
        alpha: per sample.
        rounds: of `plan_rounds`.
    """
    samples = shape[0]
    votes = np.zeros(shape, dtype=np.int64)
    certified, draws = np.zeros(samples, dtype=bool), np.zeros(samples, dtype=np.int64)
    open_ids, start = np.arange(samples), 0
    for number, (stop, fewest) in enumerate(zip(rounds.draws, rounds.votes, strict=True)):
        votes[open_ids] += vote(open_ids, start, stop)
        draws[open_ids] = stop
        _, top = most_votes(votes[open_ids])
        sure = top >= fewest
        certified[open_ids[sure]] = True
        later = [needed - more + stop for more, needed in zip(rounds.draws, rounds.votes, strict=True)][number + 1 :]
        hopeless = clopper_pearson(top, stop, GIVE_UP / len(rounds.draws), side="upper") < threshold
        hopeless |= top < min(later, default=0)  # not even unanimous votes would do
        open_ids, start = open_ids[~sure & ~hopeless], stop
        if not len(open_ids):
            break
    return EarlyDecision(most_votes(votes)[0], certified, draws, rounds.draws, alpha)


@plain_torch()
def certify_segmentation_early(
    model: MultiModalSegmenter,
    samples: MultiModalSamples,
    *,
    radii: Radii,
    undecided: float = 0.01,
    **options: Any,
) -> EarlyDecision:
    """Decide for each pixel whether its smoothed label is certified at `radii`, with as few draws as that takes.

    Args:
        model: the base segmenter, as in `certify_segmentation`.
        samples: images with masks [samples, height, width].
        radii: as `certify_early`.
        undecided: share of an image's pixels, in [0, 1], that may be left undecided when it stops; they are not
            certified. Borders of regions are never quite decided.
        options: as `certify_early`; 1,000 draws an image at most where no number is given. The counts in a `folder` are
            those of `certify_segmentation`.

    Raises:
        ValueError: wrong names or numbers as in `certify_segmentation`, radii that no number of draws reaches, or
            `draws` that do not reach them even with unanimous votes (the message names the number needed).
    """
    how = CertifyOptions.read(options, "certify_segmentation_early", without=(*OTHERS, "lengths"))
    values = input_arrays(model, samples)
    size = image_size(values, samples)
    if not 0 <= undecided <= 1:
        raise ValueError(f"Expected `undecided` in [0, 1], but got {undecided!r}.")
    design = design_for(model, values, how, names=(IMAGE,), mask_size=size, batch_size=PER_PASS)
    margin = required_margin(design, radii)
    rounds, shares = doubling_rounds(margin, design.draws, probability(how.alpha) / (size[0] * size[1]))
    asked = Asked(model, values, design)
    look = partial(_look, radii=radii, kinds=design.kinds, threshold=0.5 + margin / 2)
    found, spent = [], []
    total = len(samples) * rounds[-1]
    with evaluation_mode(model, design.device), (how.progress or Silent()).task("certify early", total=total) as task:
        check_answers(asked)
        for i, (place, counts) in enumerate(counted_before(asked, how, rounds[-1])):
            task.advance(counts.draws)
            vote = partial(pixel_votes, asked=asked, image=i, task=task)
            for stop, share in zip(rounds, shares, strict=True):
                if stop < counts.draws:
                    continue  # this round did not stop the image, or there would be no more draws
                counts = add_draws(counts, vote, (0, stop), path=place, least=design.batch_size)
                certificate, still_open = look(counts, alpha=how.alpha * share, give_up=GIVE_UP / len(rounds))
                if still_open <= undecided:
                    break
            found.append(certificate)
            spent.append(counts.draws)
            task.advance(rounds[-1] - counts.draws)
    return EarlyDecision(
        labels=np.stack([certificate.label for certificate in found]),
        certified=np.stack([certificate.certified[0] for certificate in found]),
        draws=np.array(spent, dtype=np.int64),
        rounds=rounds,
        alpha=how.alpha,
    )


def _look(
    counts: Counts,
    *,
    radii: Radii,
    kinds: Mapping[str, str],
    alpha: float,
    threshold: float,
    give_up: float,
) -> tuple[CountCertificate, float]:
    """Return the certificate of one image by its votes so far, and the share of its pixels that are undecided."""
    found = certified_elements(counts, [radii], kinds=kinds, alpha=alpha, correction="holm")
    highest = clopper_pearson(np.arange(counts.draws + 1), counts.draws, give_up, side="upper")
    hopeless = highest[found.votes] < threshold
    return found, float((~found.certified[0] & ~hopeless).mean())
