"""Inner maximisation: adversarial images and texts for one training step, within the threat model.

The weights are frozen and the model is in evaluation mode meanwhile, so no gradient of the search reaches them.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from crossguard.attacks.ascent import Pixels, Start, StepRule, ascend, step_size
from crossguard.attacks.ball import ball_of, is_empty
from crossguard.attacks.base import frozen
from crossguard.threat import Budget
from crossguard.training.step_loss import StepLoss
from crossguard.training.swaps import Swaps, swap_some
from crossguard.training.terms import attacks
from crossguard.training.warm import Perturbations

Order = Literal["text-first", "image-first", "alternating", "independent"]


@dataclass(frozen=True)
class InnerAttack:
    """How adversarial examples of a training step are searched for.

    Args:
        image: budget of the images; an empty one leaves them.
        words: most substituted words per text; 0 leaves the texts.
        swaps: substitutions to draw from.
        text_tries: substitutions scored per text and word.
        pgd_steps: gradient steps on the images.
        pgd_step: size of a step, see `step_size`.
        start: where images start: "uniform" in the budget, or "clean".
        order: "text-first" changes texts under the clean images, then images against the changed texts (MAT);
            "image-first" the other way round; "alternating" changes texts, images against them, and texts again, from
            the originals, under the changed images (as SGA does); "independent" changes each under the clean other.
    """

    image: Budget
    words: int
    swaps: Swaps
    text_tries: int
    pgd_steps: int
    pgd_step: StepRule | float
    start: Start
    order: Order

    def __call__(self, loss: StepLoss, *, memory: Perturbations | None = None) -> tuple[Pixels, tuple[str, ...]]:
        """Raise the outer loss of a step.

        Args:
            loss: of the step; its terms say which modality is attacked against which view of the other. Its model is
                left as it was.
            memory: images that it knows start from what was found on their last visit, and it keeps what is found now.

        Returns:
            Pixels within the budget and in [0, 1], and texts within `words`; what no term asks for is
            returned clean. In several processes: this process's pixels, and all texts.
        """
        clean = loss.step_batch.batch
        with frozen(loss.trained):
            if self.order == "image-first":
                pixels = self._images(loss, clean.texts, memory)
                return pixels, self._texts(loss, pixels)
            texts = self._texts(loss, clean.pixels)
            pixels = self._images(loss, clean.texts if self.order == "independent" else texts, memory)
            if self.order == "alternating":
                texts = self._texts(loss, pixels, again=True)
            return pixels, texts

    def _texts(self, loss: StepLoss, pixels: Pixels, *, again: bool = False) -> tuple[str, ...]:
        """Change the texts under `pixels`, which stand for the adversarial images."""
        clean = loss.step_batch.batch.texts
        terms = [term for term in loss.terms if attacks(term, "text")]
        if not terms or self.words == 0:
            return clean
        judge = loss.of_texts(terms, pixels)

        def score(texts: list[str], owners: list[int]) -> Float[np.ndarray, " variants"]:
            return judge(texts, owners).cpu().numpy()

        return swap_some(
            clean,
            score,
            words=self.words,
            tries=self.text_tries,
            swaps=self.swaps,
            rng=np.random.default_rng([loss.step.seed, 2, loss.step.number, *([1] if again else [])]),
        )

    def _images(self, loss: StepLoss, texts: tuple[str, ...], memory: Perturbations | None) -> Pixels:
        """Change the images against `texts`, which stand for the adversarial texts."""
        clean = loss.step_batch.batch
        terms = [term for term in loss.terms if attacks(term, "image")]
        if not terms or is_empty(self.image):
            return clean.pixels
        ball, start = ball_of(self.image, clean.pixels), None
        if self.start == "uniform":
            start = ball.start(clean.image_ids, seed=loss.step.seed, stream=loss.step.number)
        if memory is not None:
            start = memory.start(clean.pixels, clean.pixels if start is None else start, clean.image_ids)
        gradient = loss.of_pixels(terms, texts)
        found = ascend(
            gradient,
            lambda pixels: gradient(pixels)[0],
            ball,
            steps=self.pgd_steps,
            step_size=step_size(self.pgd_step, ball, steps=self.pgd_steps),
            start=start,
            keep_best=False,
        )
        if memory is not None:
            memory.keep(found - clean.pixels, loss.step_batch.image_ids, world=loss.world)
        return found
