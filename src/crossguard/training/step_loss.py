"""`StepLoss`: a defence's loss on one step, the one function that the inner attack raises and training lowers.

Every draw in it (targets, hard negatives) comes from (seed, step), so that it is the same function of pixels and texts
whenever it is asked.

In one piece, the loss is one graph. With a `chunk_size` or in several processes it is split, exactly (gradient caching,
Gao et al., 2021): encode everything without a graph, take the loss's gradient with respect to what was encoded, then
encode chunk by chunk again and send that gradient through. Whatever couples samples (negatives of the whole batch, of
all processes) is seen by the loss, and no more than a chunk's activations are in memory at a time.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, cached_property

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from crossguard.attacks.ascent import LossAndGradient, Pixels
from crossguard.attacks.encode import encode_texts
from crossguard.attacks.objectives import mean_partner
from crossguard.models import Captioner, VisionLanguageModel, cosine
from crossguard.models.fusion_losses import draw_negatives, soft_cross_entropy
from crossguard.models.losses import contrastive, contrastive_drawn, embedding_l2
from crossguard.models.momentum import Believed, Keys, MomentumTraining
from crossguard.training.batches import TrainingBatch
from crossguard.training.codes import Codes, chunks, encode_pixels, encode_tokens, gradients_of
from crossguard.training.defences import Anchor, Contrast, Language, Match, Term, View
from crossguard.training.seeds import step_seed
from crossguard.training.step_encoder import StepEncoder, length, shifted
from crossguard.training.world import ALONE, World

Coder = Callable[[View], Codes]
Views = tuple[Pixels, tuple[str, ...]]


class StepLoss:
    """The weighted sum of a defence's terms on one step.

    Args:
        model: the model in training.
        original: the model as it came, for `Anchor` terms.
        terms: of the loss, as `terms_for` gives them for this model.
        step_batch: this process's clean images, all texts, and which pairs are targets.
        seed: of the whole training.
        step: the step.
        draws_targets: one drawn target per image and text in place of all with equal shares (`contrastive_drawn`).
        momentum: makes `Contrast` terms compare with a momentum copy and queues, both of the clean batch.
        chunk_size: the most images, texts or pairs at once; None is all.
        world: the processes of the training.
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
        draws_targets: bool = False,
        momentum: MomentumTraining | None = None,
        chunk_size: int | None = None,
        world: World = ALONE,
    ) -> None:
        self.trained, self._original, self.terms = model, original, tuple(terms)
        self.step_batch, self.seed, self.step = step_batch, seed, step
        self._draws_targets, self._momentum = draws_targets, momentum
        self._chunk_size, self.world = chunk_size, world
        self._deep = any(isinstance(term, Match) for term in terms)
        self._everyone = len(step_batch.targets)
        self._encoder = StepEncoder(
            model,
            images=self._everyone,
            texts=len(step_batch.batch.texts),
            deep=self._deep,
            seed=seed,
            step=step,
            chunk_size=chunk_size,
            world=world,
        )

    @property
    def model(self) -> VisionLanguageModel:
        """The model in training, for terms that take embeddings."""
        found: VisionLanguageModel = self.trained  # type: ignore[assignment]
        return found

    @torch.no_grad()
    def embeddings(self, pixels: Pixels, texts: Sequence[str]) -> tuple[Codes, Codes]:
        """Return what the model makes of everyone's images (given this process's) and of the texts."""
        images = self._encoder.image_embeddings(self.model, pixels)
        return images, encode_tokens(self.model, self.model.tokenize(texts), deep=False)

    # What training lowers

    def value(self, adversarial: Views) -> Float[Tensor, ""]:
        """Return the loss as one graph, each view encoded once, images of a term before its texts.

        Args:
            adversarial: pixels and texts that the inner attack found.
        """
        pixels, texts = self._views(adversarial)

        @cache
        def images_of(view: View) -> Codes:
            return encode_pixels(self.model, pixels[view], deep=self._deep)

        @cache
        def texts_of(view: View) -> Codes:
            return encode_tokens(self.model, self.model.tokenize(texts[view]), deep=self._deep)

        return self._sum(self.terms, images_of, texts_of, pixels)

    def backward(self, adversarial: Views) -> float:
        """Add the loss's gradient to the weights' `.grad`, summed over the processes, and return the loss.

        Args:
            adversarial: this process's pixels and all texts.
        """
        parameters = [p for p in _module(self.trained).parameters() if p.requires_grad]
        if not self._encoder.split:
            loss = self.value(adversarial)
            loss.backward()
            return float(loss.detach())
        pixels, texts = self._views(adversarial)
        image_codes = {view: self._encoder.images(pixels[view], view).leaf() for view in self._needed("image")}
        tokens = {view: self.model.tokenize(texts[view]) for view in self._needed("text")}
        text_codes = {view: self._encoder.texts(tokens[view], view).leaf() for view in tokens}
        total = self._backward_parts(self.terms, image_codes.__getitem__, text_codes.__getitem__, pixels)
        self.world.add([g for codes in (*image_codes.values(), *text_codes.values()) for g in _given(codes)])
        for view, codes in image_codes.items():
            for again, rows in self._encoder.images_again(pixels[view], view):
                _send_back(again, gradients_of(codes, rows))
        for view, codes in text_codes.items():
            for again, rows in self._encoder.texts_again(tokens[view], view):
                _send_back(again, gradients_of(codes, rows))
        self.world.add_gradients(parameters)
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
                    codes["adversarial"] = encode_pixels(self.model, pixels, deep=self._deep)
                loss = len(pixels) * self._sum(
                    terms, codes.__getitem__, text_codes.__getitem__, {"clean": clean.pixels, "adversarial": pixels}
                )
                (gradient,) = torch.autograd.grad(loss, pixels)
            return (loss.detach() / len(pixels)).expand(len(pixels)), gradient

        return evaluate

    @torch.no_grad()
    def of_texts(self, terms: Sequence[Term], pixels: Pixels) -> Callable[[list[str], list[int]], Tensor]:
        """Return a function from variants of texts (with each one's text) to how well they serve: lower is worse.

        A two-tower model's texts are judged by the mean cosine with their targets. A fusion model's by the loss, in
        nats, that a text answers for: its own row of the contrastive loss, and matching one of its images.

        Args:
            terms: those that depend on adversarial texts.
            pixels: this process's; stand for the adversarial images.
        """
        parts = [self._text_part(term, pixels) for term in terms]

        @torch.no_grad()
        def score(texts: list[str], owners: list[int]) -> Float[Tensor, " variants"]:
            own = self.world.share(len(texts))
            if own.start == own.stop:
                return self.world.gather(torch.zeros(0, device=pixels.device), len(texts))
            rows = torch.tensor(owners[own], device=pixels.device)
            mine = texts[own]
            return self.world.gather(torch.stack([part(mine, rows) for part in parts]).sum(dim=0), len(texts))

        return score

    def _text_part(self, term: Term, pixels: Pixels) -> Callable[[list[str], Int64[Tensor, " variants"]], Tensor]:
        targets = self.step_batch.targets
        if isinstance(term, Anchor):
            reference = self._references["text"]
            return lambda texts, owners: -term.weight * embedding_l2(encode_texts(self.model, texts), reference[owners])
        assert isinstance(term, Contrast | Match)
        images = self._encoder.images(
            pixels if term.image == "adversarial" else self.step_batch.batch.pixels, term.image
        )
        if isinstance(term, Match):
            partner = targets.T.float().argmax(dim=1)
            paired = targets.any(dim=0)

            def matched(texts: list[str], owners: Int64[Tensor, " variants"]) -> Float[Tensor, " variants"]:
                parts = []
                for rows in chunks(len(texts), self._chunk_size):
                    states = encode_tokens(self.model, self.model.tokenize(texts[rows]), deep=True).states
                    pairs = torch.stack([partner[owners[rows]], torch.arange(len(states), device=owners.device)], dim=1)
                    logits = self.model.match(images.states, states, pairs).float()  # type: ignore[attr-defined]
                    parts.append(cross_entropy(logits, torch.ones_like(pairs[:, 0]), reduction="none"))
                return -term.weight * torch.cat(parts) * paired[owners]

            return matched
        if self._deep:
            row_loss = self._row_loss(normalize(images.embedding, dim=-1))
            return lambda texts, owners: -term.weight * row_loss(encode_unit(self.model, texts), owners)
        partners = mean_partner(images.embedding, targets.T)
        return lambda texts, owners: term.weight * (encode_unit(self.model, texts) * partners[owners]).sum(dim=1)

    def _row_loss(
        self, images: Float[Tensor, "images dim"]
    ) -> Callable[[Float[Tensor, "variants dim"], Int64[Tensor, " variants"]], Float[Tensor, " variants"]]:
        """Return the contrastive loss of a text over all images, as a function of its unit embedding."""
        scale = self.model.logit_scale
        if self._momentum is not None:
            keys = self._keys
            return lambda units, owners: soft_cross_entropy(scale * units @ keys.images.T, keys.for_images[owners])
        targets, ignored = self.step_batch.targets.T, self.step_batch.ignored.T
        shares = targets.float() / targets.sum(dim=1, keepdim=True).clamp(min=1)

        def batch_rows(
            units: Float[Tensor, "variants dim"], owners: Int64[Tensor, " variants"]
        ) -> Float[Tensor, " variants"]:
            logits = (scale * units @ images.T).masked_fill(ignored[owners], torch.finfo(torch.float32).min)
            return soft_cross_entropy(logits, shares[owners])

        return batch_rows

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
            own = self.world.share(self._everyone)
            if codes:
                self.world.add(_given(codes["adversarial"]))
            for rows in chunks(len(pixels) if codes else 0, self._chunk_size):
                part = pixels[rows].clone().requires_grad_(True)
                again = encode_pixels(self.model, part, deep=self._deep)
                (found,) = torch.autograd.grad(
                    again.differentiable, part, gradients_of(codes["adversarial"], shifted(rows, own))
                )
                gradient[rows] += found
        self.world.add([total])
        return total.expand(len(pixels)), self._everyone * gradient

    # The loss itself

    def _sum(
        self, terms: Sequence[Term], images: Coder, texts: Coder, pixels: Mapping[View, Pixels]
    ) -> Float[Tensor, ""]:
        return torch.stack([term.weight * self._value(term, images, texts, pixels) for term in terms]).sum()

    def _value(self, term: Term, images: Coder, texts: Coder, pixels: Mapping[View, Pixels]) -> Float[Tensor, ""]:
        if isinstance(term, Language):
            return torch.stack(list(self._language(term, pixels))).sum()
        if isinstance(term, Match):
            return torch.stack(list(self._matching(images(term.image), texts(term.text)))).sum()
        return self._coupled(term, images, texts)

    def _coupled(self, term: Term, images: Coder, texts: Coder) -> Float[Tensor, ""]:
        """A term that is computed from all embeddings at once."""
        if isinstance(term, Anchor):
            coder = images if term.tower == "image" else texts
            return embedding_l2(coder("adversarial").embedding, self._references[term.tower]).mean()
        assert isinstance(term, Contrast)
        image, text = images(term.image).embedding, texts(term.text).embedding
        if self._momentum is not None:
            return self._momentum.contrast(normalize(image, dim=-1), normalize(text, dim=-1), self._keys)
        logits = self.model.logit_scale * cosine(image, text)
        if self._draws_targets:
            return contrastive_drawn(logits, self.step_batch.targets, generator=self._generator())
        return contrastive(logits, self.step_batch.targets, ignored=self.step_batch.ignored)

    def _matching(self, images: Codes, texts: Codes) -> Iterator[Float[Tensor, ""]]:
        """Yield the parts of the matching loss, this process's pairs in chunks: true pairs and two negatives a row."""
        step_batch = self.step_batch
        logits = (self.model.logit_scale * cosine(images.embedding, texts.embedding)).detach()
        generator, known = self._generator(), step_batch.true
        true = torch.nonzero(step_batch.targets)
        hard_texts = draw_negatives(logits, known, generator=generator)
        hard_images = draw_negatives(logits.T, known.T, generator=generator).flip(1)
        pairs = torch.cat([true, hard_images, hard_texts])
        labels = (torch.arange(len(pairs), device=pairs.device) < len(true)).long()
        own = self.world.share(len(pairs))
        for rows in chunks(length(own), self._chunk_size):
            at = shifted(rows, own)
            found = self.model.match(images.states, texts.states, pairs[at])  # type: ignore[attr-defined]
            yield cross_entropy(found.float(), labels[at], reduction="sum") / len(pairs)

    def _language(self, term: Language, pixels: Mapping[View, Pixels]) -> Iterator[Float[Tensor, ""]]:
        """Yield the parts of the caption loss, this process's true pairs in chunks."""
        captioner: Captioner = self.trained  # type: ignore[assignment]
        own = self.world.share(self._everyone)
        total = int(self.step_batch.targets.sum())
        pairs = torch.nonzero(self.step_batch.targets[own]).cpu()
        for number, rows in enumerate(chunks(len(pairs), self._chunk_size)):
            self._encoder.seed_chunk("image", term.image, slice(number, number))
            captions = [self.step_batch.batch.texts[j] for j in pairs[rows, 1].tolist()]
            yield captioner.caption_loss(pixels[term.image][pairs[rows, 0]], captions).sum() / total

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
            if isinstance(term, Language):
                view = dict(pixels)
                if pixel_gradient is not None:
                    view["adversarial"] = pixels["adversarial"].clone().requires_grad_(True)
                parts = self._language(term, view)
            elif isinstance(term, Match):
                parts = self._matching(images(term.image), texts(term.text))
            else:
                # Every process computes what couples all samples, each taking an equal share of it.
                parts = iter([self._coupled(term, images, texts) / self.world.size])
            for part in parts:
                weighted = term.weight * part
                weighted.backward()
                total = total + weighted.detach()
            if isinstance(term, Language) and pixel_gradient is not None and view["adversarial"].grad is not None:
                pixel_gradient += view["adversarial"].grad
        return total

    # What is computed once a step

    @cached_property
    def _references(self) -> Mapping[str, Float[Tensor, "samples dim"]]:
        """What the model as it came makes of the clean views, for `Anchor` terms."""
        original: VisionLanguageModel = self._original  # type: ignore[assignment]
        batch = self.step_batch.batch
        found: dict[str, Tensor] = {}
        with torch.no_grad():
            for tower in {term.tower for term in self.terms if isinstance(term, Anchor)}:
                if tower == "image":
                    found[tower] = self._encoder.image_embeddings(original, batch.pixels).embedding
                else:
                    found[tower] = encode_texts(original, batch.texts)
        return found

    @cached_property
    def believed(self) -> Believed:
        """What the momentum copy makes of the clean batch of all processes."""
        assert self._momentum is not None
        copy: VisionLanguageModel = self._momentum.copy  # type: ignore[assignment]
        batch = self.step_batch.batch
        images = self._encoder.image_embeddings(copy, batch.pixels)
        texts = self._encoder.text_embeddings(copy, copy.tokenize(batch.texts))
        return Believed(normalize(images.embedding, dim=-1), normalize(texts.embedding, dim=-1))

    @cached_property
    def _keys(self) -> Keys:
        assert self._momentum is not None
        return self._momentum.keys(
            self.believed, image_ids=self.step_batch.image_ids, text_ids=self.step_batch.batch.text_ids
        )

    # Encoding

    def _fixed_texts(self, texts: Sequence[str]) -> Codes:
        """Encode texts that stay as they are while pixels move."""
        if self._deep:
            return self._encoder.texts(self.model.tokenize(texts), "adversarial")
        own = encode_texts(self.model, texts[self.world.share(len(texts))])
        return Codes(self.world.gather(own, len(texts)))

    def _needed(self, side: str, terms: Sequence[Term] | None = None) -> tuple[View, ...]:
        """The views of images or texts whose codes the terms take, in the order of the terms."""
        found: dict[View, None] = {}
        for term in self.terms if terms is None else terms:
            if isinstance(term, Anchor):
                if term.tower == side:
                    found["adversarial"] = None
            elif not isinstance(term, Language):
                found[term.image if side == "image" else term.text] = None
        return tuple(found)

    def _views(self, adversarial: Views) -> tuple[Mapping[View, Pixels], Mapping[View, tuple[str, ...]]]:
        batch = self.step_batch.batch
        return (
            {"clean": batch.pixels, "adversarial": adversarial[0]},
            {"clean": batch.texts, "adversarial": adversarial[1]},
        )

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(step_seed(self.seed, self.step))


def encode_unit(model: VisionLanguageModel, texts: Sequence[str]) -> Float[Tensor, "texts dim"]:
    """Return unit embeddings of texts, without gradients (see `attacks.encode`)."""
    return normalize(encode_texts(model, texts), dim=-1)


def _module(model: object) -> nn.Module:
    assert isinstance(model, nn.Module)
    return model


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
