"""Help to choose k: what other numbers of kept elements could certify, by margin arithmetic and a short training."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
from jaxtyping import Float

from crossguard.certify import CertifyOptions, preflight
from crossguard.certify.bounds import majority_bounds
from crossguard.certify.design import design_for, kinds_of
from crossguard.certify.sampling import Asked, class_votes, evaluation_mode
from crossguard.certify.thresholds import Margins
from crossguard.data import MultiModalSamples
from crossguard.data.samples import element_count
from crossguard.models import MODELS
from crossguard.models.inputs import input_arrays
from crossguard.progress import Reporter, Silent
from crossguard.recipes.base_model import train_base
from crossguard.recipes.perform import choose_device, read_samples
from crossguard.recipes.schema import CertifyRecipe

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
SHORTER = 5
"""A trial training has a fifth of the steps, on four fifths of the training data."""
DRAWS, MOST = 60, 200
"""Sub-samples per held-back sample, and held-back samples at most."""


@dataclass(frozen=True)
class Trial:
    """What a choice of k could certify.

    Args:
        keep: elements kept of each modality.
        reach: largest radius of each modality that unanimous votes certify, attacked alone.
        right: share of sub-samples of held-back training samples that a short training labels right; None where the
            recipe trains nothing, and of segmentations.
        certified: at some radius vectors of the curve, in words, the share of held-back samples that would be certified
            right if they kept their shares of votes at the recipe's N.
    """

    keep: Mapping[str, int]
    reach: tuple[int, ...]
    right: float | None
    certified: Mapping[str, float]


def try_keeps(recipe: CertifyRecipe, *, progress: Reporter | None = None) -> list[Trial]:
    """Try a quarter to four times the recipe's numbers of kept elements; nothing is kept on disk.

    The data that are judged are not looked at: held-back samples are every fifth group of the training data.

    Raises:
        ValueError: a recipe with noise, or without `keep`.
    """
    if recipe.noise or not recipe.keep:
        raise ValueError("Expected a recipe of sub-sampling alone to choose `keep` for, but got one with noise.")
    samples = read_samples(recipe.data, recipe.max_samples)
    sizes = {m: element_count(samples.modalities[m]) for m in recipe.keep}
    training = None
    if recipe.train is not None and samples.labels.ndim == 1:
        training = read_samples(recipe.train.data.completed(recipe.data), None)
    found = []
    choices = list(dict.fromkeys(tuple(_scaled(recipe.keep, sizes, factor).items()) for factor in FACTORS))
    with (progress or Silent()).task("try numbers of kept elements", total=len(choices)) as task:
        for choice in choices:
            found.append(_trial(recipe, dict(choice), sizes, samples, training))
            task.advance()
    return found


def _scaled(keep: Mapping[str, int], sizes: Mapping[str, int], factor: float) -> dict[str, int]:
    return {m: min(sizes[m], max(1, round(k * factor))) if k else 0 for m, k in keep.items()}


def _trial(
    recipe: CertifyRecipe,
    keep: dict[str, int],
    sizes: Mapping[str, int],
    samples: MultiModalSamples,
    training: MultiModalSamples | None,
) -> Trial:
    n, k, kinds = tuple(sizes.values()), tuple(keep.values()), kinds_of(recipe.kind, tuple(sizes))
    elements = prod(samples.labels.shape[1:])
    reach = preflight(n=n, k=k, draws=recipe.draws, alpha=recipe.alpha, kind=kinds, elements=elements).reach
    whole = tuple(int(r) for r in reach)
    if training is None:
        return Trial(keep, whole, None, {})
    shares = _shares(recipe, keep, training)
    bounds = 2 * majority_bounds(np.floor(shares * recipe.draws).astype(np.int64), recipe.draws, recipe.alpha) - 1
    curve = recipe.curve.build() if recipe.curve is not None else [{}]
    picked = [curve[i] for i in sorted({round(i) for i in np.linspace(0, len(curve) - 1, 4)})]
    margins = Margins(n, k, kinds).at([[vector.get(m, 0) for m in sizes] for vector in picked])
    told = ["(" + ", ".join(str(vector.get(m, 0)) for m in sizes) + ")" for vector in picked]
    certified = {at: float((bounds >= margin).mean()) for at, margin in zip(told, margins.tolist(), strict=True)}
    return Trial(keep, whole, float(shares.mean()), certified)


def _shares(recipe: CertifyRecipe, keep: dict[str, int], training: MultiModalSamples) -> Float[np.ndarray, " held"]:
    """Return, per held-back sample, the share of sub-samples that a short training labels right."""
    assert recipe.train is not None
    judged = np.flatnonzero(training.labels >= 0)
    groups = training.groups[judged]
    groups = groups if len(set(groups.tolist())) > 1 else judged
    behind = np.isin(groups, np.unique(groups)[::SHORTER])
    held = training.select(judged[behind][:: max(1, -(-int(behind.sum()) // MOST))])
    if behind.all() or not behind.any():
        raise ValueError(f"Expected two groups of training samples or more, to hold some back, but got {len(judged)}.")
    plan = recipe.train.model_copy(update={"steps": max(1, recipe.train.steps // SHORTER), "keep": keep})
    device = choose_device(recipe.device)
    row = MODELS.find(recipe.model)
    model = train_base(plan, recipe, row.fresh, training.select(judged[~behind]), device=device)
    values = input_arrays(model, held)
    how = CertifyOptions(keep=keep, seed=recipe.seed, batch_size=recipe.batch_size, device=device)
    asked = Asked(model, values, design_for(model, values, how))
    with evaluation_mode(model, device), Silent().task("", total=1) as task:
        ids = np.arange(len(held))
        votes = class_votes((0, DRAWS), asked=asked, ids=ids, task=task)
    return np.asarray(votes[ids, held.labels] / DRAWS)
