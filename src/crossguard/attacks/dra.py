"""DRA (Gao et al., ECCV 2024): SGA with gradients from the triangle between clean, previous and present image."""

from collections.abc import Sequence

from crossguard.attacks.ascent import LossAndGradient, LossPerSample, Pixels
from crossguard.attacks.base import ANY_BALL, Attack
from crossguard.attacks.budget import Budgets
from crossguard.attacks.sga import SGA
from crossguard.attacks.sources import SourceLike
from crossguard.attacks.views import mixed_gradient
from crossguard.data import PairBatch
from crossguard.models import VisionLanguageModel


class DRA(Attack):
    """Diversification along the adversarial trajectory: what transfers to other models, at more cost than SGA.

    As `SGA`, but the gradient of each image step is taken elsewhere: `draws` random convex mixes of the clean, the
    previous and the present image are compared, and SGA's gradient over scales is taken at the mix of the highest
    loss. The step itself starts from the present image.

    Captions are attacked as in SGA: before the images, and again from the originals after them.

    For the victim itself it is no stronger than SGA: within a small budget the loss is nearly linear, the gradients at
    the mixes have nearly the signs of that at the present image, and both end within a few pixels of each other.

    `compat=True` builds on the published form of `SGA`.

    Args:
        draws: mixes per step (5 in the paper).
        steps: as for `SGA`.
        step: as for `SGA`.
        scales: as for `SGA`.
        noise: as for `SGA`.
        objective: as for `SGA`.
        source: as for `SGA`.
        order: as for `SGA`.
        compat: as for `SGA`.

    Raises:
        ValueError: an option out of range.
    """

    name = "dra"
    uses = frozenset({"image", "text"})
    takes = ANY_BALL

    def __init__(
        self,
        *,
        draws: int = 5,
        steps: int = 10,
        step: str | float = "sga",
        scales: Sequence[float] = (0.5, 0.75, 1.25, 1.5),
        noise: float = 0.05,
        objective: str = "cosine",
        source: SourceLike = "thesaurus",
        order: str = "importance",
        compat: bool = False,
    ) -> None:
        if draws < 1:
            raise ValueError(f"Expected `draws` of at least one, but got {draws}.")
        self.draws = draws
        self.sga = SGA(
            steps=steps,
            step=step,
            scales=scales,
            noise=noise,
            objective=objective,
            source=source,
            order=order,
            compat=compat,
        )

    def run(
        self, model: VisionLanguageModel, batch: PairBatch, *, budget: Budgets, seed: int
    ) -> tuple[Pixels, tuple[str, ...]]:
        """Attack captions, images, captions."""

        def direction(loss: LossPerSample) -> LossAndGradient:
            return mixed_gradient(self.sga.gradient(loss, batch, seed=seed), loss, batch, draws=self.draws, seed=seed)

        return self.sga.guide(model, batch, budget=budget, seed=seed, direction=direction)
