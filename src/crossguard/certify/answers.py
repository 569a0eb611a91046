"""`predict`: the model that certificates speak of, answering or abstaining."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64

from crossguard.certify.arguments import probability
from crossguard.certify.bounds import log_tail
from crossguard.certify.design import design_for, position_free
from crossguard.certify.leaders import most_votes
from crossguard.certify.options import Ablation, CertifyOptions
from crossguard.certify.sampling import Asked, class_votes, evaluation_mode, pixel_votes
from crossguard.certify.saved_design import SavedDesign
from crossguard.certify.segment import image_size
from crossguard.certify.thresholds import Scheme
from crossguard.checks import check_choice
from crossguard.data.samples import MultiModalSamples, element_count
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
    precision: str = "float32",
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
        precision: of the base model, as `certify`; a saved design has its own.
        progress: shows sub-samples asked about.

    Returns:
        int64 [samples], or [samples, height, width] for segmentations: class indices, -1 where it abstains.

    Raises:
        ValueError: settings beside a saved design, which needs none (beside random draws `draws`, `alpha` and `seed`
            may be given); none without one; samples of another number of
            elements than the design's, unless the model is not told where elements stand; a folder whose design or
            model was changed after it was certified; or what `certify` refuses.
    """
    asked, saved = _loaded(model, device) if isinstance(model, Path | str) else (model, None)
    values = input_arrays(asked, samples)
    segments = samples.labels.ndim == 3
    more: dict[str, Any] = {"batch_size": batch_size, "device": device}
    if saved is not None:
        settings = {"keep": keep, "noise": noise, "fill": fill}
        settings |= {"draws": draws, "alpha": alpha, "seed": seed} if saved.published else {}
        given = [name for name, value in settings.items() if value is not None]
        given += ["scheme"] if scheme != "independent" else []
        given += ["precision"] if precision != "float32" else []
        if given:
            raise ValueError(f"Expected no `{given[0]}` beside a saved design, which needs none.")
        sizes = {m: element_count(array) for m, array in values.items() if m not in saved.noise}
        # Insertions and deletions change the number of elements, where the model is not told it.
        any_number = () if saved.published else position_free(asked)
        if any(sizes.get(m) != n and m not in any_number for m, n in saved.n.items()) or set(sizes) != set(saved.n):
            raise ValueError(
                f"Expected samples of as many elements as the saved design's, {dict(saved.n)}, but got {sizes}."
            )
        if not saved.published:
            more |= {"seed": seed} | ({} if draws is None else {"draws": draws})
        how = saved.options(**more)
    elif keep is None and noise is None:
        raise ValueError("Expected `keep`, elements kept of each modality, or the folder of a model with a design.")
    else:
        check_choice(scheme, ("independent", "joint"), "scheme")
        drawn: dict[str, Any] = {"noise": noise, "draws": draws, "seed": seed, "scheme": scheme, "fill": fill}
        how = CertifyOptions(keep=keep or {}, precision=precision, **drawn, **more)
    level = probability(ALPHA if alpha is None else alpha)
    size = image_size(values, samples) if segments else None
    design = design_for(asked, values, how, mask_size=size, usual=100 if segments else 1000)
    label, top, second = _voted(Asked(asked, values, design), progress=progress)
    return label if how.published else np.where(sure(top, second, level / label[0].size), label, -1)


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


def _voted(
    asked: Asked, *, progress: Reporter | None
) -> tuple[Int64[np.ndarray, "samples ..."], Int64[np.ndarray, "samples ..."], Int64[np.ndarray, "samples ..."]]:
    """Return labels, their votes and those of the next label."""
    draws, every = asked.design.draws, range(len(asked))
    total = len(asked) * draws
    with (
        evaluation_mode(asked.model, asked.design.device),
        (progress or Silent()).task("predict", total=total) as task,
    ):
        if asked.design.mask_size is not None:
            votes = np.stack([pixel_votes((0, draws), asked=asked, image=i, task=task) for i in every])
        else:
            votes = class_votes((0, draws), asked=asked, ids=np.array(every), task=task)
    label, top = most_votes(votes)
    np.put_along_axis(votes, label[..., None], -1, axis=-1)
    return label, top, most_votes(votes)[1]
