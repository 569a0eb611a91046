"""What is called, task by task, and what is kept of the answer: all that a change of the calls has to touch here.

Each function returns rows of plain values. Whole numbers, texts and names are held to exactly; other numbers to a few
parts in ten thousand; `Change`s of inputs, value by value, but for a few.
"""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np

from crossguard.attacks import attack_samples
from crossguard.certify import Smoothed, certify, certify_segmentation
from crossguard.evaluate import evaluate
from crossguard.evaluate.envelope import sparse_envelope
from crossguard.evaluate.statistics import values_of
from grounding_models import LAYER

SHOWN = 96
"""Values of each changed input that are kept."""


@dataclass(frozen=True)
class Change:
    """How an attack changed an input: some of its values, spread evenly, in steps of what can be stored.

    Args:
        steps: int [values].
    """

    steps: np.ndarray

    @classmethod
    def between(cls, clean, adversarial, *, step):
        """Take some values of the difference, the same ones each time."""
        difference = (np.asarray(adversarial, np.float64) - np.asarray(clean, np.float64)).reshape(-1)
        places = np.linspace(0, len(difference) - 1, min(SHOWN, len(difference))).round().astype(int)
        return cls(np.rint(difference[places] / step).astype(int))


def retrieval(model, pairs, *, attack, options, threat, **more):
    """Ranks of every query under attack on each modality alone and on both, and the pictures."""
    asked = {"attack": attack, "threat": threat, "attack_options": options, "seed": 3, "batch_size": 4, **more}
    with TemporaryDirectory() as folder:
        result = evaluate(model, pairs, modalities=len(threat) > 1, run=folder, examples=0, **asked)
        pictures = _pictures(model, pairs, folder)
    kept = ("clean_rank", "robust_rank", "shared_rank", "words", "adversarial_text")
    rows = [{"part": o.part, **_read(model, _some(row, kept))} for o in result for row in o.rows]
    figures = [{"part": o.part, "robust": values_of(o.estimates["robust"])} for o in result]
    return rows + pictures + figures


def grounding(model, expressions, *, attack, options, threat):
    """Boxes of every expression, and the pictures."""
    asked = {"attack": attack, "threat": threat, "attack_options": options, "seed": 3, "batch_size": 2}
    with TemporaryDirectory() as folder:
        result = evaluate(model, expressions, layer=LAYER, run=folder, examples=0, **asked)
        pictures = _pictures(model, expressions, folder)
    kept = ("clean_box", "robust_box", "clean_iou", "robust_iou", "words", "adversarial_text")
    return [_read(model, _some(row, kept)) for row in result.rows] + pictures


def captioning(model, pairs, *, attack, options, threat, objective):
    """Captions and losses of every picture, and the pictures."""
    asked = {"attack": attack, "threat": threat, "attack_options": options, "seed": 3, "batch_size": 2}
    without_java = patch("crossguard.evaluate.captioning_tokens.shutil.which", return_value=None)
    with TemporaryDirectory() as folder, without_java:
        result = evaluate(
            model, pairs, task="captioning", objective=objective, max_length=8, run=folder, examples=0, **asked
        )
        pictures = _pictures(model, pairs, folder)
    kept = ("clean_caption", "robust_caption", "clean_loss", "robust_loss")
    return [_some(row, kept) for row in result.rows] + pictures


def zero_shot(model, images, *, attack, options, threat):
    """Classes of every picture, and its change."""
    result = evaluate(model, images, attack=attack, threat=threat, attack_options=options, seed=3)
    return [_some(row, ("clean", "robust", "edited", "linf")) for row in result.rows]


def samples_task(model, samples, *, attack, options, threat, objective, steps):
    """Labels, or numbers of pixels, of every sample, and its changed values, counted in `steps` by modality."""
    asked = {"attack": attack, "attack_options": options, "threat": threat, "objective": objective, "seed": 3}
    result = evaluate(model, samples, **asked)
    rows = [_some(row, ("clean", "robust", "lost", "edited")) for row in result.rows]
    found = attack_samples(model, samples, **asked)
    for index, row in enumerate(rows):
        row["change"] = {
            m: Change.between(found.clean.modalities[m][index], found.samples.modalities[m][index], step=step)
            for m, step in steps.items()
        }
    return [*rows, {"robust": dict(result.robust)}]


def class_certificate(model, samples, **options):
    """Votes of every sample, its label, and the radii that are certified."""
    found = certify(model, samples, seed=3, batch_size=16, **options)
    rows = [
        {"votes": votes.tolist(), "label": int(label), "frontier": found.frontier(index).tolist()}
        for index, (votes, label) in enumerate(zip(found.counts.votes, found.labels, strict=True))
    ]
    return [*rows, {"gaps": [float(gap) for gap in found.gaps]}]


def pixel_certificate(model, samples, radii, **options):
    """Labels of every image's pixels, and the numbers of pixels that bounds rest on."""
    found = certify_segmentation(model, samples, seed=3, **options)
    rows = [{"labels": found.image(i, radii).label.reshape(-1).tolist()} for i in range(len(samples.labels))]
    return [*rows, *(dict(vars(bounds)) for bounds in found.bounds(radii))]


def envelope(model, samples, radii, *, keep, segments=False):
    """What the smoothed model answers under attack within each radii."""
    smoothed = Smoothed(model, keep=keep, draws=20, attack_draws=5, segments=segments)
    found = sparse_envelope(smoothed, samples, radii, attack_options={"rounds": 1, "steps": 2}, seed=3)
    return [{"answers": answers.reshape(-1).tolist()} for answers in found.answers]


def _some(row, names):
    return {name: row[name] for name in names if name in row}


def _read(model, row):
    """Tell a text as the model reads it: words that it does not know are all alike to it, and rounding picks one."""
    text = row.pop("adversarial_text", None)
    return row if text is None else row | {"adversarial_tokens": model.tokenize([text]).ids[0].tolist()}


def _pictures(model, data, folder):
    """Return how each stored picture differs from the one that the model sees without attack."""
    rows = []
    for path in sorted(Path(folder).rglob("batch-*.npz")):
        with np.load(path, allow_pickle=False) as stored:
            ids, grey = stored["image_ids"], stored["grey"]
        clean = (model.preprocess([data.image(int(i)) for i in ids]) * 255).round().numpy()
        rows += [
            {"picture": int(i), "change": Change.between(*pair, step=1)}
            for i, *pair in zip(ids, clean, grey, strict=True)
        ]
    return rows
