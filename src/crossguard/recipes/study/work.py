"""The trainings of a study, what each still lacks, and what those of one seed have in common."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crossguard.data import OneToManyPairs
from crossguard.progress import Reporter
from crossguard.recipes.schema import StudyArm, StudyRecipe
from crossguard.recipes.study.arms import (
    Material,
    arm_pairs,
    augmentation_folder,
    draw_material,
    training_cost,
)
from crossguard.recipes.study.cost import TrainingCost
from crossguard.recipes.study.judge import Trial, done_trials, trials
from crossguard.runs import read_rows


@dataclass(frozen=True)
class Task:
    """An arm and a seed: one run folder."""

    name: str
    arm: StudyArm
    seed: int

    def folder(self, recipe: StudyRecipe) -> Path:
        """Return where it is carried out."""
        return Path(recipe.run) / "arms" / self.name.replace("/", "-") / f"seed-{self.seed}"

    def missing(self, recipe: StudyRecipe, rows: Iterable[dict[str, Any]] | None = None) -> list[Trial]:
        """Return the trials without a result among these rows, by default those of the folder."""
        done = done_trials(read_rows(self.folder(recipe) / "rows.jsonl") if rows is None else rows)
        return [trial for trial in trials(recipe, self.arm) if trial not in done]

    def untrained(self, recipe: StudyRecipe) -> bool:
        """Whether a training is still to be done."""
        return self.arm.defence is not None and not (self.folder(recipe) / "model").is_dir()


def tasks_of(recipe: StudyRecipe) -> list[Task]:
    """Return every arm that is wanted, for every seed; the model as it came is the same for all seeds."""
    return [
        Task(name, recipe.arms[name], seed)
        for seed in recipe.seeds
        for name in dict.fromkeys(recipe.only or recipe.arms)
        if recipe.arms[name].defence is not None or seed == recipe.seeds[0]
    ]


@dataclass(frozen=True)
class Work:
    """What the trainings of a study have in common; what depends on the seed is made once for each."""

    recipe: StudyRecipe
    device: str
    progress: Reporter
    _materials: dict[int, Material] = field(default_factory=dict)
    _augmented: dict[Path, OneToManyPairs] = field(default_factory=dict)
    _costs: dict[tuple[str, int], TrainingCost] = field(default_factory=dict)

    def material(self, seed: int) -> Material:
        """Return a seed's originals."""
        if seed not in self._materials:
            self._materials[seed] = draw_material(self.recipe, seed)
        return self._materials[seed]

    def pairs(self, task: Task) -> OneToManyPairs:
        """Return what a training is given, its augmentation made; arms with the same sources share it."""
        if not task.arm.sources:
            return self.material(task.seed).originals
        folder = augmentation_folder(self.recipe, task.arm, task.seed)
        if folder not in self._augmented:
            self._augmented[folder] = arm_pairs(
                self.recipe,
                task.arm,
                self.material(task.seed),
                seed=task.seed,
                device=self.device,
                progress=self.progress,
            )
        return self._augmented[folder]

    def reference(self, seed: int) -> Task:
        """Return the training that all of this seed may cost as much as."""
        name = self.recipe.reference
        return Task(name, self.recipe.arms[name], seed)

    def cost(self, task: Task) -> TrainingCost:
        """Return what a training costs; counted once."""
        key = (task.name, task.seed)
        if key not in self._costs:
            material = self.material(task.seed)
            self._costs[key] = training_cost(self.recipe, task.arm, material, self.pairs(task), device=self.device)
        return self._costs[key]

    def allowed(self, seed: int) -> float:
        """Return the operations that a training of this seed may take."""
        return self.cost(self.reference(seed)).of(self.recipe.steps)

    def steps(self, task: Task) -> int:
        """Return how many steps of a training cost what the reference's cost."""
        return self.cost(task).steps_within(self.allowed(task.seed))
