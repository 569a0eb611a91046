"""L-inf projected gradient descent on images (Madry et al., 2018), as a pure core and as an attack."""

from collections.abc import Callable
from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from crossguard.attacks.base import Attack, Budgets
from crossguard.attacks.encode import encode_unit_texts
from crossguard.attacks.noise import uniform
from crossguard.attacks.objectives import contrastive_per_sample, mean_partner, misalignment, unit
from crossguard.checks import nearest
from crossguard.data import PairBatch
from crossguard.models import VisionLanguageModel

Pixels: TypeAlias = Float[Tensor, "images 3 height width"]
LossPerSample: TypeAlias = Callable[[Pixels], Float[Tensor, " images"]]
LossAndGradient: TypeAlias = Callable[[Pixels], tuple[Float[Tensor, " images"], Pixels]]
Objective = Literal["cosine", "contrastive"]
StepRule = Literal["co-attack", "sga"]


def step_size(rule: StepRule | float, *, eps: float, steps: int) -> float:
    """Return the size of one step in [0, 1] pixel units.

    Args:
        rule: "co-attack" is 1.25 eps / steps; "sga" is 0.5/255; a number is itself.
        eps: L-inf budget.
        steps: number of steps.
    """
    if isinstance(rule, str):
        return {"co-attack": 1.25 * eps / max(1, steps), "sga": 0.5 / 255}[rule]
    return rule


def random_start(batch: PairBatch, *, eps: float, seed: int, stream: int = 0) -> Pixels:
    """Return the batch's pixels plus noise uniform in [-eps, eps], in [0, 1]; it depends on (seed, image id) alone."""
    noise = uniform(
        batch.image_ids, tuple(batch.pixels.shape[1:]), seed=seed, stream=stream, device=batch.pixels.device
    )
    return (batch.pixels + (2 * noise - 1) * eps).clamp(0, 1)


def with_gradient(loss_per_sample: LossPerSample) -> LossAndGradient:
    """Turn a loss per sample into a function that also gives its gradient to the pixels, and to nothing else."""

    def evaluate(pixels: Pixels) -> tuple[Float[Tensor, " images"], Pixels]:
        pixels = pixels.detach().requires_grad_(True)
        with torch.enable_grad():
            loss = loss_per_sample(pixels)
            (gradient,) = torch.autograd.grad(loss.sum(), pixels)
        return loss.detach(), gradient

    return evaluate


def maximise(
    loss_per_sample: LossPerSample,
    pixels: Pixels,
    *,
    eps: float,
    steps: int,
    step_size: float,
    start: Pixels | None = None,
    keep_best: bool = True,
) -> Pixels:
    """Maximise a loss of every sample over the L-inf ball around `pixels` by signed gradient steps.

    Gradients are taken for the pixels alone: nothing reaches the `.grad` of weights, frozen or not. Samples are
    independent as long as the loss of one does not depend on another's pixels.

    Args:
        loss_per_sample: differentiable, from pixels to float [images]; their sum is differentiated.
        pixels: the clean pixels in [0, 1], the centre of the ball.
        eps: L-inf budget in [0, 1] pixel units.
        steps: number of gradient steps (one forward and backward each).
        step_size: in [0, 1] pixel units.
        start: where to begin, within the ball; default: the clean pixels.
        keep_best: return the iterate of the highest loss per sample (the start is one; costs one more forward) instead
            of the last one.

    Returns:
        Pixels within `eps` of the clean ones and in [0, 1], detached.
    """
    return ascend(
        with_gradient(loss_per_sample),
        loss_per_sample,
        pixels,
        eps=eps,
        steps=steps,
        step_size=step_size,
        start=start,
        keep_best=keep_best,
    )


def ascend(
    gradient: LossAndGradient,
    value: LossPerSample,
    pixels: Pixels,
    *,
    eps: float,
    steps: int,
    step_size: float,
    start: Pixels | None = None,
    keep_best: bool = True,
) -> Pixels:
    """As `maximise`, with the direction of steps given apart: `gradient` may average views that `value` does not."""
    low, high = (pixels - eps).clamp(min=0), (pixels + eps).clamp(max=1)
    current = (pixels if start is None else start).detach()
    best, best_loss = current, None
    for _ in range(steps):
        loss, direction = gradient(current)
        if keep_best:
            best, best_loss = _better(best, best_loss, current, loss)
        current = torch.minimum(torch.maximum(current + step_size * direction.sign(), low), high)
    if not keep_best:
        return current
    with torch.no_grad():
        return _better(best, best_loss, current, value(current))[0]


def _better(
    best: Pixels, best_loss: Float[Tensor, " images"] | None, current: Pixels, loss: Float[Tensor, " images"]
) -> tuple[Pixels, Float[Tensor, " images"]]:
    if best_loss is None:
        return current, loss
    higher = loss > best_loss
    return torch.where(higher.view(-1, 1, 1, 1), current, best), torch.where(higher, loss, best_loss)


def image_loss(
    model: VisionLanguageModel,
    batch: PairBatch,
    text_features: Float[Tensor, "texts dim"],
    *,
    objective: Objective = "cosine",
) -> LossPerSample:
    """Return the loss of images against fixed text embeddings.

    Args:
        model: the victim.
        batch: gives the links.
        text_features: embeddings of the batch's texts (adversarial or not), constant.
        objective: "cosine" is minus the mean cosine with the image's own texts; "contrastive" the cross-entropy of
            those among all texts of the batch (a sample's result then depends on the batch).
    """
    positives = batch.positives
    if objective == "cosine":
        partners = mean_partner(text_features, positives)
        return lambda pixels: misalignment(model.encode_image(pixels).float(), partners)
    texts, scale = unit(text_features), model.logit_scale.detach()
    return lambda pixels: contrastive_per_sample(
        scale * unit(model.encode_image(pixels).float()) @ texts.T, positives
    )


class PGD(Attack):
    """L-inf PGD on images alone (Madry et al., 2018), with the step rules of Co-Attack and SGA.

    Args:
        steps: gradient steps per restart.
        step: "co-attack" (1.25 eps / steps), "sga" (0.5/255), or a size in [0, 1] pixel units.
        start: "uniform" in [-eps, eps], or "clean".
        restarts: independent runs; the best result per sample is kept. Only for `start="uniform"`.
        keep_best: keep the best iterate per sample instead of the last.
        objective: "cosine" (own texts) or "contrastive" (own texts among the batch's).

    Raises:
        ValueError: an option out of range.
    """

    name = "pgd"
    uses = frozenset({"image"})

    def __init__(
        self,
        *,
        steps: int = 10,
        step: StepRule | float = "co-attack",
        start: Literal["uniform", "clean"] = "uniform",
        restarts: int = 1,
        keep_best: bool = True,
        objective: Objective = "cosine",
    ) -> None:
        check_image_options(steps=steps, step=step)
        if restarts < 1 or (restarts > 1 and start == "clean"):
            raise ValueError(
                f"Expected `restarts` >= 1, and 1 with start='clean', but got {restarts} with start={start!r}."
            )
        for given, choices, what in (
            (start, ("uniform", "clean"), "start"),
            (objective, get_args(Objective), "objective"),
        ):
            if given not in choices:
                raise ValueError(f"Unknown `{what}` {given!r}: {nearest(str(given), choices)}.")
        self.steps, self.step, self.start, self.restarts = steps, step, start, restarts
        self.keep_best, self.objective = keep_best, objective

    def run(
        self, model: VisionLanguageModel, batch: PairBatch, *, budget: Budgets, seed: int
    ) -> tuple[Pixels, tuple[str, ...]]:
        """Attack the images against their clean texts."""
        if budget.eps == 0:
            return batch.pixels, batch.texts
        loss = image_loss(model, batch, encode_unit_texts(model, batch.texts), objective=self.objective)
        return self.images(loss, batch, eps=budget.eps, seed=seed), batch.texts

    def images(self, loss: LossPerSample, batch: PairBatch, *, eps: float, seed: int) -> Pixels:
        """Maximise any loss of the images with this attack's steps, start and restarts."""
        best, best_loss = batch.pixels, None
        for restart in range(self.restarts):
            found = maximise(
                loss,
                batch.pixels,
                eps=eps,
                steps=self.steps,
                step_size=step_size(self.step, eps=eps, steps=self.steps),
                start=random_start(batch, eps=eps, seed=seed, stream=restart)
                if self.start == "uniform"
                else None,
                keep_best=self.keep_best,
            )
            if self.restarts == 1:
                return found
            with torch.no_grad():
                best, best_loss = _better(best, best_loss, found, loss(found))
        return best


def check_image_options(*, steps: int, step: StepRule | float) -> None:
    """Refuse step counts below one and unknown step rules.

    Raises:
        ValueError: naming the option.
    """
    if steps < 1:
        raise ValueError(f"Expected `steps` >= 1, but got {steps}.")
    if isinstance(step, str):
        if step not in get_args(StepRule):
            raise ValueError(f"Unknown `step` rule {step!r}: {nearest(step, get_args(StepRule))}.")
    elif not 0 < step <= 1:
        raise ValueError(f"Expected `step` in (0, 1] pixel units, but got {step}.")
