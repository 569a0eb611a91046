"""Attacking a captioner through its picture: the loss of captions is what is maximised."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from crossguard.attacks.ascent import LossPerSample
from crossguard.attacks.base import Attack
from crossguard.attacks.pgd import GradientAttack
from crossguard.checks import nearest, shown
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


def captions_loss(
    model: Captioner,
    batch: PairBatch,
    *,
    objective: CaptionObjective,
    own: Sequence[str],
    target: str | None = None,
) -> LossPerSample:
    """Return what an attack on pictures raises.

    Args:
        model: the captioner.
        batch: images with their references as texts.
        objective: "references" raises the mean loss of an image's references; "own-caption" that of what the model
            writes for the clean image, which asks for any other caption (an untargeted change).
        own: what the model writes for the clean images.
        target: what the model is to write for every image, in place of an objective: its loss falls.
    """
    if target is not None:
        return _towards(model, target)
    captions, rows = _targets(batch, own) if objective == "own-caption" else (batch.texts, batch.links[:, 0])
    return caption_objective(model, captions, rows)


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


def _towards(model: Captioner, target: str) -> LossPerSample:
    """Return what rises as a target becomes likely: its loss, negative."""

    def likelier(pixels: Float[Tensor, "images 3 height width"]) -> Float[Tensor, " images"]:
        return -model.caption_loss(pixels, [target] * len(pixels)).float()

    return likelier


def check_target_text(model: Captioner, target: str, *, max_length: int) -> None:
    """Refuse a target that a captioner cannot write.

    Raises:
        ValueError: it is blank, has words that the tokenizer does not know or gives back otherwise (such as a
            picture's own), or is longer than what may be written.
    """
    if not target.strip():
        raise ValueError(f"Expected a `target` to be written, but got {target!r}.")
    tokenizer, tokenize = getattr(model, "tokenizer", None), getattr(model, "tokenize", None)
    if tokenizer is None or tokenize is None:
        return
    ids = tokenize([target]).ids[0].tolist()
    if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids:
        raise ValueError(
            f"Expected a `target` that the tokenizer of {model.name!r} can write, but {target!r} has unknown words."
        )
    again = tokenizer.decode(ids, skip_special_tokens=True)
    if not says(again, target):
        raise ValueError(
            f"Expected a `target` that the tokenizer of {model.name!r} can write, but {shown(target)} comes back as "
            f"{shown(again)}."
        )
    if len(ids) > max_length:
        raise ValueError(
            f"Expected a `target` of at most {max_length} tokens (`max_length`), prompt and end counted, but "
            f"{shown(target)} has {len(ids)}."
        )


def says(caption: str, target: str) -> bool:
    """Return whether a caption has the target in it, word for word; capitals and blanks make no difference.

    Example:
        >>> says("A photo of  a red disc", "a red disc"), says("a tired disc", "red disc")
        (True, False)
    """
    return f" {' '.join(target.casefold().split())} " in f" {' '.join(caption.casefold().split())} "


def _targets(batch: PairBatch, own: Sequence[str]) -> tuple[list[str], Int64[Tensor, " captions"]]:
    """Leave out images for which the model wrote nothing: there is nothing to move away from."""
    written = [place for place, caption in enumerate(own) if caption.strip()]
    return [own[place] for place in written], torch.tensor(written, dtype=torch.int64, device=batch.pixels.device)
