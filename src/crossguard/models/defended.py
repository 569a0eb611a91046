"""Test-time defences: what is done to a picture while a model is asked, as a part of the model that is attacked."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from crossguard.checks import WrongKind, check_range, check_whole
from crossguard.models.base import FusionModel, Tokens, VisionLanguageModel

_OF_TEXTS = ("tokenizer", "network", "encode_variants")
"""What attacks on texts may look into; there where the model has it."""


class TestTimeDefence(ABC):
    """A defence that works on each picture when it is asked. Subclasses are frozen dataclasses.

    Attributes:
        name: shown in tables.
    """

    __test__ = False  # no test, whatever pytest reads in the name

    name: ClassVar[str]

    @abstractmethod
    def embed(
        self, model: VisionLanguageModel, pixels: Float[Tensor, "images 3 height width"]
    ) -> Float[Tensor, "images dim"]:
        """Return the embedding that is answered with; the same for a picture whatever its batch, and every time.

        What is random is drawn from a seed of the defence's own: an attacker who knows the defence knows it. Attacks
        climb the gradient that this leaves from the embedding to the pixels.

        Args:
            model: what is defended.
            pixels: in [0, 1].
        """

    def surrogate(
        self, model: VisionLanguageModel, pixels: Float[Tensor, "images 3 height width"]
    ) -> Float[Tensor, "images dim"] | None:
        """Return what gradients are taken of in the place of `embed`, where that cuts them; None: of `embed`.

        For example the model's embedding of pixels as they came, where `embed` rounds or compresses them (backward pass
        differentiable approximation; Athalye et al., ICML 2018).
        """
        return None


class Defended(nn.Module):
    """A model of two towers with a test-time defence in front of its image tower: what every attack attacks.

    Attacks that use gradients (`adaptive`, `auto-attack`, ...) differentiate through the defence. Where no gradient
    comes through, they are given zero, and evaluation warns of it.

    Args:
        model: what is defended; its texts are read as they are.
        defence: what is done to pictures.
        name: shown in tables.

    Raises:
        WrongKind: a model that is not of two towers alone.
    """

    def __init__(self, model: VisionLanguageModel, defence: TestTimeDefence, *, name: str | None = None) -> None:
        super().__init__()
        if not isinstance(model, nn.Module) or not isinstance(model, VisionLanguageModel):
            raise WrongKind(f"Expected a model of two towers, but {type(model).__name__} is none.")
        if isinstance(model, FusionModel):
            raise WrongKind(
                f"Expected a model of two towers alone, since a test-time defence gives embeddings, but {model.name!r} "
                "also matches pairs."
            )
        self.model: Any = model
        self.defence = defence
        self.name = name or f"{model.name} behind {defence.name}"
        self.image_size, self.context_length, self.mask_token = (
            model.image_size, model.context_length, model.mask_token
        )  # fmt: skip

    def __getattr__(self, name: str) -> Any:
        """Return what attacks on texts look into."""
        if name in _OF_TEXTS:
            return getattr(super().__getattr__("model"), name)
        return super().__getattr__(name)

    @property
    def approximated(self) -> bool:
        """Whether gradients are those of a surrogate."""
        return type(self.defence).surrogate is not TestTimeDefence.surrogate

    def preprocess(self, images: Sequence[Image.Image]) -> Float[Tensor, "images 3 height width"]:
        """As the model does."""
        pixels: Tensor = self.model.preprocess(images)
        return pixels

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """As the model does."""
        tokens: Tokens = self.model.tokenize(texts)
        return tokens

    def encode_image(self, pixels: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images dim"]:
        """Embed pixels in [0, 1] through the defence; differentiable as far as it lets."""
        embedding = self.defence.embed(self.model, pixels)
        if not (torch.is_grad_enabled() and pixels.requires_grad):
            return embedding
        way = self.defence.surrogate(self.model, pixels)
        if way is not None:
            return embedding.detach() + (way - way.detach())
        return embedding if embedding.requires_grad else embedding + 0 * pixels.flatten(1).sum(dim=1, keepdim=True)

    def encode_text(self, texts: Sequence[str] | Tokens) -> Float[Tensor, "texts dim"]:
        """As the model does."""
        embedding: Tensor = self.model.encode_text(texts)
        return embedding

    @property
    def logit_scale(self) -> Float[Tensor, ""]:
        """The model's own."""
        scale: Tensor = self.model.logit_scale
        return scale

    def tower(self, which: str) -> Iterable[nn.Parameter]:
        """Parameters of the model's towers."""
        parameters: Iterable[nn.Parameter] = self.model.tower(which)
        return parameters

    def save_pretrained(self, folder: Path | str) -> None:
        """Refuse: a folder would lose the defence.

        Raises:
            ValueError: always; the model within can be saved.
        """
        raise ValueError(f"Expected a model without a test-time defence to save: save `.model` of {self.name!r}.")


@dataclass(frozen=True, kw_only=True)
class CounterAttack(TestTimeDefence):
    """Test-time counterattack, TTC (Xing et al., CVPR 2025): a picture is moved away from where it came.

    Steps of signed gradients raise the distance of its embedding from that of the picture as it came, from noise on;
    the steps are averaged, later ones with more weight. A picture whose embedding noise alone moves as much as
    `threshold` is no picture under attack, and gets the noise alone. The defaults are the authors'; their noise is new
    at every call, here it is the same for all pictures.

    Signs do not change with a small change of the picture, so that the gradient of `embed` is exact almost everywhere.

    Args:
        eps: the most that a pixel moves, in [0, 1].
        steps: of signed gradients.
        step: size of a step.
        threshold: of the embedding's change under noise, as a share of its length.
        beta: how much more a step weighs than the one before, as an exponent.
        seed: of the noise.

    Raises:
        ValueError: an option out of range.
    """

    name: ClassVar[str] = "ttc"

    eps: float = 4 / 255
    steps: int = 2
    step: float = 1 / 255
    threshold: float = 0.2
    beta: float = 2.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_range(self.eps, "eps", below=1.0)
        check_range(self.step, "step", below=1.0)
        for option in ("threshold", "beta"):
            check_range(getattr(self, option), option, below=math.inf)
        check_whole(self.steps, "steps", least=1)

    def embed(
        self, model: VisionLanguageModel, pixels: Float[Tensor, "images 3 height width"]
    ) -> Float[Tensor, "images dim"]:
        """Embed the pictures moved."""
        return model.encode_image(pixels + self.change(model, pixels))

    def change(
        self, model: VisionLanguageModel, pixels: Float[Tensor, "images 3 height width"]
    ) -> Float[Tensor, "images 3 height width"]:
        """Return by how much pictures are moved, within `eps` and within [0, 1]."""
        still, generator = pixels.detach(), torch.Generator().manual_seed(self.seed)
        noise = self.eps * (2 * torch.rand(pixels.shape[1:], generator=generator) - 1)
        change = _inside(noise.to(pixels).expand_as(pixels), pixels)
        with torch.no_grad():
            clean = model.encode_image(still)
            shaken = (model.encode_image(still + change) - clean).norm(dim=1) / clean.norm(dim=1)
        changes = [change]
        for _ in range(self.steps):
            with torch.enable_grad():
                moved = change.detach().requires_grad_(True)
                away = (model.encode_image(still + moved) - clean).square().sum()
                (gradient,) = torch.autograd.grad(away, moved)
            change = _inside((change + self.step * gradient.sign()).clamp(-self.eps, self.eps), pixels)
            changes.append(change)
        weights = (self.beta * torch.arange(len(changes), dtype=pixels.dtype)).softmax(dim=0).tolist()
        mean = torch.stack([weight * each for weight, each in zip(weights, changes, strict=True)]).sum(dim=0)
        return torch.where((shaken < self.threshold).view(-1, 1, 1, 1), mean, changes[0])


def _inside(
    change: Float[Tensor, "images 3 height width"], pixels: Float[Tensor, "images 3 height width"]
) -> Float[Tensor, "images 3 height width"]:
    """Return the change cut to where pixels stay in [0, 1]."""
    return torch.maximum(torch.minimum(change, 1 - pixels), -pixels)
