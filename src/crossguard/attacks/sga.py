"""Set-level guidance attack (SGA; Lu et al., ICCV 2023): sets of captions and of scaled images guide each other."""

import math
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from crossguard.attacks.ascent import (
    LossPerSample,
    Pixels,
    StepRule,
    ascend,
    random_start,
    step_size,
    with_gradient,
)
from crossguard.attacks.base import Attack, Budgets
from crossguard.attacks.image_loss import image_loss
from crossguard.attacks.noise import normal
from crossguard.attacks.options import check_step_rule, check_steps
from crossguard.attacks.sources import SourceLike
from crossguard.attacks.swap import WordSwap
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

    Args:
        steps: PGD steps.
        step: as for `PGD`; SGA uses 0.5/255 at eps 2/255, which is "co-attack" times two at 10 steps.
        scales: further scales beside 1.
        noise: standard deviation in [0, 1] pixel units.
        source: candidate source of word-swap, see `make_source`.
        order: visits of word-swap, see `swap_words`.

    Raises:
        ValueError: an option out of range.
    """

    name = "sga"
    uses = frozenset({"image", "text"})

    def __init__(
        self,
        *,
        steps: int = 10,
        step: str | float = "sga",
        scales: Sequence[float] = (0.5, 0.75, 1.25, 1.5),
        noise: float = 0.05,
        source: SourceLike = "thesaurus",
        order: str = "importance",
    ) -> None:
        check_steps(steps)
        if any(not 0 < scale <= 8 for scale in scales):
            raise ValueError(f"Expected `scales` in (0, 8], but got {tuple(scales)}.")
        if not 0 <= noise <= 1:
            raise ValueError(f"Expected `noise` in [0, 1] pixel units, but got {noise}.")
        self.steps, self.scales, self.noise = steps, tuple(scales), noise
        self.step: StepRule | float = check_step_rule(step)
        self.words = WordSwap(source=source, order=order)

    def run(
        self, model: VisionLanguageModel, batch: PairBatch, *, budget: Budgets, seed: int
    ) -> tuple[Pixels, tuple[str, ...]]:
        """Attack captions, images, captions."""
        texts = self.words.texts(model, batch, batch.pixels, words=budget.words)
        if budget.eps == 0:
            return batch.pixels, texts
        loss = image_loss(model, batch, texts)
        pixels = self.images(loss, batch, eps=budget.eps, seed=seed)
        return pixels, self.words.texts(model, batch, pixels, words=budget.words)

    def images(self, loss: LossPerSample, batch: PairBatch, *, eps: float, seed: int) -> Pixels:
        """Maximise a loss of the images by gradients summed over scales."""
        step_number = 0

        def gradient(pixels: Pixels) -> tuple[Float[Tensor, " images"], Pixels]:
            nonlocal step_number
            value, total = with_gradient(loss)(pixels)
            for view, scale in enumerate(self.scales, start=1):
                stream = view + (len(self.scales) + 1) * step_number
                noise = self._noise(batch, scale, seed=seed, stream=stream)
                total = total + with_gradient(_at_scale(loss, noise))(pixels)[1]
            step_number += 1
            return value, total

        return ascend(
            gradient,
            loss,
            batch.pixels,
            eps=eps,
            steps=self.steps,
            step_size=step_size(self.step, eps=eps, steps=self.steps),
            start=random_start(batch, eps=eps, seed=seed),
        )

    def _noise(self, batch: PairBatch, scale: float, *, seed: int, stream: int) -> Pixels:
        height, width = batch.pixels.shape[-2:]
        size = (3, max(1, math.floor(height * scale)), max(1, math.floor(width * scale)))
        return self.noise * normal(batch.image_ids, size, seed=seed, stream=stream, device=batch.pixels.device)


def _at_scale(loss: LossPerSample, noise: Float[Tensor, "images 3 scaled_height scaled_width"]) -> LossPerSample:
    return lambda pixels: loss(rescale(pixels, noise))


def rescale(pixels: Pixels, noise: Float[Tensor, "images 3 scaled_height scaled_width"]) -> Pixels:
    """Resize pixels to the size of `noise`, add it, and resize back; bicubic both ways, clipped to [0, 1]."""
    there = interpolate(pixels, size=noise.shape[-2:], mode="bicubic", align_corners=False)
    back = interpolate(there + noise, size=pixels.shape[-2:], mode="bicubic", align_corners=False)
    return back.clamp(0, 1)
