"""One training under way: its steps, what is logged of them, and what is kept."""

import copy
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from crossguard.attacks.ascent import Pixels
from crossguard.attacks.ball import is_empty
from crossguard.attacks.base import frozen
from crossguard.memory import told_of_memory
from crossguard.models import VisionLanguageModel
from crossguard.progress import Reporter
from crossguard.runs import Rows, RunFolder
from crossguard.threat import LInf
from crossguard.training.accuracy import batch_accuracy
from crossguard.training.batches import StepBatches, TrainingBatch, iterate
from crossguard.training.believed import make_momentum, state_of
from crossguard.training.checkpoint import load_best, load_checkpoint, read_best, save_best, save_checkpoint
from crossguard.training.devices import world_of
from crossguard.training.ema import Average
from crossguard.training.lora import add_lora, freeze, merge_lora
from crossguard.training.optimiser import learning_rate_at, make_optimiser, select_trained
from crossguard.training.plan import Plan
from crossguard.training.seeds import step_seed
from crossguard.training.step_loss import StepLoss
from crossguard.training.terms import attacked
from crossguard.training.validation import Validation
from crossguard.training.warm import Perturbations


class Job:
    """One training under way.

    Args:
        plan: what it does.
        student: the model in training, changed in place.
        source: the model as it came; not changed.
        accelerator: device, precision, processes.
        run: where rows and checkpoints go; None keeps nothing.
        judge: validation.
    """

    def __init__(
        self,
        plan: Plan,
        student: nn.Module,
        source: nn.Module,
        accelerator: Accelerator,
        *,
        run: RunFolder | None,
        judge: Validation | None,
    ) -> None:
        self.plan, self.accelerator, self.judge, self.keep = plan, accelerator, judge, plan.options.keep
        self.world = world_of(accelerator)
        self.module, self.student = student, cast(VisionLanguageModel, student)
        self.world.align([*student.parameters(), *student.buffers()])
        self.original = self.student
        if any(term.needs_original for term in plan.terms):
            reference = copy.deepcopy(source).to(accelerator.device).eval().requires_grad_(False)
            self.original = cast(VisionLanguageModel, reference)
        self.trained = self._choose_trained()
        self.optimiser = make_optimiser(self.trained, weight_decay=plan.options.weight_decay)
        self.momentum = None if plan.momentum is None else make_momentum(student, plan.pairs, plan.momentum)
        self.average = Average(self.trained, decay=plan.options.ema) if plan.options.ema else None
        self.memory = None
        if plan.options.start == "warm" and not is_empty(image := plan.inner.image):
            eps = image.eps if isinstance(image, LInf) else None
            self.memory = Perturbations(len(plan.pairs.images), self.student.image_size, eps=eps)
        self.checkpoint = self.world.agree(None if run is None else run.file(f"checkpoint-{plan.row.name}"))
        self.rows = None if run is None or not self.world.main else Rows(run.path / "training.jsonl")
        self.best: tuple[int, float] | None = None
        self._best_weights: dict[str, Tensor] = {}

    @property
    def best_folder(self) -> Path | None:
        """Where the best weights lie, with a run folder."""
        return None if self.checkpoint is None else self.checkpoint.with_name(f"{self.checkpoint.name}-best")

    def fit(self, batches: StepBatches, *, workers: int, progress: Reporter) -> None:
        """Take all steps that are not done yet; the student ends with the weights that are to be kept."""
        plan, how, done = self.plan, self.plan.options, self._take_up()
        validate_every = how.validate_every or plan.steps
        began = time.monotonic()
        with progress.task(f"train {plan.row.name}", total=plan.steps, done=done) as task, self._tracking():
            for step, batch in enumerate(
                iterate(batches, start=done, stop=plan.steps, workers=workers, device=self.accelerator.device), done
            ):
                last = step + 1 == plan.steps
                logged = how.log_every > 0 and (last or step % how.log_every == 0)
                with told_of_memory(self.module, **self._at_once):
                    noted = self.step(batch, step, measure=logged)
                if self.judge is not None and (last or (step + 1) % validate_every == 0):
                    noted |= self._validate(step + 1)
                if noted:
                    self._log(step, noted, seconds=round(time.monotonic() - began, 3))
                task.advance(note=_note(noted))
                if last or (step + 1) % how.checkpoint_every == 0:
                    self._save(step + 1)
        self._end()

    @property
    def _at_once(self) -> dict[str, Any]:
        """The option that says how many samples are in memory at once, and its value."""
        how = self.plan.options
        if how.chunk_size is not None and how.chunk_size < how.batch_size:
            return {"batch_size": how.chunk_size, "option": "chunk_size"}
        return {"batch_size": how.batch_size, "option": "chunk_size"}

    def step(self, batch: TrainingBatch, step: int, *, measure: bool) -> dict[str, Any]:
        """Take one step; return its row, empty unless it is measured."""
        plan = self.plan
        torch.manual_seed(step_seed(plan.seed, step))
        with self.accelerator.autocast():
            if self.momentum is not None:
                self.momentum.follow()
            loss = StepLoss(
                self.student,
                self.original,
                plan.terms,
                batch,
                seed=plan.seed,
                step=step,
                draws_targets=plan.options.positives == "drawn",
                momentum=self.momentum,
                chunk_size=plan.options.chunk_size,
                world=self.world,
            )
            adversarial = plan.inner(loss, memory=self.memory)
            accuracies = self._accuracies(loss, *adversarial) if measure else {}
            self.module.train()
            value = loss.backward(adversarial)
        self._refuse_nan(step, "loss", value)
        rate = learning_rate_at(step, steps=plan.steps, warmup=plan.warmup_steps, peak=plan.options.learning_rate)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        norm = float(nn.utils.clip_grad_norm_(self.trained, plan.options.clip_norm))
        self._refuse_nan(step, "gradient", norm)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(step)
        if self.momentum is not None:
            self.momentum.images.push(loss.believed.images, batch.image_ids)
            self.momentum.texts.push(loss.believed.texts, batch.batch.text_ids)
        if not measure:
            return {}
        return {"loss": value, **accuracies, "learning_rate": rate, "gradient_norm": norm}

    def _choose_trained(self) -> list[nn.Parameter]:
        plan = self.plan
        freeze(self.module, plan.freeze)
        trained = select_trained(self.student, plan.row.trains)
        if plan.lora is None:
            return trained
        adapters = add_lora(self.module, plan.lora, within=trained, seed=plan.seed)
        self.module.to(self.accelerator.device).requires_grad_(False)
        for parameter in adapters:
            parameter.requires_grad_(True)
        return adapters

    def _accuracies(self, loss: StepLoss, pixels: Pixels, texts: tuple[str, ...]) -> dict[str, float]:
        if not isinstance(loss.trained, VisionLanguageModel):
            return {}
        clean, true = loss.step_batch.batch, loss.step_batch.true
        with frozen(loss.trained):
            views = {"clean_accuracy": (clean.pixels, clean.texts)}
            if attacked(self.plan.terms):
                views["robust_accuracy"] = (pixels, texts)
            coded = {name: loss.embeddings(*view) for name, view in views.items()}
        return {name: batch_accuracy(i.embedding, t.embedding, true) for name, (i, t) in coded.items()}

    def _refuse_nan(self, step: int, what: str, value: float) -> None:
        if math.isfinite(value):
            return
        kept = "no checkpoint was written yet"
        if self.checkpoint is not None and self.checkpoint.is_dir():
            kept = f"the last good checkpoint stands in {self.checkpoint}"
        raise FloatingPointError(
            f"Expected a finite {what}, but got {value} at step {step} of {self.plan.row.name!r} (learning rate "
            f"{self.plan.options.learning_rate:g}); {kept}. Try a smaller learning rate."
        )

    # Validation and the best weights

    def _validate(self, done: int) -> dict[str, Any]:
        assert self.judge is not None
        with self.average.applied() if self.average is not None else nullcontext():
            measured = self.judge(self.student, device=self.accelerator.device)
            if self.keep == "best" and (self.best is None or score(measured) > self.best[1]):
                self.best = (done, score(measured))
                self._keep_weights(done, measured)
        return {**measured, **({"best_step": self.best[0]} if self.best is not None else {})}

    def _keep_weights(self, done: int, measured: Mapping[str, float]) -> None:
        if self.best_folder is None:
            self._best_weights = {k: v.detach().cpu().clone() for k, v in self.module.state_dict().items()}
        elif self.world.main:
            save_best(self.best_folder, self.module, step=done, measured=measured)

    def _end(self) -> None:
        """Give the student the weights that are to be kept, adapters merged."""
        self.world.wait()
        if self.keep == "best":
            if self.best_folder is not None:
                load_best(self.best_folder, self.module)
            else:
                self.module.load_state_dict(self._best_weights)
        elif self.average is not None:
            self.average.swap()
        if self.plan.lora is not None:
            merge_lora(self.module)

    # The run folder

    def _carried(self) -> dict[str, Tensor]:
        """What goes from checkpoint to checkpoint beside weights and moments."""
        found: dict[str, Tensor] = {} if self.momentum is None else state_of(self.momentum)
        if self.average is not None:
            found |= {f"average.{index}": tensor for index, tensor in enumerate(self.average.tensors)}
        if self.memory is not None:
            found |= self.memory.state()
        return found

    def _take_up(self) -> int:
        """Return the steps done, after loading the checkpoint of a training that was begun."""
        if self.checkpoint is None:
            return 0
        done = load_checkpoint(
            self.checkpoint, self.module, self.optimiser, settings=self.plan.settings, carried=self._carried()
        )
        if self.keep == "best" and self.best_folder is not None and done:
            found = read_best(self.best_folder)
            self.best = None if found is None else (found[0], score(found[1]))
        return done

    def _save(self, done: int) -> None:
        if self.checkpoint is not None and self.world.main:
            save_checkpoint(
                self.checkpoint,
                self.module,
                self.optimiser,
                step=done,
                settings=self.plan.settings,
                carried=self._carried(),
            )
        self.world.wait()

    def _log(self, step: int, noted: Mapping[str, Any], *, seconds: float) -> None:
        """Append a row, unless a run that was stopped after its last checkpoint has logged this step already."""
        if self.accelerator.trackers:
            self.accelerator.log({k: v for k, v in noted.items() if isinstance(v, int | float)}, step=step)
        if self.rows is None:
            return
        row = {"defence": self.plan.row.name, "step": step, **noted, "seconds": seconds}
        known = [r["step"] for r in self.rows if r["defence"] == row["defence"]]
        if not known or step > max(known):
            self.rows.append(row)

    @contextmanager
    def _tracking(self) -> Iterator[None]:
        """Open and close the trackers; without any nothing happens."""
        if self.accelerator.log_with:
            folder = "tensorboard" in map(str, self.accelerator.log_with)
            about = {} if folder else {"config": self.plan.settings}
            name = f"tensorboard-{self.plan.row.name}" if folder else "crossguard"
            self.accelerator.init_trackers(name, **about)
        try:
            yield
        finally:
            for tracker in self.accelerator.trackers:
                tracker.finish()


def score(measured: Mapping[str, float]) -> float:
    """Return what "best" means: the mean of TR@1 and IR@1 in percent, or a low caption loss; attacked, where it was."""
    kind = "robust" if any(name.startswith("robust") for name in measured) else "clean"
    if f"{kind}_caption_loss" in measured:
        return -measured[f"{kind}_caption_loss"]
    return (measured[f"{kind}_tr@1"] + measured[f"{kind}_ir@1"]) / 2


def _note(row: Mapping[str, Any]) -> str:
    shown = {
        "loss": "loss {:.3f}",
        "clean_accuracy": "clean {:.0%}",
        "robust_accuracy": "robust {:.0%}",
        "clean_ir@1": "val IR@1 {:.1f}",
        "robust_ir@1": "attacked {:.1f}",
        "clean_caption_loss": "val loss {:.3f}",
        "robust_caption_loss": "attacked {:.3f}",
    }
    return "  ".join(form.format(row[key]) for key, form in shown.items() if key in row)
