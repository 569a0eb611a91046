"""`train`: one trainer for every defence."""

import copy
import os
import warnings
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate.tracking import get_available_trackers
from torch import nn

from crossguard.attacks.table import make_attack
from crossguard.checks import WrongKind, check_whole
from crossguard.data import OneToManyPairs, as_pairs
from crossguard.extras import install, pip
from crossguard.launch import is_main
from crossguard.models import Captioner, VisionLanguageModel
from crossguard.models.plain_torch import check_weights, plain_torch
from crossguard.models.unseen import linked_as_read, report_cut_texts
from crossguard.progress import Reporter, Silent, shown
from crossguard.runs import RunFolder, opened
from crossguard.threat import ThreatModel
from crossguard.training.batches import Pictures, StepBatches
from crossguard.training.compiled import check_compiler, compiled_images
from crossguard.training.devices import make_accelerator, world_of
from crossguard.training.job import Job
from crossguard.training.options import TrainOptions
from crossguard.training.plan import make_plan
from crossguard.training.recompute import layers_of, recomputed
from crossguard.training.validation import Validation

Model = TypeVar("Model", bound=nn.Module)


@plain_torch()
def train(
    model: Model,
    pairs: OneToManyPairs | Any,
    *,
    defence: str = "mat+",
    threat: ThreatModel | None = None,
    steps: int,
    seed: int = 0,
    new_originals: OneToManyPairs | Any | None = None,
    validation: OneToManyPairs | Any | None = None,
    run: RunFolder | Path | str | None = None,
    pictures: Pictures | None = None,
    progress: Reporter | None = None,
    device: torch.device | str | None = None,
    **options: Any,
) -> Model:
    """Fine-tune a model with a defence, and return the trained copy.

    Every step draws images and texts (see `Composition`), searches adversarial ones within the threat model against
    the current weights (see `InnerAttack`), and takes one AdamW step on the defence's loss. Content and noise of a step
    are functions of (seed, step): the same call gives the same weights, and a run that was stopped goes on from its
    last checkpoint to the very same weights (on a CPU, with the same number of threads).

    A `FusionModel` is trained to match images and texts as well as to compare them, a `Captioner` on its caption loss
    (see `terms.terms_for`); the inner attack raises the same loss. Where several processes were launched, call `train`
    in each of them with the same arguments; negatives are everyone's, and two processes do what one does with twice
    the batch.

    Args:
        model: a `VisionLanguageModel` or `Captioner`; not changed. Parameters with `requires_grad` off stay as they
            are.
        pairs: what to train on: pairs, or what `crossguard.as_pairs` takes (its split "train", if it tells splits).
        defence: a name of `DEFENCES`.
        threat: budgets of "image" (`LInf`, `L2` or `Patch`) and "text" (`WordEdits`). A modality without budget is not
            attacked; "clean" needs none.
        steps: optimiser steps.
        seed: decides batches, noise and dropout.
        new_originals: other originals, for `links="new-originals"`.
        validation: held-out pairs (the split "val" of what tells splits); retrieval at rank 1 on them, of a captioner
            the loss of their captions, is logged and shown, clean and attacked.
        run: a run, or its folder, for checkpoints and `training.jsonl`; a training begun there goes on. In several
            processes the main one alone opens it, and the others must see the same disk.
        pictures: pictures decoded before, to share them between trainings; default: decoded here.
        progress: where loss, clean and robust batch accuracy and speed are shown; default: bars where a person is
            there to see them.
        device: where to train; default: where the model is. The trained copy is put where the model is.
        options: everything else, by the names of `TrainOptions`: `batch_size`, `learning_rate`, `links`, ...

    Returns:
        A trained copy in evaluation mode, its `name` extended by the defence.

    Warns:
        UserWarning: texts are longer than the model's context and are cut, or differ only in what it does not read
            and are then linked to the same images; how many, and the first.

    Raises:
        WrongKind: the model is neither a vision-language model nor a captioner.
        ValueError: an unknown defence or option (the nearest is named) or an option out of range, a threat under which
            the defence attacks nothing, too few images, a checkpoint of another training, weights made inside
            `torch.inference_mode`.
        FloatingPointError: the loss or its gradient is not finite; the last checkpoint stands.
    """
    if run is not None and not isinstance(run, RunFolder):
        given = {"new_originals": new_originals, "validation": validation, "pictures": pictures, **options}
        given |= {"defence": defence, "threat": threat, "steps": steps, "progress": progress, "device": device}
        with opened(run if is_main() else None, verb="train", seed=seed) as folder:
            return train(model, pairs, seed=seed, run=folder, **given)
    if not isinstance(model, VisionLanguageModel | Captioner):
        raise WrongKind(f"Expected a VisionLanguageModel or Captioner to train, but got {type(model).__name__}.")
    check_weights(model)
    pairs = as_pairs(pairs, split="train")
    new_originals = None if new_originals is None else as_pairs(new_originals, split="train")
    validation = None if validation is None else as_pairs(validation, split="val")
    steps, seed = check_whole(steps, "steps", least=1), check_whole(seed, "seed", least=0)
    how = TrainOptions.read(options)
    if isinstance(model, VisionLanguageModel):
        pairs = _as_read(model, pairs)
        new_originals = None if new_originals is None else _as_read(model, new_originals)
        validation = None if validation is None else _as_read(model, validation)
    home = next(model.parameters()).device
    where = home if device is None else torch.device(device)
    check_tracker(how.tracker, run)
    accelerator = make_accelerator(
        where,
        precision=how.precision,
        tracker=None if run is None else how.tracker,
        folder=None if run is None else run.path,
    )
    world = world_of(accelerator)
    progress = shown(progress) if world.main else Silent()
    plan = make_plan(
        pairs,
        how,
        model=model,
        defence=defence,
        threat=threat,
        new_originals=new_originals,
        steps=steps,
        seed=seed,
        processes=world.size,
    )
    attack = make_attack(_validation_attack(model, how)) if threat else None
    check_validation(how.keep, validation)
    if how.compile:
        check_compiler(where)
    if how.recompute:
        layers_of(model)
    world.same("training", plan.settings)
    if isinstance(model, VisionLanguageModel) and world.main:
        report_cut_texts(model, plan.pairs.texts)
    if pictures is None:
        pictures = Pictures(model, plan.pairs, progress=progress)
    pictures.check_show(plan.pairs)

    judge = None
    if validation is not None:
        held_out = Pictures(model, validation, progress=progress)
        judge = Validation(validation, held_out, attack, threat or ThreatModel(), how.batch_size, seed)

    student = copy.deepcopy(model).to(accelerator.device)
    student.zero_grad(set_to_none=True)
    flags = {name: parameter.requires_grad for name, parameter in student.named_parameters()}
    job = Job(plan, student, model, accelerator, run=run, judge=judge)
    batches = StepBatches(plan.pairs, pictures, plan.composition, seed=seed, world=world)
    workers = how.workers
    if workers is None:
        workers = 0 if pictures.in_memory else min(4, os.cpu_count() or 1)
    # Dropout draws from PyTorch's global generator: it is seeded anew at every step, and put back at the end.
    with (
        torch.random.fork_rng(devices=[accelerator.device] if accelerator.device.type == "cuda" else []),
        compiled_images(student, wanted=how.compile),
        recomputed(student, wanted=how.recompute),
        world.together(),
    ):
        job.fit(batches, workers=workers, progress=progress)
    student.zero_grad(set_to_none=True)
    for name, parameter in student.named_parameters():
        parameter.requires_grad_(flags[name])
    student.name = f"{model.name}-{defence}"
    return student.to(home).eval()


def _as_read(model: VisionLanguageModel, pairs: OneToManyPairs) -> OneToManyPairs:
    """Return pairs with links between all that the model cannot tell apart, and say so if there are any."""
    linked = linked_as_read(model, pairs)
    if linked is not pairs and is_main():
        warnings.warn(f"{pairs.name} ({pairs.split}): {linked.notes[-1]}", stacklevel=4)
    return linked


def check_tracker(tracker: str | None, run: RunFolder | None) -> None:
    """Refuse a tracker that is not installed, and one without a folder.

    Raises:
        ValueError: saying which.
    """
    if tracker is None:
        return
    if tracker not in {str(name) for name in get_available_trackers()}:
        known = {"tensorboard": install("tracking")}.get(tracker, pip([tracker]))
        raise ValueError(f"Expected a tracker that is installed, but {tracker!r} is not here: {known}")
    if run is None and is_main():
        raise ValueError("Expected a `run` folder together with `tracker`, but got none.")


def check_validation(keep: str, validation: OneToManyPairs | None) -> None:
    """Refuse to keep the best of what is not validated.

    Raises:
        ValueError: saying so.
    """
    if keep == "best" and validation is None:
        raise ValueError("Expected `validation` pairs together with keep='best', but got none.")


def _validation_attack(model: nn.Module, how: TrainOptions) -> str:
    """Return the attack on held-out pairs; of a captioner's pictures it is PGD unless Auto-PGD is asked for."""
    if isinstance(model, VisionLanguageModel) or how.validation_attack in ("pgd", "apgd"):
        return how.validation_attack
    return "pgd"
