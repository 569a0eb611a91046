"""Set-level guidance attack (SGA; Lu et al., ICCV 2023): sets of captions and of scaled images guide each other."""

from collections.abc import Callable, Sequence
from typing import get_args

from crossguard.attacks.ascent import (
    LossAndGradient,
    LossPerSample,
    Pixels,
    StepRule,
    ascend,
    step_size,
)
from crossguard.attacks.base import ANY_BALL, Attack
from crossguard.attacks.budget import Budgets
from crossguard.attacks.image_loss import image_loss
from crossguard.attacks.objectives import Objective
from crossguard.attacks.options import check_step_rule, check_steps
from crossguard.attacks.sources import SourceLike
from crossguard.attacks.swap import WordSwap
from crossguard.attacks.views import scaled_gradient
from crossguard.checks import check_choice
from crossguard.data import PairBatch
from crossguard.models import VisionLanguageModel


class SGA(Attack):
    """SGA: captions under the clean image, the image against all its adversarial captions, captions once more.

    1. Word-swap of every caption under the clean images.
    2. PGD of every image against all its adversarial captions, at several scales: the image itself, and, per further
       scale, resized there and back (bicubic) after N(0, `noise`) was added at that size. Gradients add up; the best
       iterate is judged at the image's own scale.
    3. Word-swap again **from the originals**, under the adversarial images.

    Without a text budget this is the image step against the clean captions; without an image budget, word-swap.

    `compat=True` is the published attack: words are ranked without the image (see `WordSwap`), noise is added to the
    image at its full size **before** it is resized there and back, and the last iterate is kept. The descriptions
    that this follows leave open whether the noisy image is clipped before it is resized (here it is clipped
    to [0, 1] once, at the end) and whether scales share a draw of noise (here each has its own). That the last
    iterate is kept follows PGD as it was published.

    Args:
        steps: PGD steps.
        step: as for `PGD`; SGA uses 0.5/255 at eps 2/255, which is "co-attack" times two at 10 steps.
        scales: further scales beside 1.
        noise: standard deviation in [0, 1] pixel units.
        objective: of images and texts, see `image_loss` and `text_score`; the paper's is "cosine".
        source: candidate source of word-swap, see `make_source`.
        order: visits of word-swap, see `swap_words`.
        compat: repeat the published attack instead of our form of it.

    Raises:
        ValueError: an option out of range.
    """

    name = "sga"
    uses = frozenset({"image", "text"})
    takes = ANY_BALL

    def __init__(
        self,
        *,
        steps: int = 10,
        step: str | float = "sga",
        scales: Sequence[float] = (0.5, 0.75, 1.25, 1.5),
        noise: float = 0.05,
        objective: str = "cosine",
        source: SourceLike = "thesaurus",
        order: str = "importance",
        compat: bool = False,
    ) -> None:
        check_steps(steps)
        if any(not 0 < scale <= 8 for scale in scales):
            raise ValueError(f"Expected `scales` in (0, 8], but got {tuple(scales)}.")
        if not 0 <= noise <= 1:
            raise ValueError(f"Expected `noise` in [0, 1] pixel units, but got {noise}.")
        self.steps, self.scales, self.noise = steps, tuple(scales), noise
        self.step: StepRule | float = check_step_rule(step)
        self.objective: Objective = check_choice(objective, get_args(Objective), "objective")
        self.words = WordSwap(source=source, order=order, objective=objective, compat=compat)
        self.compat = compat

    def run(
        self, model: VisionLanguageModel, batch: PairBatch, *, budget: Budgets, seed: int
    ) -> tuple[Pixels, tuple[str, ...]]:
        """Attack captions, images, captions."""
        return self.guide(
            model, batch, budget=budget, seed=seed, direction=lambda loss: self.gradient(loss, batch, seed=seed)
        )

    def guide(
        self,
        model: VisionLanguageModel,
        batch: PairBatch,
        *,
        budget: Budgets,
        seed: int,
        direction: Callable[[LossPerSample], LossAndGradient],
    ) -> tuple[Pixels, tuple[str, ...]]:
        """Attack captions, images, captions; `direction` turns the images' loss into what gives their steps."""
        texts = self.words.texts(model, batch, batch.pixels, words=budget.words, kinds=budget.kinds)
        if not budget.moves_images:
            return batch.pixels, texts
        ball = budget.ball(model, batch.pixels)
        loss = image_loss(model, batch, texts, objective=self.objective)
        pixels = ascend(
            direction(loss),
            loss,
            ball,
            steps=self.steps,
            step_size=step_size(self.step, ball, steps=self.steps),
            start=ball.start(batch.image_ids, seed=seed),
            keep_best=not self.compat,
        )
        return pixels, self.words.texts(model, batch, pixels, words=budget.words, kinds=budget.kinds)

    def gradient(self, loss: LossPerSample, batch: PairBatch, *, seed: int) -> LossAndGradient:
        """Return the sum of gradients over scales."""
        return scaled_gradient(loss, batch, scales=self.scales, noise=self.noise, seed=seed, noise_first=self.compat)
