"""The attack that a defence must be judged by: on the very score the task ranks by, against the whole gallery."""

from collections.abc import Callable, Sequence
from typing import ClassVar, get_args

import numpy as np
import torch

from crossguard.attacks.ascent import Pixels
from crossguard.attacks.base import ANY_BALL, Attack
from crossguard.attacks.budget import Budgets
from crossguard.attacks.encode import encode_images, encode_texts
from crossguard.attacks.gallery import Gallery, InMemory, Keep, ReadSet, Whole
from crossguard.attacks.gallery_search import Effort, GallerySearch
from crossguard.attacks.gallery_texts import KnownSource
from crossguard.attacks.goals import Goal, climb_by_slices
from crossguard.attacks.ladder import FIRST
from crossguard.attacks.objectives import Objective
from crossguard.attacks.parts import Parts
from crossguard.attacks.sources import SourceLike, make_source
from crossguard.attacks.swap import Order
from crossguard.checks import check_choice
from crossguard.data import PairBatch
from crossguard.models import FusionModel, VisionLanguageModel

STEPS, SAMPLE_STEPS = 10, 50
"""By default: on images against texts; on sensors and scenes, for each objective."""
Texts = tuple[str, ...]


class Adaptive(Attack):
    """Ascent on one direction's losses at a time, then a choice of the worst set among all that was found.

    A stage attacks the texts of every batch under the images as they stand, the next one the images against the texts,
    and so on, `rounds` times. Negatives are the whole gallery, as the stage before left it: how the data are cut into
    batches plays no part. Images are moved by Auto-PGD, once to raise the losses of images that ask for texts (their
    cross-entropy and their margin take turns), once those of texts that ask for images (the smoothly counted texts
    that are lost, own and others'; with restarts also their cross-entropy and margin); an image moves no more once all
    that it can make fail does. All that was found are candidates, and out of them three sets are chosen by coordinate
    ascent on the rank of all queries (K = 1): one that is worst for images that ask for texts, one for texts that ask
    for images, and one for both ("shared"). Called with a batch, the attack gives the last one.

    More rounds, steps, restarts or variants never leave more: they only add candidates, and a set is given up only for
    one that leaves no more of the whole gallery right.

    Sensors and scenes have no gallery: all objectives of the task are raised in turn by runs of ten steps, each from
    the worst so far, and `steps` and `restarts` alone play a part.

    Args:
        rounds: of texts and images.
        steps: of Auto-PGD for each start and direction, at least 5; taken in runs of 5, 5, 10, 20, 40, ..., as many as
            fit; default: 10, of sensors and scenes 50 for each objective.
        restarts: random starts in the first round; later, one begins where the images stand.
        variants: forms of a text that may be chosen: 1, 8, 64, ...; others count as the next smaller one.
        source: as for `WordSwap`.
        order: as for `WordSwap`.
        objectives: more losses to raise, of images (`image_loss`) and of texts (`text_score`): name the defence's own.
            "distance" is that of FARE and LEAF, "contrastive" that of TeCoA, MMCoA, MAT and MAT+, among the batch.

    Raises:
        ValueError: an option out of range.
    """

    name = "adaptive"
    uses = frozenset({"image", "text"})
    takes = ANY_BALL
    masks: ClassVar[bool] = True
    ranks_galleries = True

    def __init__(
        self,
        *,
        rounds: int = 2,
        steps: int | None = None,
        restarts: int = 1,
        variants: int = 8,
        source: SourceLike = "thesaurus",
        order: str = "all",
        objectives: Sequence[str] = (),
    ) -> None:
        self.sample_steps, steps = steps or SAMPLE_STEPS, STEPS if steps is None else steps
        for option, value, least in (
            ("rounds", rounds, 1),
            ("steps", steps, FIRST),
            ("restarts", restarts, 1),
            ("variants", variants, 1),
        ):
            if value < least:
                raise ValueError(f"Expected `{option}` >= {least}, but got {value}.")
        self.rounds, self.steps, self.restarts, self.variants = rounds, steps, restarts, variants
        self.order: Order = check_choice(order, get_args(Order), "order")
        self.source = make_source(source)
        self._known = KnownSource(self.source)
        self.objectives: tuple[Objective, ...] = tuple(
            check_choice(objective, get_args(Objective), "objectives") for objective in objectives
        )

    def run(
        self,
        model: VisionLanguageModel,
        batch: PairBatch,
        *,
        budget: Budgets,
        seed: int,
        gallery: Gallery | None = None,
    ) -> tuple[Pixels, Texts]:
        """Return the shared set; the batch, with what `gallery` adds, is the whole gallery."""
        read = self.search(model, whole_of(model, batch, gallery), budget=budget, seed=seed)
        pixels, texts = read("shared", 0)
        return pixels.to(batch.pixels.device), texts

    def run_samples(self, goal: Goal) -> Parts:
        """Attack sensors and scenes."""
        return climb_by_slices(goal, steps=self.sample_steps, restarts=self.restarts)

    def search(
        self,
        model: VisionLanguageModel,
        whole: Whole,
        *,
        budget: Budgets,
        seed: int,
        keep: Keep | None = None,
        advance: Callable[[int], None] = lambda count: None,
    ) -> ReadSet:
        """Attack a whole gallery, see `GalleryAttack`."""
        search = GallerySearch(
            model,
            whole,
            effort=Effort(self.rounds, self.steps, self.restarts, power_of_eight(self.variants)),
            budget=budget,
            seed=seed,
            objectives=self.objectives,
            source=self._known,
            order=self.order,
            keep=keep or InMemory(),
            advance=advance,
        )
        with torch.autocast(whole.images.device.type, enabled=False):  # steps of images alone are in lower precision
            return search.run()

    def stages(self, budget: Budgets) -> int:
        """Return how often a search goes through all batches."""
        return self.rounds * budget.moves_images + (self.rounds + 1) * bool(budget.words)


def power_of_eight(number: int) -> int:
    """Return the largest power of eight that is no larger.

    Example:
        >>> [power_of_eight(number) for number in (1, 7, 8, 100)]
        [1, 1, 8, 64]
    """
    return 8 ** ((number.bit_length() - 1) // 3)


def whole_of(model: VisionLanguageModel, batch: PairBatch, gallery: Gallery | None) -> Whole:
    """Return one batch, and the negatives around it, as a gallery of one batch.

    Raises:
        ValueError: a fusion model, and a gallery without texts or pixels to match.
    """
    images, texts = encode_images(model, batch.pixels), encode_texts(model, batch.texts)
    places = (torch.arange(len(images), device=images.device), torch.arange(len(texts), device=images.device))
    clean = batch.pixels.cpu()
    if gallery is None:
        return Whole(images, texts, batch.texts, batch.links, lambda ids: clean[ids], [places], lambda _: batch)
    if gallery.images.shape[1] != images.shape[1]:
        raise ValueError(
            f"Expected a gallery of {images.shape[1]} dimensions, as the model's, but got {gallery.images.shape[1]}."
        )
    others, read = list(gallery.strings), gallery.pixels
    if isinstance(model, FusionModel) and (not others or read is None):
        raise ValueError("Expected a gallery with `strings` and `pixels` for a fusion model, which matches them.")

    def pixels(ids: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> Pixels:
        own = ids < len(clean)
        found = torch.empty(len(ids), *clean.shape[1:])
        found[torch.from_numpy(own)] = clean[ids[own]]
        if read is not None and not own.all():
            found[torch.from_numpy(~own)] = read(ids[~own] - len(clean)).cpu()
        return found

    links = gallery.links.to(batch.links.device)
    shift = torch.tensor([len(images), len(texts)], device=links.device)
    return Whole(
        torch.cat([images, gallery.images.to(images)]),
        torch.cat([texts, gallery.texts.to(texts)]),
        [*batch.texts, *(others or [f"\0{j}" for j in range(len(gallery.texts))])],
        torch.cat([batch.links, links + shift]),
        pixels,
        [places],
        lambda _: batch,
    )
