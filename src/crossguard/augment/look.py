"""Measuring all samples under a reference model, source by source, and the originals beside them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64

from crossguard.augment.base import Side, dice
from crossguard.augment.features import embed_pictures, embed_texts
from crossguard.augment.measures import Measures, alignment, diversity, frechet_distance
from crossguard.augment.samples import Sample
from crossguard.data import OneToManyPairs
from crossguard.models import VisionLanguageModel
from crossguard.progress import Reporter
from crossguard.world import ALONE, World

_OTHER: dict[Side, Side] = {"images": "texts", "texts": "images"}


@dataclass(frozen=True)
class Look:
    """What a reference model says of the originals and the samples.

    Args:
        alignment: float [samples], mean cosine of each sample with the originals it was made for.
        originals: measures of the originals, texts and images.
        sources: diversity and gap of every source.
    """

    alignment: Float[np.ndarray, " samples"]
    originals: tuple[Measures, Measures]
    sources: Mapping[str, tuple[float | None, float | None]]


def look(
    pairs: OneToManyPairs,
    samples: Sequence[Sample],
    model: VisionLanguageModel,
    *,
    seed: int,
    batch_size: int,
    progress: Reporter,
    world: World = ALONE,
) -> Look:
    """Embed everything once and measure it.

    Args:
        pairs: the originals.
        samples: what was made from them.
        model: the reference, used where it is.
        seed: of the random halves of the originals.
        batch_size: pictures at a time.
        progress: where progress goes.
        world: the processes that share the embedding.
    """
    ours = {side: np.array([n for n, s in enumerate(samples) if s.gives == side], dtype=np.int64) for side in _OTHER}
    pictures = [*pairs.images, *(s.picture for s in samples if s.picture is not None)]
    texts = [*pairs.texts, *(s.text for s in samples if s.text is not None)]
    of_pictures = embed_pictures(model, pictures, batch_size=batch_size, progress=progress, world=world)
    of_texts = embed_texts(model, texts, progress=progress, world=world)
    originals: dict[Side, Float[np.ndarray, "items dim"]] = {
        "images": of_pictures[: len(pairs.images)],
        "texts": of_texts[: len(pairs.texts)],
    }
    made: dict[Side, Float[np.ndarray, "items dim"]] = {
        "images": of_pictures[len(pairs.images) :],
        "texts": of_texts[len(pairs.texts) :],
    }
    aligned = np.zeros(len(samples))
    spread: dict[str, tuple[float | None, float | None]] = {}
    for side, other in _OTHER.items():
        mine = [samples[n] for n in ours[side]]
        if not mine:
            continue
        aligned[ours[side]] = alignment(made[side], originals[other], partners(pairs, mine))
        for source in dict.fromkeys(s.source for s in mine):
            rows = np.array([n for n, s in enumerate(mine) if s.source == source], dtype=np.int64)
            items = np.array([mine[n].item for n in rows], dtype=np.int64)
            spread[source] = (
                diversity(made[side][rows], items),
                frechet_distance(made[side][rows], originals[side]),
            )
    return Look(
        aligned,
        (_of_originals(pairs, originals, "texts", seed), _of_originals(pairs, originals, "images", seed)),
        spread,
    )


def partners(pairs: OneToManyPairs, samples: Sequence[Sample]) -> Int64[np.ndarray, "pairs 2"]:
    """Return (sample, original of the other side) for all originals that each sample was made for.

    Args:
        pairs: the originals.
        samples: samples of one side.
    """
    rows: list[tuple[int, int]] = []
    for row, sample in enumerate(samples):
        same, other = (sample.texts, sample.images) if sample.gives == "texts" else (sample.images, sample.texts)
        inherited = pairs.images_of if sample.gives == "texts" else pairs.texts_of
        found = dict.fromkeys([*other, *(int(p) for parent in same for p in inherited(parent))])
        rows += [(row, partner) for partner in found]
    return np.array(rows, dtype=np.int64).reshape(-1, 2)


def _of_originals(
    pairs: OneToManyPairs, features: Mapping[Side, Float[np.ndarray, "items dim"]], side: Side, seed: int
) -> Measures:
    own, other = (0, 1) if side == "images" else (1, 0)
    mine = features[side]
    links = pairs.links[:, [own, other]]
    order = list(range(len(mine)))
    dice(seed, "halves", side).shuffle(order)
    half = len(mine) // 2
    return Measures(
        source="originals",
        gives=side,
        made=len(mine),
        alignment=float(alignment(mine, features[_OTHER[side]], links).mean()),
        diversity=diversity(mine[links[:, 0]], links[:, 1]),
        gap=frechet_distance(mine[order[:half]], mine[order[half : 2 * half]]),
    )
