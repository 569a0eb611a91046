"""Early stopping for segmentations: draw in rounds, stop an image when nearly all of its pixels are decided.

Every round has a share of alpha, the last nearly all of it (`doubling_rounds`). At the end of a round the whole image
is looked at: Holm's step-down over all its pixels at that share. The image stops when at most a given share of its
pixels is neither certified nor without hope, and what is certified at that look is what is claimed. So counts are all
the state there is: they are the counts of `certify_segmentation`, and a call that was interrupted goes on in the round
it was in.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Int64

from crossguard.certify.accumulate import add_draws
from crossguard.certify.arguments import probability, whole_number
from crossguard.certify.bounds import clopper_pearson
from crossguard.certify.counts import Counts
from crossguard.certify.decide import CountCertificate, certify_counts
from crossguard.certify.design import design_for, kinds_of
from crossguard.certify.early import GIVE_UP, required_margin
from crossguard.certify.looks import choose_seed
from crossguard.certify.sampling import evaluation_mode, pixel_votes
from crossguard.certify.segment import counted_before, image_files, image_size
from crossguard.certify.spending import doubling_rounds
from crossguard.certify.subsample import Fill
from crossguard.certify.thresholds import Scheme
from crossguard.data.samples import MultiModalSamples
from crossguard.models.base import MultiModalSegmenter
from crossguard.models.inputs import input_arrays
from crossguard.progress import Reporter, Silent
from crossguard.threat import EditKind


@dataclass(frozen=True)
class EarlySegmentation:
    """Which pixels are certified at one radius vector, and what that took.

    Attributes:
        labels: int64 [images, height, width], the smoothed labels by the votes drawn.
        certified: bool [images, height, width]; any wrong one in an image has probability at most alpha.
        draws: int64 [images], draws spent on each image.
        rounds: total draws at the end of each round; the last is the most that is spent on an image.
        alpha: per image, shared by the rounds and by the pixels.
    """

    labels: Int64[np.ndarray, "images height width"]
    certified: Bool[np.ndarray, "images height width"]
    draws: Int64[np.ndarray, " images"]
    rounds: tuple[int, ...]
    alpha: float

    @property
    def saved(self) -> float:
        """Share of the draws of a fixed number per image that were not needed, in [0, 1)."""
        return float(1 - self.draws.mean() / self.rounds[-1])


def certify_segmentation_early(
    model: MultiModalSegmenter,
    samples: MultiModalSamples,
    *,
    keep: Mapping[str, int],
    radii: Mapping[str, int],
    draws: int = 1000,
    undecided: float = 0.01,
    alpha: float = 0.001,
    seed: int | None = None,
    kind: EditKind | Mapping[str, EditKind] = "substitution",
    scheme: Scheme = "independent",
    fill: Fill = 0.0,
    batch_size: int = 4,
    device: torch.device | str = "cpu",
    folder: Path | str | None = None,
    identity: str | None = None,
    progress: Reporter | None = None,
) -> EarlySegmentation:
    """Decide for each pixel whether its smoothed label is certified at `radii`, with as few draws as that takes.

    Args:
        model: the base segmenter, as in `certify_segmentation`.
        samples: images with masks [samples, height, width].
        keep: elements kept of each modality, by its name.
        radii: elements that may be edited, by modality; one that is not named is not attacked.
        draws: the most draws to spend on an image.
        undecided: share of an image's pixels, in [0, 1], that may be left undecided when it stops; they are not
            certified. Borders of regions are never quite decided.
        alpha: probability that any pixel of an image is wrongly certified, per image.
        seed: of the masks; None: a secret one, as in `certify`.
        kind: the attacker's kind of edit, one for all modalities or by name.
        scheme: how sub-samples are drawn, as in `certify_segmentation`.
        fill: what ablated pixels become.
        batch_size: sub-samples per forward pass.
        device: where masks are drawn and the model runs.
        folder: where counts are kept, one file per image, the same as those of `certify_segmentation`.
        identity: the caller's word for which model this is, where its own state cannot be read; used with `folder`.
        progress: shows sub-samples counted.

    Raises:
        ValueError: wrong names or numbers as in `certify_segmentation`, radii that no number of draws reaches, or
            `draws` that do not reach them even with unanimous votes (the message names the number needed).
    """
    values = input_arrays(model, samples)
    height, width = image_size(values, samples)
    if not 0 <= undecided <= 1:
        raise ValueError(f"Expected `undecided` in [0, 1], but got {undecided!r}.")
    kinds = kinds_of(kind, model.modalities)
    chosen, secret = choose_seed(seed, image_files(folder, scheme))
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
        mask_size=(height, width),
    )
    names = design.names(values)
    margin = required_margin(design, kinds, radii)
    level = probability(alpha) / (height * width)
    rounds, shares = doubling_rounds(margin, whole_number(draws, "draws", least=1), level)
    vector = [radii.get(m, 0) for m in design.sizes]
    look = partial(_look, vector=vector, kinds=kinds, threshold=0.5 + margin / 2)
    found, spent = [], []
    total = len(samples) * rounds[-1]
    with evaluation_mode(model, device), (progress or Silent()).task("certify early", total=total) as task:
        for i, (place, counts) in enumerate(counted_before(model, values, design, folder, rounds[-1], identity)):
            task.advance(counts.draws)
            vote = partial(pixel_votes, model=model, values=values, names=names, image=i, design=design, task=task)
            for stop, share in zip(rounds, shares, strict=True):
                if stop < counts.draws:
                    continue  # this round did not stop the image, or there would be no more draws
                counts = add_draws(counts, vote, (0, stop), path=place, least=design.batch_size)
                certificate, still_open = look(counts, alpha=alpha * share, give_up=GIVE_UP / len(rounds))
                if still_open <= undecided:
                    break
            found.append(certificate)
            spent.append(counts.draws)
            task.advance(rounds[-1] - counts.draws)
    return EarlySegmentation(
        labels=np.stack([certificate.label for certificate in found]),
        certified=np.stack([certificate.certified[0] for certificate in found]),
        draws=np.array(spent, dtype=np.int64),
        rounds=rounds,
        alpha=alpha,
    )


def _look(
    counts: Counts,
    *,
    vector: list[int],
    kinds: tuple[str, ...],
    alpha: float,
    threshold: float,
    give_up: float,
) -> tuple[CountCertificate, float]:
    """Return the certificate of one image by its votes so far, and the share of its pixels that are undecided."""
    found = certify_counts(
        counts.votes,
        n=tuple(counts.n.values()),
        k=tuple(counts.k.values()),
        radii=[vector],
        alpha=alpha,
        kind=kinds,
        scheme=counts.scheme,
        correction="holm",
    )
    highest = clopper_pearson(np.arange(counts.draws + 1), counts.draws, give_up, side="upper")
    hopeless = highest[found.votes] < threshold
    return found, float((~found.certified[0] & ~hopeless).mean())
