"""Sep: image PGD and word-swap side by side, neither knowing of the other (the baseline of Co-Attack's paper)."""

from crossguard.attacks.ascent import Pixels
from crossguard.attacks.base import ANY_BALL, Attack
from crossguard.attacks.budget import Budgets
from crossguard.attacks.pgd import PGD
from crossguard.attacks.sources import SourceLike
from crossguard.attacks.swap import WordSwap
from crossguard.data import PairBatch
from crossguard.models import VisionLanguageModel


class Sep(Attack):
    """PGD against the clean texts, and word-swap under the clean images.

    `compat=True` repeats the published word-swap (see `WordSwap`), and keeps PGD's last iterate.

    Args:
        steps: as for `PGD`.
        step: as for `PGD`.
        start: as for `PGD`.
        restarts: as for `PGD`.
        objective: of images and of texts, see `image_loss` and `text_score`.
        source: as for `WordSwap`.
        order: as for `WordSwap`.
        compat: repeat the published attack instead of our form of it.

    Raises:
        ValueError: an option out of range.
    """

    name = "sep"
    uses = frozenset({"image", "text"})
    takes = ANY_BALL

    def __init__(
        self,
        *,
        steps: int = 10,
        step: str | float = "co-attack",
        start: str = "uniform",
        restarts: int = 1,
        objective: str = "cosine",
        source: SourceLike = "thesaurus",
        order: str = "importance",
        compat: bool = False,
    ) -> None:
        self.image = PGD(
            steps=steps, step=step, start=start, restarts=restarts, objective=objective, keep_best=not compat
        )
        self.text = WordSwap(source=source, order=order, objective=objective, compat=compat)

    def run(
        self, model: VisionLanguageModel, batch: PairBatch, *, budget: Budgets, seed: int
    ) -> tuple[Pixels, tuple[str, ...]]:
        """Attack images and texts independently."""
        pixels, _ = self.image.run(model, batch, budget=budget, seed=seed)
        _, texts = self.text.run(model, batch, budget=budget, seed=seed)
        return pixels, texts
