"""Inner maximisation: adversarial images and texts for one training step, within the threat model.

The weights are frozen and the model is in evaluation mode meanwhile, so no gradient of the search reaches them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import normalize

from crossguard.attacks.ascent import Pixels, Start, maximise, random_start
from crossguard.attacks.base import frozen
from crossguard.attacks.encode import encode_texts, encode_unit_texts
from crossguard.attacks.objectives import mean_partner
from crossguard.models import VisionLanguageModel
from crossguard.models.losses import contrastive_by_image, embedding_l2
from crossguard.training.batches import TrainingBatch
from crossguard.training.defences import Anchor, Contrast, Term
from crossguard.training.swaps import Swaps, swap_some

Order = Literal["text-first", "image-first"]
_TextPart: TypeAlias = Callable[[list[str], Int64[Tensor, " variants"]], Float[Tensor, " variants"]]
_ImagePart: TypeAlias = Callable[[Float[Tensor, "images dim"]], Float[Tensor, " images"]]


@dataclass(frozen=True)
class InnerAttack:
    """How adversarial examples of a training step are searched for.

    Args:
        eps: L-inf budget of the images in [0, 1]; 0 leaves them.
        words: most substituted words per text; 0 leaves the texts.
        swaps: substitutions to draw from.
        text_tries: substitutions scored per text and word.
        pgd_steps: gradient steps on the images.
        pgd_step: size of a step in [0, 1].
        start: where images start: "uniform" in [-eps, eps], or "clean".
        order: "text-first" changes texts under the clean images, then images against the changed texts (MAT);
            "image-first" the other way round.
    """

    eps: float
    words: int
    swaps: Swaps
    text_tries: int
    pgd_steps: int
    pgd_step: float
    start: Start
    order: Order

    def __call__(
        self,
        model: VisionLanguageModel,
        original: VisionLanguageModel,
        step_batch: TrainingBatch,
        terms: Sequence[Term],
        *,
        seed: int,
        step: int,
    ) -> tuple[Pixels, tuple[str, ...]]:
        """Raise the terms of the outer loss.

        Args:
            model: the model in training; left as it was.
            original: the model as it came, for `Anchor` terms.
            step_batch: clean pixels and texts, and the targets.
            terms: of the outer loss; they say which modality is attacked against which view of the other.
            seed: of the whole training.
            step: the step, so that other random numbers are drawn at every one.

        Returns:
            Pixels within `eps` of the clean ones and in [0, 1], and texts within `words`; what no term asks for is
            returned clean.
        """
        search = _Search(self, model, original, step_batch, terms, seed, step)
        with frozen(model):
            if self.order == "text-first":
                texts = search.texts(step_batch.batch.pixels)
                return search.images(texts), texts
            pixels = search.images(step_batch.batch.texts)
            return pixels, search.texts(pixels)


@dataclass(frozen=True)
class _Search:
    """One step's search; the model is frozen already."""

    how: InnerAttack
    model: VisionLanguageModel
    original: VisionLanguageModel
    step_batch: TrainingBatch
    terms: Sequence[Term]
    seed: int
    step: int

    def texts(self, pixels: Pixels) -> tuple[str, ...]:
        """Change the texts under `pixels`, which stand for the adversarial images."""
        clean = self.step_batch.batch.texts
        terms = [t for t in self.terms if (t.text == "adversarial" if isinstance(t, Contrast) else t.tower == "text")]
        if not terms or self.how.words == 0:
            return clean
        parts = [self._text_part(term, pixels) for term in terms]

        def score(texts: list[str], owners: list[int]) -> Float[np.ndarray, " variants"]:
            rows = torch.tensor(owners, device=pixels.device)
            return torch.stack([part(texts, rows) for part in parts]).sum(dim=0).cpu().numpy()

        return swap_some(
            self.model,
            clean,
            score,
            words=self.how.words,
            tries=self.how.text_tries,
            swaps=self.how.swaps,
            rng=np.random.default_rng([self.seed, 2, self.step]),
        )

    @torch.no_grad()
    def _text_part(self, term: Term, pixels: Pixels) -> _TextPart:
        model = self.model
        if isinstance(term, Anchor):
            reference = encode_texts(self.original, self.step_batch.batch.texts)
            return lambda texts, owners: -term.weight * embedding_l2(encode_texts(model, texts), reference[owners])
        seen = pixels if term.image == "adversarial" else self.step_batch.batch.pixels
        partners = mean_partner(model.encode_image(seen).float(), self.step_batch.targets.T)
        return lambda texts, owners: term.weight * (encode_unit_texts(model, texts) * partners[owners]).sum(dim=1)

    def images(self, texts: tuple[str, ...]) -> Pixels:
        """Change the images against `texts`, which stand for the adversarial texts."""
        clean, how = self.step_batch.batch, self.how
        terms = [t for t in self.terms if (t.image == "adversarial" if isinstance(t, Contrast) else t.tower == "image")]
        if not terms or how.eps == 0:
            return clean.pixels
        parts = [self._image_part(term, texts) for term in terms]
        start = None
        if how.start == "uniform":
            start = random_start(clean, eps=how.eps, seed=self.seed, stream=self.step)

        def loss(pixels: Pixels) -> Float[Tensor, " images"]:
            embeddings = self.model.encode_image(pixels).float()
            return torch.stack([part(embeddings) for part in parts]).sum(dim=0)

        return maximise(
            loss, clean.pixels, eps=how.eps, steps=how.pgd_steps, step_size=how.pgd_step, start=start, keep_best=False
        )

    @torch.no_grad()
    def _image_part(self, term: Term, texts: tuple[str, ...]) -> _ImagePart:
        batch, targets, ignored = self.step_batch.batch, self.step_batch.targets, self.step_batch.ignored
        if isinstance(term, Anchor):
            reference = self.original.encode_image(batch.pixels).float()
            return lambda embeddings: term.weight * embedding_l2(embeddings, reference)
        features = encode_unit_texts(self.model, texts if term.text == "adversarial" else batch.texts)
        scale = self.model.logit_scale.detach()
        return lambda embeddings: (
            term.weight
            * contrastive_by_image(scale * normalize(embeddings, dim=-1) @ features.T, targets, ignored=ignored)
        )
