"""Attacking a captioner through its picture: the loss of captions is what is maximised."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from crossguard.attacks.ascent import LossPerSample
from crossguard.attacks.base import Attack, frozen
from crossguard.attacks.pgd import GradientAttack
from crossguard.checks import nearest
from crossguard.data import PairBatch
from crossguard.models import Captioner
from crossguard.threat import ThreatModel

CaptionObjective = Literal["references", "own-caption"]


def check_caption_attack(attack: Attack, threat: ThreatModel, objective: str) -> None:
    """Check that an attack can be used on a captioner.

    Raises:
        ValueError: an attack that cannot maximise a loss of images, a threat with more than a budget for the image (a
            captioner reads no text), or an unknown objective.
    """
    if objective not in get_args(CaptionObjective):
        raise ValueError(
            f"Unknown objective {objective!r} of captioning: {nearest(objective, get_args(CaptionObjective))}."
        )
    if not isinstance(attack, GradientAttack):
        raise ValueError(f"Expected an attack that maximises any loss of images (pgd, apgd), but got {attack.name!r}.")
    if set(threat) != {"image"}:
        raise ValueError(f"Expected a budget for the image alone (a captioner reads no text), but got {threat}.")
    attack.budgets(threat)


def attack_captions(
    model: Captioner,
    batch: PairBatch,
    attack: Attack,
    *,
    threat: ThreatModel,
    seed: int,
    objective: CaptionObjective,
    own: Sequence[str],
) -> Float[Tensor, "images 3 height width"]:
    """Return adversarial pixels within the budget, on the 8-bit grid.

    Args:
        model: the captioner.
        batch: images with their references as texts.
        attack: one by gradients; its own objective plays no part.
        threat: a budget for "image".
        seed: of random starts.
        objective: "references" raises the mean loss of an image's references; "own-caption" that of what the model
            writes for the clean image, which asks for any other caption (an untargeted change).
        own: what the model writes for the clean images.
    """
    assert isinstance(attack, GradientAttack)
    ball = attack.budgets(threat).ball(model, batch.pixels)
    captions, rows = _targets(batch, own) if objective == "own-caption" else (batch.texts, batch.links[:, 0])
    with frozen(model):
        found = attack.raised(caption_objective(model, captions, rows), ball, batch.image_ids, seed=seed)
        return ball.to_pixels(found.detach())


def caption_objective(model: Captioner, captions: Sequence[str], rows: Int64[Tensor, " captions"]) -> LossPerSample:
    """Return the loss per image: the mean over its captions of their loss; 0 for an image without captions."""

    def loss(pixels: Float[Tensor, "images 3 height width"]) -> Float[Tensor, " images"]:
        if not captions:
            return 0 * pixels.sum(dim=(1, 2, 3))
        place = rows.to(pixels.device)
        each = model.caption_loss(pixels, captions, rows=place).float()
        counts = torch.bincount(place, minlength=len(pixels)).clamp(min=1)
        return each.new_zeros(len(pixels)).index_add(0, place, each) / counts

    return loss


def _targets(batch: PairBatch, own: Sequence[str]) -> tuple[list[str], Int64[Tensor, " captions"]]:
    """Leave out images for which the model wrote nothing: there is nothing to move away from."""
    written = [place for place, caption in enumerate(own) if caption.strip()]
    return [own[place] for place in written], torch.tensor(written, dtype=torch.int64, device=batch.pixels.device)
