"""`predict`: the model that certificates speak of, answering or abstaining."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64

from crossguard.certify.arguments import probability, whole_number
from crossguard.certify.bounds import log_tail
from crossguard.certify.design import Ablation, Design, design_for, is_rate, scheme_for
from crossguard.certify.leaders import most_votes
from crossguard.certify.looks import choose_seed
from crossguard.certify.sampling import class_votes, evaluation_mode, pixel_votes
from crossguard.certify.saved_design import SavedDesign
from crossguard.certify.segment import image_size
from crossguard.certify.thresholds import Scheme
from crossguard.checks import check_choice
from crossguard.data.samples import MultiModalSamples
from crossguard.models.base import MultiModalClassifier, MultiModalSegmenter
from crossguard.models.inputs import input_arrays
from crossguard.models.plain_torch import plain_torch
from crossguard.models.storage import DESIGN
from crossguard.models.table import load_model
from crossguard.progress import Reporter, Silent

ALPHA = 0.001


@plain_torch()
def predict(
    model: MultiModalClassifier | MultiModalSegmenter | Path | str,
    samples: MultiModalSamples,
    *,
    keep: Mapping[str, int | float] | None = None,
    noise: Mapping[str, float | int] | None = None,
    draws: int | None = None,
    alpha: float | None = None,
    seed: int | None = None,
    scheme: Scheme = "independent",
    fill: Ablation | None = None,
    batch_size: int | None = None,
    device: torch.device | str = "cpu",
    progress: Reporter | None = None,
) -> Int64[np.ndarray, "samples ..."]:
    """Answer as the smoothed model that `certify` and `certify_segmentation` speak of, or abstain.

    From a folder that holds a model and a published design, it is the vote of that design: exactly what was certified,
    for certain, as often as anybody asks. From one with the settings of random draws (`Certificate.save_design`) they
    are made anew by these, and without any by the arguments. Then the label of most votes is given only where a
    two-sided test is sure that it is the likeliest one (Cohen et al., ICML 2019): the answer is another one than the
    smoothed model's with probability at most `alpha` per query. So an input that was certified with `alpha` of its own
    keeps its label, or gets none, with the two alphas added.

    Args:
        model: a classifier or segmenter, or the folder of one.
        samples: what is asked about; labels are not used, but masks [samples, height, width] mark a segmentation.
        keep: elements kept of each modality, by its name.
        noise: sigma of each other modality, as `certify`.
        draws: N; None takes the saved number, or 1,000, and 100 for segmentations.
        alpha: probability of a wrong answer, per sample, all its pixels together; None takes 0.001.
        seed: of the masks; None: a fresh secret.
        scheme: "independent" or "joint", as `certify`.
        fill: what ablated elements become, as `certify`.
        batch_size: sub-samples per forward pass, as `certify`.
        device: where masks are drawn and the model runs.
        progress: shows sub-samples asked about.

    Returns:
        int64 [samples], or [samples, height, width] for segmentations: class indices, -1 where it abstains.

    Raises:
        ValueError: settings beside a saved design, which needs none (beside random draws `draws`, `alpha` and `seed`
            may be given); none without one; samples of another number of
            elements than the design's; or what `certify` refuses.
    """
    asked, saved = _loaded(model, device) if isinstance(model, Path | str) else (model, None)
    values = input_arrays(asked, samples)
    options: dict[str, Any] = {"batch_size": batch_size, "device": device}
    if samples.labels.ndim == 3:
        options["mask_size"] = image_size(values, samples)
    if saved is not None:
        settings = {"keep": keep, "noise": noise, "fill": fill}
        settings |= {"draws": draws, "alpha": alpha, "seed": seed} if saved.published else {}
        given = [name for name, value in settings.items() if value is not None]
        given += ["scheme"] if scheme != "independent" else []
        if given:
            raise ValueError(f"Expected no `{given[0]}` beside a saved design, which needs none.")
        if saved.published:
            design = _saved(asked, values, saved, saved.seed or 0, options)
            return _voted(asked, samples, values, design, saved.draws, progress=progress)[0]
        draws = saved.draws if draws is None else draws
    elif keep is None and noise is None:
        raise ValueError("Expected `keep`, elements kept of each modality, or the folder of a model with a design.")
    alpha = probability(ALPHA if alpha is None else alpha)
    draws = whole_number((100 if samples.labels.ndim == 3 else 1000) if draws is None else draws, "draws", least=1)
    check_choice(scheme, ("independent", "joint"), "scheme")
    scheme = scheme_for("random", scheme, rates=is_rate(keep or {}))
    chosen, secret = choose_seed(seed, ())
    options["secret"] = secret
    if saved is not None:
        design = _saved(asked, values, saved, chosen, options)
    else:
        options |= {"keep": keep or {}, "noise": noise, "scheme": scheme, "fill": fill}
        design = design_for(asked, values, seed=chosen, **options)
    label, top, second = _voted(asked, samples, values, design, draws, progress=progress)
    return np.where(sure(top, second, alpha / label[0].size), label, -1)


def _loaded(folder: Path | str, device: torch.device | str) -> tuple[Any, SavedDesign | None]:
    """Return the model of a folder, and the design that is kept with it."""
    saved = SavedDesign.load(folder) if (Path(folder) / DESIGN).exists() else None
    return load_model(folder, device=device), saved


def sure(top: Int64[np.ndarray, "..."], second: Int64[np.ndarray, "..."], alpha: float) -> np.ndarray:
    """Return where the label of most votes is the likeliest one but for a chance of alpha (Cohen et al., 2019).

    Args:
        top: its votes.
        second: votes of the next label.
        alpha: per element.
    """
    together = top + second
    table = np.unique(np.stack([top.ravel(), together.ravel()]), axis=1)
    passes = {
        (int(c), int(n)): bool(np.log(2) + log_tail(np.array([c]), int(n), 0.5)[0] <= np.log(alpha)) for c, n in table.T
    }
    found = [passes[pair] for pair in zip(top.ravel().tolist(), together.ravel().tolist(), strict=True)]
    return np.array(found, dtype=bool).reshape(top.shape)


def _saved(
    model: MultiModalClassifier | MultiModalSegmenter,
    values: Mapping[str, np.ndarray],
    saved: SavedDesign,
    seed: int,
    options: Mapping[str, Any],
) -> Design:
    design = design_for(
        model,
        values,
        keep=saved.k,
        scheme=saved.design,  # type: ignore[arg-type]
        seed=seed,
        fill=saved.fill,
        noise=saved.noise,
        published=saved.draws if saved.published else 0,
        **options,
    )
    if dict(design.sizes) != dict(saved.n):
        raise ValueError(
            f"Expected samples of as many elements as the saved design's, {dict(saved.n)}, but got {design.sizes}."
        )
    return design


def _voted(
    model: MultiModalClassifier | MultiModalSegmenter,
    samples: MultiModalSamples,
    values: Mapping[str, np.ndarray],
    design: Design,
    draws: int,
    *,
    progress: Reporter | None,
) -> tuple[Int64[np.ndarray, "samples ..."], Int64[np.ndarray, "samples ..."], Int64[np.ndarray, "samples ..."]]:
    """Return labels, their votes and those of the next label."""
    names = design.names(values)
    total = len(samples) * draws
    with evaluation_mode(model, design.device), (progress or Silent()).task("predict", total=total) as task:
        shared: dict[str, Any] = {"model": model, "values": values, "names": names, "design": design, "task": task}
        if samples.labels.ndim == 3:
            images = [pixel_votes((0, draws), image=i, **shared) for i in range(len(samples))]
            votes = np.stack(images)
        else:
            votes = class_votes((0, draws), ids=np.arange(len(samples)), **shared)
    label, top = most_votes(votes)
    np.put_along_axis(votes, label[..., None], -1, axis=-1)
    return label, top, most_votes(votes)[1]
