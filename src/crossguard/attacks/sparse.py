"""The sparse attack: a few elements of any values (patches, pixels, time steps), or one rectangle, and a few words."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import ClassVar, get_args

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from crossguard.attacks.ball import is_empty
from crossguard.attacks.base import Attack, Takes
from crossguard.attacks.budget import Budgets, patch_grid
from crossguard.attacks.encode import encode_unit_texts
from crossguard.attacks.goals import Goal
from crossguard.attacks.objectives import mean_partner, misalignment
from crossguard.attacks.parts import Parts, PartsLoss, as_elements, choose, from_elements
from crossguard.attacks.placement import Placement, SparseSearch, sites_of, sparse_ascent
from crossguard.attacks.sources import SourceLike
from crossguard.attacks.swap import WordSwap
from crossguard.checks import check_choice
from crossguard.data import PairBatch
from crossguard.models import VisionLanguageModel
from crossguard.models.patches import from_patches, to_patches
from crossguard.threat import Elements, Patch, WordEdits


class Sparse(Attack):
    """At most r_1 elements of every image take any values, and at most r_2 words of every text are substituted.

    This is the threat model of certificates by sub-sampling: `ThreatModel(image=Elements(r_1), text=WordEdits(r_2))`,
    where an element of an image is one of the model's own patches (`patch_grid`); with `Patch(height, width)` it is one
    rectangle, anywhere. Captions are attacked under the clean images, images against their attacked captions, captions
    once more from the originals under the attacked images. What is maximised is minus the mean cosine with the own
    partners, so that results do not depend on the batch.

    Elements of sensors and scenes are time steps, pixels across their channels, or features; the objectives of the task
    are raised in turn, and the worst of each sample is kept.

    Args:
        placement: "greedy" tries elements one at a time and takes the best one each turn; "gradient" takes those of the
            largest first-order gain, a share of the budget per round (much faster). Default: greedy for images against
            texts, gradient for sensors and scenes.
        shortlist: greedy tries only so many elements per turn, ranked by first-order gain; 0 tries all of them.
        rounds: of gradient placement.
        trials: random contents that greedy tries per element, beside the ends of the range and along the gradient.
        steps: Auto-PGD steps on the values of all chosen elements after each turn; default: 10, for sensors and scenes
            20.
        patches_per_forward: patches of images tried in one forward pass.
        source: candidate source of word-swap, see `make_source`.
        order: visits of word-swap, see `swap_words`.

    Raises:
        ValueError: an option out of range.
    """

    name = "sparse"
    uses = frozenset({"image", "text"})
    takes: ClassVar[Takes] = {"image": (Elements, Patch), "text": (WordEdits, Elements)}
    masks: ClassVar[bool] = True
    symbols: ClassVar[bool] = True

    def __init__(
        self,
        *,
        placement: str | None = None,
        shortlist: int = 16,
        rounds: int = 4,
        trials: int = 0,
        steps: int | None = None,
        patches_per_forward: int = 256,
        source: SourceLike = "thesaurus",
        order: str = "importance",
    ) -> None:
        def search(placement_by_default: str, steps_by_default: int) -> SparseSearch:
            return sparse_search(
                placement=placement or placement_by_default,
                shortlist=shortlist,
                rounds=rounds,
                trials=trials,
                steps=steps_by_default if steps is None else steps,
                rows_per_forward=patches_per_forward,
            )

        self.search, self.sample_search = search("greedy", 10), search("gradient", 20)
        self.words = WordSwap(source=source, order=order)

    def run(
        self, model: VisionLanguageModel, batch: PairBatch, *, budget: Budgets, seed: int
    ) -> tuple[Float[Tensor, "images 3 height width"], tuple[str, ...]]:
        """Attack captions, images, captions."""
        texts = self.words.texts(model, batch, batch.pixels, words=budget.words, kinds=budget.kinds)
        if not budget.moves_images:
            return batch.pixels, texts
        pixels = self.images(model, batch, texts, budget=budget, seed=seed)
        return pixels, self.words.texts(model, batch, pixels, words=budget.words, kinds=budget.kinds)

    def images(
        self, model: VisionLanguageModel, batch: PairBatch, texts: tuple[str, ...], *, budget: Budgets, seed: int
    ) -> Float[Tensor, "images 3 height width"]:
        """Replace elements of every image, or one rectangle, against fixed texts."""
        shape = tuple(batch.pixels.shape[1:])
        if isinstance(budget.image, Elements):
            grid = patch_grid(model)
            patch = to_patches(batch.pixels[:1], grid).shape[2:]
            clean = to_patches(batch.pixels, grid).flatten(2)
            whole: Callable[[Tensor], Tensor] = lambda part: from_patches(part.unflatten(2, patch), grid)  # noqa: E731
        else:
            budget.ball(model, batch.pixels[:1])  # raises where the rectangle is too large
            clean = as_elements(batch.pixels)
            whole = lambda part: from_elements(part, shape)  # noqa: E731
        found = sparse_ascent(
            image_part_loss(model, mean_partner(encode_unit_texts(model, texts), batch.positives), whole),
            {"image": clean},
            sites={"image": sites_of(budget.image, clean, shape)},
            search=self.search,
            ids=batch.image_ids.to(clean.device),
            seed=seed,
        )
        return whole(found["image"])

    def run_samples(self, goal: Goal) -> Parts:
        """Attack sensors and scenes."""
        sites = {m: sites_of(b, goal.clean[m], goal.blocks[m]) for m, b in goal.budgets.items() if not is_empty(b)}
        search = replace(self.sample_search, rows_per_forward=goal.rows_per_forward)
        best = dict(goal.clean)
        if not sites:
            return best
        worst = goal.judge(best)
        for objective in goal.objectives:
            found = sparse_ascent(
                goal.loss(objective),
                goal.clean,
                sites=sites,
                search=search,
                ids=goal.ids,
                seed=goal.seed,
                words=goal.words,
            )
            value = goal.judge(found)
            best, worst = choose(value > worst, found, best), torch.maximum(value, worst)
        return best


def image_part_loss(
    model: VisionLanguageModel, partners: Float[Tensor, "images dim"], whole: Callable[[Tensor], Tensor]
) -> PartsLoss:
    """Return minus the mean cosine of images with fixed partners (see `mean_partner`).

    Args:
        model: the victim.
        partners: of every image.
        whole: turns the part "image" into pixels.
    """

    def loss(parts: Mapping[str, Tensor], rows: Int64[Tensor, " rows"]) -> Float[Tensor, " rows"]:
        return misalignment(model.encode_image(whole(parts["image"])).float(), partners[rows])

    return loss


def sparse_search(
    *, placement: str, shortlist: int, rounds: int, trials: int, steps: int, rows_per_forward: int
) -> SparseSearch:
    """Check the options that sparse attacks share.

    Raises:
        ValueError: saying what came.
    """
    for option, value, least in (
        ("shortlist", shortlist, 0),
        ("rounds", rounds, 1),
        ("trials", trials, 0),
        ("steps", steps, 0),
        ("rows_per_forward", rows_per_forward, 1),
    ):
        if value < least:
            raise ValueError(f"Expected `{option}` >= {least}, but got {value}.")
    kind: Placement = check_choice(placement, get_args(Placement), "placement")
    return SparseSearch(kind, shortlist or None, rounds, trials, steps=steps, rows_per_forward=rows_per_forward)
