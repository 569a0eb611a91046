"""`evaluate_captioning`: captions clean and under attack, in batches that resume where they stopped."""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import nn

from crossguard.attacks.base import Attack, frozen
from crossguard.checks import WrongKind
from crossguard.data import OneToManyPairs
from crossguard.evaluate.asked import check_budgets, part_name, resolve_attack
from crossguard.evaluate.captioning_attack import CaptionObjective, check_caption_attack
from crossguard.evaluate.captioning_result import CaptioningResult, caption_figures
from crossguard.evaluate.captioning_scores import unavailable_metrics
from crossguard.evaluate.captioning_task import Beam, CaptioningTask
from crossguard.evaluate.captioning_tokens import choose_tokenizer
from crossguard.evaluate.features import on_device
from crossguard.evaluate.fingerprint import pairs_fingerprint, weights_fingerprint
from crossguard.evaluate.sample_examples import SampleExample, SampleExamples, spread_evenly
from crossguard.evaluate.task_run import (
    Carried,
    Measurement,
    carry_out,
    keep_examples,
    keep_summary,
    kept_summary,
)
from crossguard.models import Captioner
from crossguard.progress import Reporter, Silent
from crossguard.runs import RunFolder
from crossguard.threat import ThreatModel

_SILENT = Silent()


def evaluate_captioning(
    model: Captioner,
    pairs: OneToManyPairs,
    *,
    attack: Attack | str | None = None,
    threat: ThreatModel | None = None,
    objective: CaptionObjective = "references",
    beams: int = 3,
    min_length: int = 5,
    max_length: int = 20,
    seed: int = 0,
    batch_size: int = 16,
    label: str | None = None,
    run: RunFolder | None = None,
    progress: Reporter = _SILENT,
    device: torch.device | str | None = None,
    attack_options: Mapping[str, Any] | None = None,
    examples: int = 4,
) -> CaptioningResult:
    """Measure captioning, clean and under an attack on the pictures.

    The model writes one caption per image by beam search; BLEU, METEOR, ROUGE-L, CIDEr and SPICE hold them against the
    image's texts. METEOR, SPICE and the usual tokenizer need Java; without it the others are given, with a plain
    tokenizer, and the result says so. The attack raises the model's loss of the references, or of the caption that it
    writes for the clean picture (`objective`). Its success is told as drop of every score and as share of captions
    changed. What is judged are the finished pictures, rounded to 8 bits.

    With a `run`, each batch is kept at once; calling again with the same arguments goes on where it stopped, and
    returns a finished evaluation from its rows.

    Args:
        model: a captioner.
        pairs: images, with their captions as references.
        attack: "pgd" or "apgd" (or such an attack with options of its own), or None to measure clean only.
        threat: an L-inf budget for the image.
        objective: "references" or "own-caption".
        beams: hypotheses kept per image.
        min_length: fewest tokens, prompt and end included.
        max_length: most tokens, the same counted.
        seed: of the attack and of the intervals.
        batch_size: images per batch.
        label: name of this measurement in tables and in the run; default: the model's name.
        run: where rows, adversarial pictures and summary go.
        progress: where progress is shown.
        device: where to compute; None: where the model is.
        attack_options: options of an attack given by name.
        examples: how many images are kept as examples.

    Returns:
        Clean and robust scores, attack success, intervals and rows.

    Raises:
        WrongKind: the model is no captioner.
        ImportError: pycocoevalcap is not installed.
        ValueError: no pairs, an attack without a threat or the reverse, an attack or a threat that does not fit a
            captioner, lengths out of range, or a run begun with other settings.
    """
    if not isinstance(model, Captioner) or not isinstance(model, nn.Module):
        raise WrongKind(f"Expected a Captioner (see crossguard.models), but {type(model).__name__} is none.")
    if not pairs.images or batch_size < 1:
        raise ValueError(
            f"Expected images and `batch_size` >= 1, but got {len(pairs.images)} images in {pairs.name} "
            f"({pairs.split}) and {batch_size}."
        )
    found = resolve_attack(attack, attack_options)
    check_budgets(found, threat)
    if found is not None and threat is not None:
        check_caption_attack(found, threat, objective)
    unavailable_metrics()  # raises now where pycocoevalcap is not there
    task = CaptioningTask(model, pairs, Beam(beams, min_length, max_length), objective, batch_size)
    with on_device(model, device) as where, frozen(model), ExitStack() as stack:
        facts = {
            "model": model.name,
            "weights": weights_fingerprint(model),
            "data": pairs.name,
            "split": pairs.split,
            "content": pairs_fingerprint(pairs),
            "data_notes": list(pairs.notes),
            "batch_size": batch_size,
            **vars(task.beam),
            "prompt": model.prompt,
            "objective": objective if found is not None else None,
        }
        part = part_name(threat)
        measurement = Measurement(task, {part: threat}, found, seed, label or model.name, facts, run, progress)
        carried = carry_out(measurement, device=where, stack=stack)[part]
        shown = keep_examples(measurement, part, lambda: _examples(task, carried, count=examples))
    result = CaptioningResult(carried.rows, carried.settings, _figures(measurement, part, carried), shown)
    keep_summary(measurement, part, result.summary())
    return result


def _figures(measurement: Measurement, part: str, carried: Carried) -> dict[str, Any]:
    """Return the figures that the run holds, unless more metrics can be computed by now, or compute them."""
    known, tokenizer = kept_summary(measurement, part), choose_tokenizer()
    names = ("clean", "robust", "success", "intervals", "figures", "draws", "loss", "missing", "tokenizer")
    if known.get("tokenizer") == tokenizer and set(known["missing"]) == set(unavailable_metrics()):
        return {name: known[name] for name in names}
    with measurement.progress.task("Score captions", total=1) as progress:
        figures = caption_figures(carried.rows, tokenizer=tokenizer, seed=measurement.seed)
        progress.advance()
    return figures


def _examples(task: CaptioningTask, found: Carried, *, count: int) -> SampleExamples:
    chosen, examples = spread_evenly(list(range(len(found.rows))), count=count), []
    for number, images in enumerate(task.batches):
        here = [place for place in chosen if place in images]
        if not here:
            continue
        stored = found.store.read(number)
        pixels = (task.load(images).pixels * 255).round().byte().permute(0, 2, 3, 1).numpy()
        for place in here:
            row = int(np.searchsorted(images, place))
            sides = [pixels[row]] if stored is None else [pixels[row], stored.grey[row].transpose(1, 2, 0)]
            photo = task.pairs.image(place)
            examples.append(
                SampleExample(
                    row=found.rows[place],
                    size=(photo.height, photo.width),
                    pictures=np.stack(sides),
                    maps=np.zeros((len(sides), 0, 0), np.float32),
                )
            )
    return SampleExamples(tuple(examples))
