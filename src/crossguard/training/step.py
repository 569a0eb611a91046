"""`Step`: what the terms of a loss are computed from in one training step."""

from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from crossguard.attacks.ascent import Pixels
from crossguard.attacks.encode import encode_texts
from crossguard.models import Captioner, VisionLanguageModel
from crossguard.models.momentum import Believed, Keys, MomentumTraining
from crossguard.training.batches import TrainingBatch
from crossguard.training.codes import Codes, Tower, View
from crossguard.training.seeds import step_seed
from crossguard.training.step_encoder import StepEncoder
from crossguard.world import ALONE, World


class Step:
    """One step: its batch, its encoder, and what the terms of its loss compare with.

    Every draw (targets, hard negatives) comes from (seed, step), so that a term is the same function of pixels and
    texts whenever it is asked.

    Args:
        model: the model in training.
        original: the model as it came, which some terms compare with.
        batch: this process's clean images, all texts, and which pairs are targets.
        seed: of the whole training.
        number: of the step.
        deep: keep the token states that `match` reads, beside the embeddings.
        draws_targets: one drawn target per image and text in place of all with equal shares (`contrastive_drawn`).
        momentum: makes `Contrast` terms compare with a momentum copy and queues, both of the clean batch.
        chunk_size: the most images, texts or pairs at once; None is all.
        world: the processes of the training.
    """

    def __init__(
        self,
        model: VisionLanguageModel | Captioner,
        original: VisionLanguageModel | Captioner,
        batch: TrainingBatch,
        *,
        seed: int,
        number: int,
        deep: bool,
        draws_targets: bool = False,
        momentum: MomentumTraining | None = None,
        chunk_size: int | None = None,
        world: World = ALONE,
    ) -> None:
        self.trained, self._original, self.batch = model, original, batch
        self.seed, self.number, self.deep, self.draws_targets = seed, number, deep, draws_targets
        self.momentum, self.chunk_size, self.world = momentum, chunk_size, world
        self.encoder = StepEncoder(
            model,
            images=self.everyone,
            texts=len(batch.batch.texts),
            deep=deep,
            seed=seed,
            step=number,
            chunk_size=chunk_size,
            world=world,
        )
        self._references: dict[Tower, Float[Tensor, "samples dim"]] = {}

    @property
    def everyone(self) -> int:
        """Images of all processes."""
        return len(self.batch.targets)

    @property
    def model(self) -> VisionLanguageModel:
        """The model in training, for terms that take embeddings."""
        found: VisionLanguageModel = self.trained  # type: ignore[assignment]
        return found

    @property
    def original(self) -> VisionLanguageModel:
        """The model as it came."""
        found: VisionLanguageModel = self._original  # type: ignore[assignment]
        return found

    @property
    def original_scale(self) -> Float[Tensor, ""]:
        """Its factor from cosines to logits."""
        return self.original.logit_scale.detach()

    def original_images(self, pixels: Pixels) -> Float[Tensor, "images dim"]:
        """Return what the model as it came makes of everyone's images, given this process's; no graph."""
        return self.encoder.image_embeddings(self.original, pixels).embedding

    def generator(self) -> torch.Generator:
        """Return the step's own random numbers, from their beginning."""
        return torch.Generator().manual_seed(step_seed(self.seed, self.number))

    def images(self, pixels: Pixels, view: View) -> Codes:
        """Encode everyone's images without a graph; `pixels` are this process's adversarial ones."""
        return self.encoder.images(pixels if view == "adversarial" else self.batch.batch.pixels, view)

    @torch.no_grad()
    def reference(self, tower: Tower) -> Float[Tensor, "samples dim"]:
        """Return what the model as it came makes of the clean images or texts, computed once a step."""
        if tower not in self._references:
            clean = self.batch.batch
            self._references[tower] = (
                self.original_images(clean.pixels) if tower == "image" else encode_texts(self.original, clean.texts)
            )
        return self._references[tower]

    @cached_property
    def believed(self) -> Believed:
        """What the momentum copy makes of the clean batch of all processes."""
        assert self.momentum is not None
        copy: VisionLanguageModel = self.momentum.copy  # type: ignore[assignment]
        clean = self.batch.batch
        images = self.encoder.image_embeddings(copy, clean.pixels)
        texts = self.encoder.text_embeddings(copy, copy.tokenize(clean.texts))
        return Believed(normalize(images.embedding, dim=-1), normalize(texts.embedding, dim=-1))

    @cached_property
    def keys(self) -> Keys:
        """What the momentum copy's queues hold, and the targets among it."""
        assert self.momentum is not None
        return self.momentum.keys(self.believed, image_ids=self.batch.image_ids, text_ids=self.batch.batch.text_ids)
