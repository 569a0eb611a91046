"""`train`: one trainer for every defence."""

import copy
import math
import os
import time
from collections.abc import Mapping
from typing import Any, TypeVar, cast

import torch
from accelerate import Accelerator
from torch import nn

from crossguard.attacks.ascent import Pixels
from crossguard.attacks.base import frozen
from crossguard.attacks.sources import SourceLike
from crossguard.attacks.table import make_attack
from crossguard.data import OneToManyPairs
from crossguard.models import VisionLanguageModel
from crossguard.progress import Reporter, Silent
from crossguard.runs import Rows, RunFolder
from crossguard.threat import ThreatModel
from crossguard.training.batches import Pictures, StepBatches, TrainingBatch, iterate
from crossguard.training.checkpoint import load_checkpoint, save_checkpoint
from crossguard.training.defences import Anchor
from crossguard.training.devices import make_accelerator
from crossguard.training.optimiser import learning_rate_at, make_optimiser, select_trained
from crossguard.training.outer import Towers, batch_accuracy, outer_loss
from crossguard.training.plan import Plan, make_plan
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
    images_per_text: int | None = None,
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
) -> Model:
    """Fine-tune a model with a defence, and return the trained copy.

    Every step draws images and texts (see `Composition`), searches adversarial ones within the threat model against
    the current weights (see `InnerAttack`), and takes one AdamW step on the defence's loss. Content and noise of a step
    are functions of (seed, step): the same call gives the same weights, and a run that was stopped goes on from its
    last checkpoint to the very same weights (on a CPU, with the same number of threads).

    Args:
        model: a `VisionLanguageModel`; not changed. Parameters with `requires_grad` off stay as they are.
        pairs: what to train on.
        defence: a name of `DEFENCES`.
        threat: budgets of "image" (`LInf`) and "text" (`WordEdits`). A modality without budget is not attacked; "clean"
            needs none.
        links: which pairs are trained on and how they are linked: "originals", "extra-pairs", "one-to-many" or
            "new-originals" (see `training.links.arrange`); default: all pairs, as the defence has it.
        new_originals: other originals, for `links="new-originals"`.
        steps: optimiser steps.
        seed: decides batches, noise and dropout.
        batch_size: images per step, at least 2.
        learning_rate: the largest; reached after the warm-up, then a cosine to 0.
        weight_decay: of AdamW, not for biases and norms.
        warmup: share of the steps, in [0, 1).
        clip_norm: largest gradient norm.
        clean_weight: share in [0, 1) of the plain contrastive loss of the clean pairs, mixed into the defence's loss.
        texts_per_image: texts that each anchor image brings; for one-to-many defences (default 2), else 1.
        images_per_text: images that a group of a step has; for one-to-many defences (default 2), else 1. With the
            defaults a step of "mat+" encodes as many images and texts as one of "mat".
        positives: for one-to-many defences: "summed" makes every true pair a target with equal shares, "drawn" one per
            image and text at every step, the others being neither target nor negative.
        pgd_steps: gradient steps on the images.
        pgd_step: "co-attack" (1.25 eps / steps), "sga" (0.5/255), or a size in [0, 1].
        start: where images start, "uniform" in [-eps, eps] or "clean".
        order: "text-first" (MAT) or "image-first".
        text_tries: substitutions tried per text and word.
        source: candidate source of substitutions (see `attacks.make_source`); default: the defence's own.
        validation: held-out pairs; retrieval at rank 1 on them is logged and shown, clean and attacked.
        validation_attack: a name of the table of attacks, run within `threat`.
        validate_every: steps between validations; default: at the end alone.
        run: a run folder for checkpoints and `training.jsonl`; a training begun there goes on.
        checkpoint_every: steps between checkpoints.
        log_every: steps between rows, and between updates of what is shown.
        pictures: pictures decoded before, to share them between trainings; default: decoded here.
        workers: processes that decode ahead where pictures do not fit into memory; default: up to 4.
        progress: shows loss, clean and robust batch accuracy, and speed.
        device: where to train; default: where the model is. The trained copy is put where the model is.
        precision: "auto" is bfloat16 where a GPU has it, else float32.

    Returns:
        A trained copy in evaluation mode, its `name` extended by the defence.

    Raises:
        ValueError: an unknown defence (the nearest is named) or an option out of range, a threat under which the
            defence attacks nothing, too few images, a checkpoint of another training.
        FloatingPointError: the loss or its gradient is not finite; the last checkpoint stands.
    """
    if not isinstance(model, VisionLanguageModel):
        raise ValueError(f"Expected a VisionLanguageModel to train, but got {type(model).__name__}.")
    plan = make_plan(
        pairs,
        model_name=model.name,
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
    )
    every = {"checkpoint_every": checkpoint_every, "log_every": log_every, "validate_every": validate_every or steps}
    for name, value in every.items():
        if value < 1:
            raise ValueError(f"Expected `{name}` >= 1, but got {value}.")
    attack = make_attack(validation_attack) if threat else None
    home = next(model.parameters()).device
    where = home if device is None else torch.device(device)
    accelerator = make_accelerator(where, precision=precision)
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
    flags = [parameter.requires_grad for parameter in student.parameters()]
    job = _Job(plan, student, model, accelerator, run, judge)
    batches = StepBatches(plan.pairs, pictures, plan.composition, seed=seed)
    # Dropout draws from PyTorch's global generator: it is seeded anew at every step, and put back at the end.
    with torch.random.fork_rng(devices=[accelerator.device] if accelerator.device.type == "cuda" else []):
        job.fit(batches, workers=workers, every=every, progress=progress)
    student.zero_grad(set_to_none=True)
    for parameter, wanted in zip(student.parameters(), flags, strict=True):
        parameter.requires_grad_(wanted)
    student.name = f"{model.name}-{defence}"
    return student.to(home).eval()


class _Job:
    """One training under way."""

    def __init__(
        self,
        plan: Plan,
        student: nn.Module,
        source: nn.Module,
        accelerator: Accelerator,
        run: RunFolder | None,
        judge: Validation | None,
    ) -> None:
        self.plan, self.accelerator, self.judge = plan, accelerator, judge
        self.module, self.student = student, cast(VisionLanguageModel, student)
        self.original = self.student
        if any(isinstance(term, Anchor) for term in plan.terms):
            reference = copy.deepcopy(source).to(accelerator.device).eval().requires_grad_(False)
            self.original = cast(VisionLanguageModel, reference)
        self.trained = select_trained(self.student, plan.row.trains)
        optimiser = make_optimiser(self.trained, weight_decay=plan.weight_decay)
        self.towers, self.optimiser = accelerator.prepare(Towers(self.student), optimiser)
        self.checkpoint = None if run is None else run.file(f"checkpoint-{plan.row.name}")
        self.rows = None if run is None else Rows(run.path / "training.jsonl")

    def fit(self, batches: StepBatches, *, workers: int, every: Mapping[str, int], progress: Reporter) -> None:
        """Take all steps that are not done yet."""
        plan, done = self.plan, 0
        if self.checkpoint is not None:
            done = load_checkpoint(self.checkpoint, self.module, self.optimiser, settings=plan.settings)
        began = time.monotonic()
        with progress.task(f"train {plan.row.name}", total=plan.steps, done=done) as task:
            for step, batch in enumerate(
                iterate(batches, start=done, stop=plan.steps, workers=workers, device=self.accelerator.device), done
            ):
                last = step + 1 == plan.steps
                noted = self.step(batch, step, measure=last or step % every["log_every"] == 0)
                if self.judge is not None and (last or (step + 1) % every["validate_every"] == 0):
                    noted |= self.judge(self.student, device=self.accelerator.device)
                if noted:
                    row = {"defence": plan.row.name, "step": step, **noted}
                    self._log({**row, "seconds": round(time.monotonic() - began, 3)})
                task.advance(note=_note(noted))
                if last or (step + 1) % every["checkpoint_every"] == 0:
                    self._save(step + 1)

    def step(self, batch: TrainingBatch, step: int, *, measure: bool) -> dict[str, Any]:
        """Take one step; return its row, empty unless it is measured."""
        plan = self.plan
        torch.manual_seed(plan.seed * 1_000_003 + step)
        with self.accelerator.autocast():
            adversarial = plan.inner(self.student, self.original, batch, plan.terms, seed=plan.seed, step=step)
            accuracies = self._accuracies(batch, *adversarial) if measure else {}
            self.module.train()
            draw = torch.Generator().manual_seed(plan.seed * 1_000_003 + step) if plan.draws_targets else None
            loss = outer_loss(self.towers, self.student, self.original, plan.terms, batch, adversarial, draw=draw)
        self._refuse_nan(step, "loss", float(loss.detach()))
        rate = learning_rate_at(step, steps=plan.steps, warmup=plan.warmup_steps, peak=plan.learning_rate)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.accelerator.backward(loss)
        norm = float(nn.utils.clip_grad_norm_(self.trained, plan.clip_norm))
        self._refuse_nan(step, "gradient", norm)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        if not measure:
            return {}
        return {
            "loss": float(loss.detach()),
            **accuracies,
            "learning_rate": rate,
            "gradient_norm": norm,
        }

    def _accuracies(self, batch: TrainingBatch, pixels: Pixels, texts: tuple[str, ...]) -> dict[str, float]:
        clean = batch.batch
        with frozen(self.student):
            found = {"clean_accuracy": batch_accuracy(self.student, clean.pixels, clean.texts, clean.positives)}
            if self.plan.row.attacks:
                found["robust_accuracy"] = batch_accuracy(self.student, pixels, texts, clean.positives)
        return found

    def _refuse_nan(self, step: int, what: str, value: float) -> None:
        if math.isfinite(value):
            return
        kept = "no checkpoint was written yet"
        if self.checkpoint is not None and self.checkpoint.is_dir():
            kept = f"the last good checkpoint stands in {self.checkpoint}"
        raise FloatingPointError(
            f"Expected a finite {what}, but got {value} at step {step} of {self.plan.row.name!r} (learning rate "
            f"{self.plan.learning_rate:g}); {kept}. Try a smaller learning rate."
        )

    def _log(self, row: Mapping[str, Any]) -> None:
        """Append a row, unless a run that was stopped after its last checkpoint has logged this step already."""
        if self.rows is None:
            return
        known = [r["step"] for r in self.rows if r["defence"] == row["defence"]]
        if not known or row["step"] > max(known):
            self.rows.append(row)

    def _save(self, done: int) -> None:
        if self.checkpoint is not None:
            save_checkpoint(self.checkpoint, self.module, self.optimiser, step=done, settings=self.plan.settings)


def _note(row: Mapping[str, Any]) -> str:
    shown = {
        "loss": "loss {:.3f}",
        "clean_accuracy": "clean {:.0%}",
        "robust_accuracy": "robust {:.0%}",
        "clean_ir@1": "val IR@1 {:.1f}",
        "robust_ir@1": "attacked {:.1f}",
    }
    return "  ".join(form.format(row[key]) for key, form in shown.items() if key in row)
