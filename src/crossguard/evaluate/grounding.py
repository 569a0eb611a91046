"""`evaluate_grounding`: visual grounding clean and under attack, in batches that resume where they stopped."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from torch import nn

from crossguard.attacks.base import Attack, frozen
from crossguard.checks import WrongKind
from crossguard.data import ReferringExpressions
from crossguard.evaluate.asked import check_budgets, part_name, parts_of, resolve_attack
from crossguard.evaluate.features import on_device
from crossguard.evaluate.fingerprint import weights_fingerprint
from crossguard.evaluate.grounding_boxes import RIGHT
from crossguard.evaluate.grounding_result import GroundingResult
from crossguard.evaluate.grounding_task import GroundingTask
from crossguard.evaluate.sample_examples import SampleExample, SampleExamples, spread_evenly
from crossguard.evaluate.task_run import Carried, Measurement, carry_out, keep_examples, keep_summary
from crossguard.models import GROUNDING_LAYER, GroundingModel, PixelRule
from crossguard.progress import Reporter, Silent
from crossguard.runs import RunFolder
from crossguard.threat import ThreatModel

_SILENT = Silent()


def evaluate_grounding(
    model: GroundingModel,
    expressions: ReferringExpressions,
    *,
    attack: Attack | str | None = None,
    threat: ThreatModel | None = None,
    seed: int = 0,
    batch_size: int = 16,
    layer: int = GROUNDING_LAYER,
    label: str | None = None,
    run: RunFolder | None = None,
    progress: Reporter = _SILENT,
    device: torch.device | str | None = None,
    attack_options: Mapping[str, Any] | None = None,
    examples: int = 4,
) -> GroundingResult:
    """Measure visual grounding, clean and under an attack.

    For every expression the model's gradient-weighted attention to the image (see `models.attention_maps`) is added up
    inside each proposal and divided by the root of its area; the best proposal is the answer, right from an
    intersection over union of one half with the true box. Where the map points nowhere there is no answer, which is a
    miss. Proposals come from the clean image and are not attacked; the result says so. Every image is attacked together
    with all its expressions, and every expression under its own image alone; what is judged are the finished pictures,
    rounded to 8 bits, and texts.

    With a `run`, each batch is kept at once; calling again with the same arguments goes on where it stopped, and
    returns a finished evaluation from its rows.

    Args:
        model: a fusion model that shows where it looks (ALBEF, BLIP), and takes the whole photo.
        expressions: the data, as `load_expressions` gives them.
        attack: a name of the table, an attack, or None to measure clean only.
        threat: what the attack may do; only modalities that it can use.
        seed: seed of the attack, the same for every batch.
        batch_size: images per batch. Attacks may look at a whole batch, so it belongs to the settings.
        layer: the layer whose attention is looked at, counted among all of BERT's from 0.
        label: name of this measurement in tables and in the run; default: the model's name.
        run: where rows, adversarial samples and summary go.
        progress: where progress is shown.
        device: where to compute; None: where the model is.
        attack_options: options of an attack given by name.
        examples: how many expressions are kept as examples.

    Returns:
        Clean and robust accuracy, attack success, intervals and rows.

    Raises:
        WrongKind: the model lacks members of the protocol.
        ValueError: no expressions, a model that crops photos or lacks the layer, an attack without a threat or the
            reverse, a threat with a modality the attack cannot use, or a run begun with other settings.
    """
    given = {part_name(threat): threat}
    asked = _Asked(model, expressions, attack, given, seed, batch_size, layer, label, run, progress, attack_options)
    return _measure(asked, device=device, examples=examples)[part_name(threat)]


def evaluate_grounding_modalities(
    model: GroundingModel,
    expressions: ReferringExpressions,
    *,
    attack: Attack | str,
    threat: ThreatModel,
    seed: int = 0,
    batch_size: int = 16,
    layer: int = GROUNDING_LAYER,
    label: str | None = None,
    run: RunFolder | None = None,
    progress: Reporter = _SILENT,
    device: torch.device | str | None = None,
    attack_options: Mapping[str, Any] | None = None,
    examples: int = 4,
) -> dict[str, GroundingResult]:
    """Measure grounding under an attack on each modality alone and on all of them together.

    The clean maps are computed once. Arguments are those of `evaluate_grounding`.

    Returns:
        By modality ("image", "text") and, if the threat has several, "joint": the result under that part of the threat.

    Raises:
        WrongKind: the model lacks members of the protocol.
        ValueError: as `evaluate_grounding`.
    """
    given: Mapping[str, ThreatModel | None] = parts_of(threat) or {"": threat}
    asked = _Asked(model, expressions, attack, given, seed, batch_size, layer, label, run, progress, attack_options)
    return _measure(asked, device=device, examples=examples)


@dataclass(frozen=True)
class _Asked:
    model: GroundingModel
    expressions: ReferringExpressions
    attack: Attack | str | None
    parts: Mapping[str, ThreatModel | None]
    seed: int
    batch_size: int
    layer: int
    label: str | None
    run: RunFolder | None
    progress: Reporter
    attack_options: Mapping[str, Any] | None

    def check(self) -> nn.Module:
        """Return the model as a module, once everything about the call is right."""
        if not isinstance(self.model, GroundingModel) or not isinstance(self.model, nn.Module):
            raise WrongKind(
                f"Expected a model that shows where it looks (crossguard.models.GroundingModel: ALBEF, BLIP), but "
                f"{type(self.model).__name__} does not."
            )
        rule = getattr(self.model, "pixel_rule", None)
        if isinstance(rule, PixelRule) and rule.crop:
            raise ValueError(
                f"Expected a model that takes the whole photo, for its maps to be laid over it, but {self.model.name} "
                "crops the centre."
            )
        if not len(self.expressions):
            raise ValueError(f"Expected expressions, but {self.expressions.name} ({self.expressions.split}) has none.")
        if self.batch_size < 1:
            raise ValueError(f"Expected `batch_size` >= 1, but got {self.batch_size}.")
        attack = resolve_attack(self.attack, self.attack_options)
        for threat in self.parts.values():
            check_budgets(attack, threat)
            if threat is not None and threat.target != "both":
                raise ValueError(
                    f"Expected target 'both': grounding has no queries and no gallery, but got {threat.target!r}."
                )
        return self.model


def _measure(asked: _Asked, *, device: torch.device | str | None, examples: int) -> dict[str, GroundingResult]:
    module, data = asked.check(), asked.expressions
    task = GroundingTask(asked.model, data, asked.layer, asked.batch_size)
    with on_device(module, device) as where, frozen(asked.model), ExitStack() as stack:
        _check_layer(task, where)
        measurement = Measurement(
            task=task,
            parts=asked.parts,
            attack=resolve_attack(asked.attack, asked.attack_options),
            seed=asked.seed,
            label=asked.label or asked.model.name,
            facts={
                "model": asked.model.name,
                "weights": weights_fingerprint(module),
                "data": data.name,
                "split": data.split,
                "content": expressions_fingerprint(data),
                "batch_size": asked.batch_size,
                "layer": asked.layer,
            },
            run=asked.run,
            progress=asked.progress,
        )
        carried = carry_out(measurement, device=where, stack=stack)
        return {
            part: _result(measurement, task, part, found, device=where, examples=examples)
            for part, found in carried.items()
        }


def _check_layer(task: GroundingTask, device: torch.device) -> None:
    """Ask for one map, so that a layer that is not there is told before the long work."""
    batch = task.load(np.array([0], dtype=np.int64)).to(device)
    with torch.no_grad():
        states = task.model.encode_image_states(batch.pixels), task.model.encode_text_states(batch.texts[:1])
        task.model.match_with_attention(*states, torch.tensor([[0, 0]]), layer=task.layer)


def _result(
    measurement: Measurement, task: GroundingTask, part: str, found: Carried, *, device: torch.device, examples: int
) -> GroundingResult:
    shown = keep_examples(measurement, part, lambda: _examples(task, found, count=examples, device=device))
    result = GroundingResult(found.rows, found.settings, shown)
    keep_summary(measurement, part, result.summary())
    return result


def _examples(task: GroundingTask, found: Carried, *, count: int, device: torch.device) -> SampleExamples:
    """Look once more at a few expressions, clean and as the attack left them."""
    right = [place for place, row in enumerate(found.rows) if row["clean_iou"] >= RIGHT]
    chosen = spread_evenly(right or list(range(len(found.rows))), count=count)
    examples = []
    for number, images in enumerate(task.batches):
        samples = task.samples_of(images).tolist()
        here = [place for place in chosen if place in samples]
        if not here:
            continue
        batch, stored = task.load(images).to(device), found.store.read(number)
        sides = [(batch.pixels, batch.texts)]
        if stored is not None:
            sides.append((stored.pixels.to(device), stored.texts))
        maps = [task.maps(batch, pixels, texts) for pixels, texts in sides]
        for place in here:
            row, image = samples.index(place), int(task.expressions.image_of[place])
            seen = [(pixels[int(batch.links[row, 0])] * 255).round().byte().permute(1, 2, 0) for pixels, _ in sides]
            height, width = (int(side) for side in task.expressions.sizes[image])
            examples.append(
                SampleExample(
                    row=found.rows[place],
                    size=(height, width),
                    pictures=np.stack([picture.cpu().numpy() for picture in seen]),
                    maps=np.stack([side[row] for side in maps]).astype(np.float32),
                )
            )
    return SampleExamples(tuple(examples))


def expressions_fingerprint(expressions: ReferringExpressions) -> str:
    """Return 32 hexadecimal digits that change with any image file, expression, box or proposal.

    Raises:
        ValueError: an image file is missing.
    """
    digest = blake2b(digest_size=16)
    for picture, proposals in zip(expressions.images, expressions.proposals, strict=True):
        content = picture.read()
        digest.update(f"{picture.key!r} {len(content)} {proposals.tolist()};".encode())
        digest.update(content)
    for key, text in zip(expressions.keys, expressions.texts, strict=True):
        digest.update(f"{key!r} {text!r};".encode())
    for values in (expressions.image_of, expressions.boxes, expressions.sizes):
        digest.update(values.tobytes())
    return digest.hexdigest()
