"""The sparse attack on image-text models: a few image patches of any values, and a few words."""

from collections.abc import Mapping
from typing import Any, ClassVar, get_args

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from crossguard.attacks.base import Attack, Budgets
from crossguard.attacks.encode import encode_unit_texts
from crossguard.attacks.objectives import mean_partner, misalignment
from crossguard.attacks.parts import PartsLoss
from crossguard.attacks.patch_budget import patch_grid
from crossguard.attacks.placement import Placement, SparseSearch, sparse_ascent
from crossguard.attacks.sources import SourceLike
from crossguard.attacks.swap import WordSwap
from crossguard.checks import check_choice
from crossguard.data import PairBatch
from crossguard.models import VisionLanguageModel
from crossguard.models.patches import from_patches, to_patches
from crossguard.threat import Elements, WordEdits


class Sparse(Attack):
    """At most r_1 patches of every image take any pixel values, and at most r_2 words of every text are substituted.

    This is the threat model of certificates by sub-sampling: `ThreatModel(image=Elements(r_1), text=WordEdits(r_2))`,
    where a patch is one of the model's own (`patch_grid`). Captions are attacked under the clean images, images against
    their attacked captions, captions once more from the originals under the attacked images. What is maximised is minus
    the mean cosine with the own partners, so that results do not depend on the batch.

    Args:
        placement: "greedy" tries patches one at a time and takes the best one each turn; "gradient" takes those of the
            largest first-order gain, a share of the budget per round (much faster).
        shortlist: greedy tries only so many patches per turn, ranked by first-order gain; 0 tries all of them.
        rounds: of gradient placement.
        trials: random contents that greedy tries per patch, beside black, white and the ends along the gradient.
        steps: Auto-PGD steps on the pixels of all chosen patches after each turn.
        patches_per_forward: patches tried in one forward pass.
        source: candidate source of word-swap, see `make_source`.
        order: visits of word-swap, see `swap_words`.

    Raises:
        ValueError: an option out of range.
    """

    name = "sparse"
    uses = frozenset({"image", "text"})
    takes: ClassVar[dict[str, tuple[type[Any], ...]]] = {"image": (Elements,), "text": (WordEdits, Elements)}

    def __init__(
        self,
        *,
        placement: str = "greedy",
        shortlist: int = 16,
        rounds: int = 4,
        trials: int = 0,
        steps: int = 10,
        patches_per_forward: int = 256,
        source: SourceLike = "thesaurus",
        order: str = "importance",
    ) -> None:
        self.search = sparse_search(
            placement=placement,
            shortlist=shortlist,
            rounds=rounds,
            trials=trials,
            steps=steps,
            rows_per_forward=patches_per_forward,
        )
        self.words = WordSwap(source=source, order=order)

    def run(
        self, model: VisionLanguageModel, batch: PairBatch, *, budget: Budgets, seed: int
    ) -> tuple[Float[Tensor, "images 3 height width"], tuple[str, ...]]:
        """Attack captions, images, captions."""
        texts = self.words.texts(model, batch, batch.pixels, words=budget.words, kinds=budget.kinds)
        if budget.patches == 0:
            return batch.pixels, texts
        pixels = self.images(model, batch, texts, patches=budget.patches, seed=seed)
        return pixels, self.words.texts(model, batch, pixels, words=budget.words, kinds=budget.kinds)

    def images(
        self, model: VisionLanguageModel, batch: PairBatch, texts: tuple[str, ...], *, patches: int, seed: int
    ) -> Float[Tensor, "images 3 height width"]:
        """Replace up to `patches` patches of every image, against fixed texts."""
        grid = patch_grid(model)
        whole = to_patches(batch.pixels, grid)
        found = sparse_ascent(
            patch_loss(model, mean_partner(encode_unit_texts(model, texts), batch.positives), whole.shape[2:]),
            {"image": whole.flatten(2)},
            budgets={"image": patches},
            search=self.search,
            ids=batch.image_ids.to(whole.device),
            seed=seed,
        )
        return from_patches(found["image"].reshape(whole.shape), grid)


def patch_loss(model: VisionLanguageModel, partners: Float[Tensor, "images dim"], patch: torch.Size) -> PartsLoss:
    """Return minus the mean cosine of images, given as flat patches, with fixed partners (see `mean_partner`)."""
    grid = patch_grid(model)

    def loss(parts: Mapping[str, Tensor], rows: Int64[Tensor, " rows"]) -> Float[Tensor, " rows"]:
        pixels = from_patches(parts["image"].unflatten(2, patch), grid)
        return misalignment(model.encode_image(pixels).float(), partners[rows])

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
