"""`train`: one trainer for every defence."""

import copy
import os
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from accelerate.utils import is_tensorboard_available
from torch import nn

from crossguard.attacks.sources import SourceLike
from crossguard.attacks.table import make_attack
from crossguard.checks import WrongKind, check_choice
from crossguard.data import OneToManyPairs
from crossguard.models import Captioner, VisionLanguageModel
from crossguard.progress import Reporter, Silent
from crossguard.runs import RunFolder
from crossguard.threat import ThreatModel
from crossguard.training.batches import Pictures, StepBatches
from crossguard.training.compiled import check_compiler, compiled_images
from crossguard.training.devices import make_accelerator, world_of
from crossguard.training.job import Job
from crossguard.training.long_texts import report_cut_texts
from crossguard.training.plan import make_plan
from crossguard.training.validation import Validation

Model = TypeVar("Model", bound=nn.Module)
_SILENT = Silent()


def train(
    model: Model,
    pairs: OneToManyPairs,
    *,
    defence: str = "mat+",
    threat: ThreatModel | None = None,
    links: str | None = None,
    new_originals: OneToManyPairs | None = None,
    steps: int,
    seed: int = 0,
    batch_size: int = 64,
    learning_rate: float = 1e-5,
    weight_decay: float = 1e-4,
    warmup: float = 0.1,
    clip_norm: float = 1.0,
    clean_weight: float = 0.0,
    texts_per_image: int | None = None,
    images_per_text: int = 1,
    positives: str = "summed",
    pgd_steps: int = 2,
    pgd_step: str | float = "co-attack",
    start: str = "uniform",
    order: str = "text-first",
    text_tries: int = 8,
    source: SourceLike | None = None,
    validation: OneToManyPairs | None = None,
    validation_attack: str = "co-attack",
    validate_every: int | None = None,
    run: RunFolder | None = None,
    checkpoint_every: int = 500,
    log_every: int = 10,
    pictures: Pictures | None = None,
    workers: int | None = None,
    progress: Reporter = _SILENT,
    device: torch.device | str | None = None,
    precision: str = "auto",
    chunk_size: int | None = None,
    queue_size: int = 0,
    momentum: float = 0.995,
    soft_targets: float = 0.4,
    ema: float = 0.0,
    lora: Mapping[str, Any] | None = None,
    freeze: Sequence[str] = (),
    keep: str = "last",
    tracker: str | None = None,
    compile: bool = False,  # noqa: A002  (as torch.compile)
) -> Model:
    """Fine-tune a model with a defence, and return the trained copy.

    Every step draws images and texts (see `Composition`), searches adversarial ones within the threat model against
    the current weights (see `InnerAttack`), and takes one AdamW step on the defence's loss. Content and noise of a step
    are functions of (seed, step): the same call gives the same weights, and a run that was stopped goes on from its
    last checkpoint to the very same weights (on a CPU, with the same number of threads).

    A `FusionModel` is trained to match images and texts as well as to compare them, a `Captioner` on its caption loss
    (see `defences.terms_for`); the inner attack raises the same loss. Where several processes were launched, call
    `train` in each of them with the same arguments; negatives are everyone's, and two processes do what one does with
    twice the batch.

    Args:
        model: a `VisionLanguageModel` or `Captioner`; not changed. Parameters with `requires_grad` off stay as they
            are.
        pairs: what to train on.
        defence: a name of `DEFENCES`.
        threat: budgets of "image" (`LInf`) and "text" (`WordEdits`). A modality without budget is not attacked; "clean"
            needs none.
        links: which pairs are trained on and how they are linked: "originals", "extra-pairs", "one-to-many" or
            "new-originals" (see `training.links.arrange`); default: all pairs, as the defence has it.
        new_originals: other originals, for `links="new-originals"`.
        steps: optimiser steps.
        seed: decides batches, noise and dropout.
        batch_size: images per step (and process), at least 2.
        learning_rate: the largest; reached after the warm-up, then a cosine to 0.
        weight_decay: of AdamW, not for biases and norms.
        warmup: share of the steps, in [0, 1).
        clip_norm: largest gradient norm.
        clean_weight: share in [0, 1) of the plain contrastive loss of the clean pairs, mixed into the defence's loss.
        texts_per_image: texts that each anchor image brings; for one-to-many defences (default 2), else 1.
        images_per_text: images that a group of a step has; more than 1 for one-to-many defences alone. Further images
            of a text are anchors of other steps all the same.
        positives: for one-to-many defences: "summed" makes every true pair a target with equal shares, "drawn" one per
            image and text at every step, the others being neither target nor negative.
        pgd_steps: gradient steps on the images.
        pgd_step: "co-attack" (1.25 eps / steps), "sga" (0.5/255), or a size in [0, 1].
        start: where images start: "uniform" in [-eps, eps], "clean", or "warm", from what was found on an image's last
            visit (first "uniform"; one byte per pixel value of the data set is kept).
        order: "text-first" (MAT), "image-first", "alternating" (texts, images, texts again) or "independent".
        text_tries: substitutions tried per text and word.
        source: candidate source of substitutions (see `attacks.make_source`); default: the defence's own.
        validation: held-out pairs; retrieval at rank 1 on them is logged and shown, clean and attacked.
        validation_attack: a name of the table of attacks, run within `threat`.
        validate_every: steps between validations; default: at the end alone.
        run: a run folder for checkpoints and `training.jsonl`; a training begun there goes on. In several processes the
            main one has it, and the others, which must see the same disk, leave it out.
        checkpoint_every: steps between checkpoints.
        log_every: steps between rows, and between updates of what is shown; 0 measures nothing on the way.
        pictures: pictures decoded before, to share them between trainings; default: decoded here.
        workers: processes that decode ahead where pictures do not fit into memory; default: up to 4.
        progress: shows loss, clean and robust batch accuracy, and speed.
        device: where to train; default: where the model is. The trained copy is put where the model is.
        precision: "auto" is bfloat16 where a GPU has it, else float32.
        chunk_size: the most images, texts or pairs in one pass, so that large batches fit; the gradient is that of the
            whole batch, for one more forward pass (see `StepLoss`).
        queue_size: for fusion models: above 0, the contrastive loss compares with a momentum copy of the model and
            queues of so many of its embeddings (see `models.momentum`).
        momentum: how much that copy keeps of itself per step.
        soft_targets: share of the copy's belief in the contrastive targets, in [0, 1].
        ema: decay of a moving average of the weights, in [0, 1); above 0 the average is validated and returned.
        lora: trains low-rank adapters in place of weights: `rank`, `alpha`, `dropout`, `layers` (see `lora.Lora`). The
            returned model has them merged into plain weights.
        freeze: name patterns (`*`, `?`) of parameters that are not trained.
        keep: "last" returns the weights of the last step, "best" those that validation found best: by the mean of
            robust TR@1 and IR@1 (clean ones where nothing is attacked).
        tracker: "tensorboard" writes what is logged there too, into the run folder.
        compile: compile the image encoder (`torch.compile`); pays on GPUs, after a minute or more.

    Returns:
        A trained copy in evaluation mode, its `name` extended by the defence.

    Warns:
        UserWarning: texts are longer than the model's context and are cut; how many, and the first.

    Raises:
        WrongKind: the model is neither a vision-language model nor a captioner.
        ValueError: an unknown defence (the nearest is named) or an option out of range, a threat under which the
            defence attacks nothing, too few images, a checkpoint of another training.
        FloatingPointError: the loss or its gradient is not finite; the last checkpoint stands.
    """
    if not isinstance(model, VisionLanguageModel | Captioner):
        raise WrongKind(f"Expected a VisionLanguageModel or Captioner to train, but got {type(model).__name__}.")
    home = next(model.parameters()).device
    where = home if device is None else torch.device(device)
    check_tracker(tracker, run)
    accelerator = make_accelerator(
        where, precision=precision, tracker=None if run is None else tracker, folder=None if run is None else run.path
    )
    world = world_of(accelerator)
    plan = make_plan(
        pairs,
        model=model,
        defence=defence,
        threat=threat,
        links=links,
        new_originals=new_originals,
        steps=steps,
        seed=seed,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        warmup=warmup,
        clip_norm=clip_norm,
        clean_weight=clean_weight,
        texts_per_image=texts_per_image,
        images_per_text=images_per_text,
        positives=positives,
        pgd_steps=pgd_steps,
        pgd_step=pgd_step,
        start=start,
        order=order,
        text_tries=text_tries,
        source=source,
        chunk_size=chunk_size,
        queue_size=queue_size,
        momentum=momentum,
        soft_targets=soft_targets,
        ema=ema,
        lora=lora,
        freeze=freeze,
        processes=world.size,
    )
    every = {"checkpoint_every": checkpoint_every, "log_every": log_every, "validate_every": validate_every or steps}
    for name, value in every.items():
        if value < (least := 0 if name == "log_every" else 1):
            raise ValueError(f"Expected `{name}` >= {least}, but got {value}.")
    attack = make_attack(validation_attack) if threat else None
    check_keep(keep, model, validation)
    if compile:
        check_compiler(where)
    if isinstance(model, VisionLanguageModel) and world.main:
        report_cut_texts(model, plan.pairs.texts)
    if pictures is None:
        pictures = Pictures(model, plan.pairs, progress=progress)
    pictures.check_show(plan.pairs)
    if workers is None:
        workers = 0 if pictures.in_memory else min(4, os.cpu_count() or 1)

    judge = None
    if validation is not None:
        held_out = Pictures(model, validation, progress=progress)
        judge = Validation(validation, held_out, attack, threat or ThreatModel(), batch_size, seed)

    student = copy.deepcopy(model).to(accelerator.device)
    student.zero_grad(set_to_none=True)
    flags = {name: parameter.requires_grad for name, parameter in student.named_parameters()}
    job = Job(plan, student, model, accelerator, run=run, judge=judge, keep=keep)
    batches = StepBatches(plan.pairs, pictures, plan.composition, seed=seed, world=world)
    # Dropout draws from PyTorch's global generator: it is seeded anew at every step, and put back at the end.
    with (
        torch.random.fork_rng(devices=[accelerator.device] if accelerator.device.type == "cuda" else []),
        compiled_images(student, wanted=compile),
    ):
        job.fit(batches, workers=workers, every=every, progress=progress if world.main else _SILENT)
    student.zero_grad(set_to_none=True)
    for name, parameter in student.named_parameters():
        parameter.requires_grad_(flags[name])
    student.name = f"{model.name}-{defence}"
    return student.to(home).eval()


def check_tracker(tracker: str | None, run: RunFolder | None) -> None:
    """Refuse an unknown tracker, one that is not installed, and one without a folder.

    Raises:
        ValueError: saying which.
    """
    if tracker is None:
        return
    check_choice(tracker, ("tensorboard",), "tracker")
    if not is_tensorboard_available():
        raise ValueError('Expected TensorBoard for `tracker`, but it is not here: pip install "crossguard[tracking]".')
    if run is None and int(os.environ.get("RANK", "0")) == 0:
        raise ValueError("Expected a `run` folder together with `tracker`, but got none.")


def check_keep(keep: str, model: nn.Module, validation: OneToManyPairs | None) -> None:
    """Refuse to keep the best of what is not validated, and to validate retrieval of what does not retrieve.

    Raises:
        ValueError: saying which.
    """
    check_choice(keep, ("last", "best"), "keep")
    if keep == "best" and validation is None:
        raise ValueError("Expected `validation` pairs together with keep='best', but got none.")
    if validation is not None and not isinstance(model, VisionLanguageModel):
        raise ValueError(
            f"Expected no `validation` for {type(model).__name__}: it measures retrieval, which a captioner has not."
        )
