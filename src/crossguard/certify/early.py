"""Early stopping: draw in rounds, stop each sample as soon as a required radius is decided, and pay for every look.

Sizes of the rounds, and the votes that certify in each, are fixed before anything is drawn, so that a wrong certificate
in any of them has probability at most alpha (`spending`). Giving a sample up early costs certificates, never the
guarantee.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Int64

from crossguard.certify.accumulate import add_draws, resume
from crossguard.certify.arguments import probability, whole_number
from crossguard.certify.bounds import clopper_pearson
from crossguard.certify.design import Ablation, Design, design_for, kinds_of
from crossguard.certify.fingerprint import fingerprint, model_fingerprint
from crossguard.certify.leaders import most_votes
from crossguard.certify.looks import choose_seed
from crossguard.certify.sampling import class_votes, evaluation_mode
from crossguard.certify.spending import Rounds, plan_rounds
from crossguard.certify.thresholds import Scheme, margins_of
from crossguard.checks import lookup
from crossguard.data.samples import MultiModalSamples
from crossguard.models.base import MultiModalClassifier
from crossguard.models.inputs import input_arrays
from crossguard.models.plain_torch import plain_torch
from crossguard.progress import Reporter, Silent
from crossguard.threat import EditKind

GIVE_UP = 0.01  # chance, over all rounds, that a sample is given up although its probability is above the threshold


@dataclass(frozen=True)
class EarlyDecision:
    """Which samples are certified at one radius vector, and what that took.

    Attributes:
        labels: int64 [samples], the smoothed labels by the votes drawn.
        certified: bool [samples], each wrong with probability at most alpha.
        draws: int64 [samples], draws spent on each sample.
        rounds: total draws at the end of each round; the last is the most that is spent on a sample.
        alpha: per sample, shared by the rounds.
    """

    labels: Int64[np.ndarray, " samples"]
    certified: Bool[np.ndarray, " samples"]
    draws: Int64[np.ndarray, " samples"]
    rounds: tuple[int, ...]
    alpha: float

    @property
    def saved(self) -> float:
        """Share of the draws of a fixed number per sample that were not needed, in [0, 1)."""
        return float(1 - self.draws.mean() / self.rounds[-1])


@plain_torch()
def certify_early(
    model: MultiModalClassifier,
    samples: MultiModalSamples,
    *,
    keep: Mapping[str, int],
    radii: Mapping[str, int],
    draws: int = 1000,
    alpha: float = 0.001,
    seed: int | None = None,
    kind: EditKind | Mapping[str, EditKind] = "substitution",
    scheme: Scheme = "independent",
    fill: Ablation | None = None,
    batch_size: int | None = None,
    device: torch.device | str = "cpu",
    folder: Path | str | None = None,
    identity: str | None = None,
    progress: Reporter | None = None,
) -> EarlyDecision:
    """Decide for each sample whether its smoothed label is certified at `radii`, with as few draws as it takes.

    Args:
        model: the base classifier, as in `certify`.
        samples: what to certify.
        keep: elements kept of each modality, by its name.
        radii: elements that may be edited, by modality; one that is not named is not attacked.
        draws: the most draws to spend on a sample.
        alpha: probability of a wrong certificate, per sample.
        seed: of the masks; None: a secret one, as in `certify`.
        kind: the attacker's kind of edit, one for all modalities or by name.
        scheme: how sub-samples are drawn, as in `certify`.
        fill: what ablated elements become, as in `certify`.
        batch_size: sub-samples per forward pass.
        device: where masks are drawn and the model runs.
        folder: where the counts of each round are kept. A call that was interrupted goes on where it stopped, and
            decides what it would have decided; under torch.distributed processes share the draws of each round.
        identity: the caller's word for which model this is, where its own state cannot be read; used with `folder`.
        progress: shows sub-samples counted.

    Raises:
        ValueError: wrong names or numbers as in `certify`, radii that no number of draws reaches, or `draws` that do
            not reach them even with unanimous votes (the message names the number needed).
    """
    folder = None if folder is None else Path(folder).expanduser()
    values, kinds = input_arrays(model, samples), kinds_of(kind, model.modalities)
    chosen, secret = choose_seed(seed, sorted(Path(folder).glob("early-*.npz")) if folder is not None else ())
    design = design_for(
        model,
        values,
        keep=keep,
        scheme=scheme,
        seed=chosen,
        secret=secret,
        fill=fill,
        batch_size=batch_size,
        device=device,
        kinds=kinds,
    )
    names = design.names(values)
    margin = required_margin(design, kinds, radii)
    schedule = plan_rounds(0.5 + margin / 2, whole_number(draws, "draws", least=1), probability(alpha))
    weights = model_fingerprint(model, values, design, kept=folder is not None, identity=identity)
    total = len(samples) * schedule.draws[-1]
    with evaluation_mode(model, device), (progress or Silent()).task("certify early", total=total) as task:

        def vote(ids: np.ndarray, start: int, stop: int) -> np.ndarray:
            ask = partial(class_votes, model=model, values=values, names=names, ids=ids, design=design, task=task)
            # Which samples are still open is a part of what these counts are of.
            source = fingerprint(weights, values, design, hashlib.sha256(ids.tobytes()).hexdigest())
            empty = design.no_votes((len(ids), len(model.classes)), source)
            path = None if folder is None else Path(folder) / design.file(f"early-{start:09d}-{stop:09d}")
            found = resume(path, empty, stop - start)
            task.advance(found.draws * len(ids))
            least = design.draws_per_batch(len(ids))
            return np.asarray(add_draws(found, ask, (start, stop), path=path, least=least).votes)

        found = decide_in_rounds(
            vote, len(samples), len(model.classes), threshold=0.5 + margin / 2, alpha=alpha, rounds=schedule
        )
        task.advance(total - int(found.draws.sum()), note=f"{100 * found.saved:.0f} % of the draws saved")
    return found


def required_margin(design: Design, kinds: tuple[str, ...], radii: Mapping[str, int]) -> float:
    """Return the lead p_A - p_B that a radius vector asks for.

    Raises:
        ValueError: an unknown modality, a radius that is not whole or > n, or a lead that no number of draws proves.
    """
    for modality in radii:
        lookup(design.sizes, modality, what="modality in `radii`")
    margins = margins_of(design.scheme, tuple(design.sizes.values()), tuple(design.keep.values()), kinds)
    margin = float(margins.at([[radii.get(m, 0) for m in design.sizes]])[0])
    if margin >= 1:
        raise ValueError(f"Expected radii within reach of some number of draws, but {dict(radii)} are of none.")
    return margin


def decide_in_rounds(
    vote: Callable[[np.ndarray, int, int], np.ndarray],
    samples: int,
    labels: int,
    *,
    threshold: float,
    alpha: float,
    rounds: Rounds,
) -> EarlyDecision:
    """Draw round by round for the samples that are not decided yet.

    Args:
        vote: gives the votes [chosen, labels] of the draws [start, stop) for chosen samples.
        samples: number of samples.
        labels: number of labels.
        threshold: tau, what p_A must exceed.
        alpha: per sample.
        rounds: of `plan_rounds`.
    """
    votes = np.zeros((samples, labels), dtype=np.int64)
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
