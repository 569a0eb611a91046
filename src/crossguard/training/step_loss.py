"""`StepLoss`: a defence's loss on one step, the one function that the inner attack raises and training lowers.

In one piece, the loss is one graph. With a `chunk_size` or in several processes it is split, exactly (gradient caching,
Gao et al., 2021): encode everything without a graph, take the loss's gradient with respect to what was encoded, then
encode chunk by chunk again and send that gradient through. Whatever couples samples (negatives of the whole batch, of
all processes) is seen by the loss, and no more than a chunk's activations are in memory at a time.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from crossguard.attacks.ascent import LossAndGradient, Pixels
from crossguard.attacks.encode import encode_texts
from crossguard.models import Captioner, VisionLanguageModel
from crossguard.models.momentum import Believed
from crossguard.training.batches import TrainingBatch
from crossguard.training.codes import Codes, Tower, View, chunks, encode_pixels, encode_tokens, gradients_of
from crossguard.training.step import Step
from crossguard.training.step_encoder import shifted
from crossguard.training.terms import Coder, Term

Views = tuple[Pixels, tuple[str, ...]]


class StepLoss:
    """The weighted sum of a defence's terms on one step.

    Args:
        model: the model in training.
        original: the model as it came, for terms that compare with it.
        terms: of the loss, as `terms_for` gives them for this model.
        step_batch: this process's clean images, all texts, and which pairs are targets.
        seed: of the whole training.
        step: the step.
        options: `draws_targets`, `momentum`, `chunk_size` and `world`, see `Step`.
    """

    def __init__(
        self,
        model: VisionLanguageModel | Captioner,
        original: VisionLanguageModel | Captioner,
        terms: Sequence[Term],
        step_batch: TrainingBatch,
        *,
        seed: int,
        step: int,
        **options: Any,
    ) -> None:
        self.terms = tuple(terms)
        deep = any(term.deep for term in terms)
        self.step = Step(model, original, step_batch, seed=seed, number=step, deep=deep, **options)
        self.trained, self.step_batch, self.world = model, step_batch, self.step.world
        self._encoder = self.step.encoder

    @property
    def _model(self) -> VisionLanguageModel:
        return self.step.model

    @property
    def believed(self) -> Believed:
        """What the momentum copy makes of the clean batch of all processes."""
        return self.step.believed

    @torch.no_grad()
    def embeddings(self, pixels: Pixels, texts: Sequence[str]) -> tuple[Codes, Codes]:
        """Return what the model makes of everyone's images (given this process's) and of the texts."""
        images = self._encoder.image_embeddings(self._model, pixels)
        return images, encode_tokens(self._model, self._model.tokenize(texts), deep=False)

    # What training lowers

    def value(self, adversarial: Views) -> Float[Tensor, ""]:
        """Return the loss as one graph, each view encoded once, images of a term before its texts.

        Args:
            adversarial: pixels and texts that the inner attack found.
        """
        pixels, texts = self._views(adversarial)

        @cache
        def images_of(view: View) -> Codes:
            return encode_pixels(self._model, pixels[view], deep=self.step.deep)

        @cache
        def texts_of(view: View) -> Codes:
            return encode_tokens(self._model, self._model.tokenize(texts[view]), deep=self.step.deep)

        return self._sum(self.terms, images_of, texts_of, pixels)

    def backward(self, adversarial: Views) -> float:
        """Add the loss's gradient to the weights' `.grad`, summed over the processes, and return the loss.

        Args:
            adversarial: this process's pixels and all texts.
        """
        if not self._encoder.split:
            loss = self.value(adversarial)
            loss.backward()
            return float(loss.detach())
        pixels, texts = self._views(adversarial)
        image_codes = {view: self._encoder.images(pixels[view], view).leaf() for view in self._needed("image")}
        tokens = {view: self._model.tokenize(texts[view]) for view in self._needed("text")}
        text_codes = {view: self._encoder.texts(tokens[view], view).leaf() for view in tokens}
        total = self._backward_parts(self.terms, image_codes.__getitem__, text_codes.__getitem__, pixels)
        self.world.add([g for codes in (*image_codes.values(), *text_codes.values()) for g in _given(codes)])
        for view, codes in image_codes.items():
            for again, rows in self._encoder.images_again(pixels[view], view):
                _send_back(again, gradients_of(codes, rows))
        for view, codes in text_codes.items():
            for again, rows in self._encoder.texts_again(tokens[view], view):
                _send_back(again, gradients_of(codes, rows))
        assert isinstance(self.trained, nn.Module)
        self.world.add_gradients([p for p in self.trained.parameters() if p.requires_grad])
        self.world.add([total])
        return float(total)

    # What the inner attack raises

    def of_pixels(self, terms: Sequence[Term], texts: tuple[str, ...]) -> LossAndGradient:
        """Return a function from this process's adversarial pixels to the loss of some terms and its gradient.

        The loss is given once per image, and the gradient is of the loss times the number of images: the scale of a
        sum over images, so that many images do not make it vanish.

        Args:
            terms: those that depend on adversarial images.
            texts: stand for the adversarial texts.
        """
        clean = self.step_batch.batch
        views = {"clean": clean.texts, "adversarial": texts}
        text_codes = {view: self._fixed_texts(views[view]) for view in self._needed("text", terms)}

        def evaluate(pixels: Pixels) -> tuple[Float[Tensor, " images"], Pixels]:
            pixels = pixels.detach()
            if self._encoder.split:
                return self._split_pixels(terms, pixels, text_codes)
            pixels.requires_grad_(True)
            with torch.enable_grad():
                codes: dict[View, Codes] = {}
                if self._needed("image", terms):
                    codes["adversarial"] = encode_pixels(self._model, pixels, deep=self.step.deep)
                loss = len(pixels) * self._sum(
                    terms, codes.__getitem__, text_codes.__getitem__, {"clean": clean.pixels, "adversarial": pixels}
                )
                (gradient,) = torch.autograd.grad(loss, pixels)
            return (loss.detach() / len(pixels)).expand(len(pixels)), gradient

        return evaluate

    @torch.no_grad()
    def of_texts(self, terms: Sequence[Term], pixels: Pixels) -> Callable[[list[str], list[int]], Tensor]:
        """Return a function from variants of texts (with each one's text) to how well they serve: lower is worse.

        Args:
            terms: those that depend on adversarial texts; see their `score_texts`.
            pixels: this process's; stand for the adversarial images.
        """
        parts = [term.score_texts(self.step, pixels) for term in terms]

        @torch.no_grad()
        def score(texts: list[str], owners: list[int]) -> Float[Tensor, " variants"]:
            own = self.world.share(len(texts))
            if own.start == own.stop:
                return self.world.gather(torch.zeros(0, device=pixels.device), len(texts))
            rows = torch.tensor(owners[own], device=pixels.device)
            mine = texts[own]
            return self.world.gather(torch.stack([part(mine, rows) for part in parts]).sum(dim=0), len(texts))

        return score

    def _split_pixels(
        self, terms: Sequence[Term], pixels: Pixels, text_codes: Mapping[View, Codes]
    ) -> tuple[Float[Tensor, " images"], Pixels]:
        codes: dict[View, Codes] = {}
        if self._needed("image", terms):
            codes["adversarial"] = self._encoder.images(pixels, "adversarial").leaf()
        gradient = torch.zeros_like(pixels)
        views, _ = self._views((pixels, ()))
        with torch.enable_grad():
            total = self._backward_parts(
                terms, codes.__getitem__, text_codes.__getitem__, views, pixel_gradient=gradient
            )
            own = self.world.share(self.step.everyone)
            if codes:
                self.world.add(_given(codes["adversarial"]))
            for rows in chunks(len(pixels) if codes else 0, self.step.chunk_size):
                part = pixels[rows].clone().requires_grad_(True)
                again = encode_pixels(self._model, part, deep=self.step.deep)
                (found,) = torch.autograd.grad(
                    again.differentiable, part, gradients_of(codes["adversarial"], shifted(rows, own))
                )
                gradient[rows] += found
        self.world.add([total])
        return total.expand(len(pixels)), self.step.everyone * gradient

    # The loss itself

    def _sum(
        self, terms: Sequence[Term], images: Coder, texts: Coder, pixels: Mapping[View, Pixels]
    ) -> Float[Tensor, ""]:
        values = [torch.stack(list(term.parts(self.step, images, texts, pixels))).sum() for term in terms]
        return torch.stack([term.weight * value for term, value in zip(terms, values, strict=True)]).sum()

    def _backward_parts(
        self,
        terms: Sequence[Term],
        images: Coder,
        texts: Coder,
        pixels: Mapping[View, Pixels],
        *,
        pixel_gradient: Pixels | None = None,
    ) -> Float[Tensor, ""]:
        """Send this process's part of the loss back to the codes (and weights), and return it.

        Args:
            terms: of the loss.
            images: leaf codes of views.
            texts: leaf codes of views.
            pixels: of views.
            pixel_gradient: of the adversarial pixels, for terms that have no codes; it is added to.
        """
        total = torch.zeros((), device=self.step_batch.targets.device)
        for term in terms:
            views = dict(pixels)
            if pixel_gradient is not None and not term.encodes:
                views["adversarial"] = pixels["adversarial"].clone().requires_grad_(True)
            for part in term.parts(self.step, images, texts, views):
                weighted = term.weight * part
                weighted.backward()
                total = total + weighted.detach()
            if pixel_gradient is not None and not term.encodes and views["adversarial"].grad is not None:
                pixel_gradient += views["adversarial"].grad
        return total

    # Encoding

    def _fixed_texts(self, texts: Sequence[str]) -> Codes:
        """Encode texts that stay as they are while pixels move."""
        if self.step.deep:
            return self._encoder.texts(self._model.tokenize(texts), "adversarial")
        own = encode_texts(self._model, texts[self.world.share(len(texts))])
        return Codes(self.world.gather(own, len(texts)))

    def _needed(self, tower: Tower, terms: Sequence[Term] | None = None) -> tuple[View, ...]:
        """The views of images or texts whose codes the terms take, in the order of the terms."""
        asked = (term for term in (self.terms if terms is None else terms) if term.encodes)
        return tuple(dict.fromkeys(view for term in asked for view in term.views(tower)))

    def _views(self, adversarial: Views) -> tuple[Mapping[View, Pixels], Mapping[View, tuple[str, ...]]]:
        batch = self.step_batch.batch
        return (
            {"clean": batch.pixels, "adversarial": adversarial[0]},
            {"clean": batch.texts, "adversarial": adversarial[1]},
        )


def _send_back(codes: Codes, gradients: Sequence[Tensor]) -> None:
    """Send gradients of codes to the weights; what no trained weight took part in has none to receive."""
    pairs = [(t, g) for t, g in zip(codes.differentiable, gradients, strict=True) if t.requires_grad]
    if pairs:
        torch.autograd.backward([t for t, _ in pairs], [g for _, g in pairs])


def _given(codes: Codes) -> list[Tensor]:
    """Gradients of leaf codes, for summing over processes; made where there is none, so that all processes agree."""
    for tensor in codes.differentiable:
        if tensor.grad is None:
            tensor.grad = torch.zeros_like(tensor)
    return [tensor.grad for tensor in codes.differentiable if tensor.grad is not None]
