"""The momentum copy and queues of a training of a fusion model (ALBEF, BLIP), as an option of the trainer."""

from dataclasses import dataclass

import torch
from torch import nn

from crossguard.data import OneToManyPairs
from crossguard.models import FusionModel
from crossguard.models.momentum import MomentumTraining


@dataclass(frozen=True)
class Momentum:
    """Options of `MomentumTraining`.

    Args:
        queue_size: embeddings kept of each side.
        decay: how much the copy keeps of itself per step.
        alpha: share of the copy's belief in the targets.
    """

    queue_size: int
    decay: float
    alpha: float


def read_momentum(model: nn.Module, *, queue_size: int, momentum: float, soft_targets: float) -> Momentum | None:
    """Return the options, or None where no queue is asked for.

    Raises:
        ValueError: an option out of range, or a model that is no fusion model.
    """
    if isinstance(queue_size, bool) or not isinstance(queue_size, int) or queue_size < 0:
        raise ValueError(f"Expected `queue_size` to be a whole number >= 0, but got {queue_size!r}.")
    for name, value, below in (("momentum", momentum, 1.0), ("soft_targets", soft_targets, 1.0 + 1e-9)):
        if not 0 <= value < below:
            raise ValueError(f"Expected `{name}` in [0, 1{')' if below == 1 else ']'}, but got {value!r}.")
    if not queue_size:
        return None
    if not isinstance(model, FusionModel):
        raise ValueError(
            f"Expected a fusion model (ALBEF, BLIP) for `queue_size` > 0, but got {type(model).__name__}: leave it 0."
        )
    return Momentum(queue_size, momentum, soft_targets)


def make_momentum(model: nn.Module, pairs: OneToManyPairs, options: Momentum) -> MomentumTraining:
    """Return the copy and the queues of a training on some pairs; every true link is known to it."""
    return MomentumTraining(
        model,  # type: ignore[arg-type]
        links=torch.from_numpy(pairs.links.copy()),
        queue_size=options.queue_size,
        momentum=options.decay,
        alpha=options.alpha,
    )


def state_of(momentum: MomentumTraining) -> dict[str, torch.Tensor]:
    """Return what has to be carried from checkpoint to checkpoint: the copy and the queues, not the model."""
    return {
        f"momentum.{name}": tensor for name, tensor in momentum.state_dict().items() if not name.startswith("model.")
    }
