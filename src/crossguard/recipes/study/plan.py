"""What is still to be done of a study, and what it will cost, told before the first training."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from crossguard.attacks import make_attack
from crossguard.evaluate.cost import estimate_cost, spell
from crossguard.models import load_model
from crossguard.progress import Reporter, Silent
from crossguard.recipes.perform import choose_device
from crossguard.recipes.schema import StudyRecipe
from crossguard.recipes.study.arms import arranged_pairs, count_false_negatives, train_arm
from crossguard.recipes.study.judge import Trial, judged_by, part_of
from crossguard.recipes.study.pairs import load_judging
from crossguard.recipes.study.threads import given_threads
from crossguard.recipes.study.work import Task, Work, tasks_of

_TIMED_STEPS = 3
_JUDGED_SAMPLE = 8


@dataclass(frozen=True)
class PlannedArm:
    """What is still to be done of an arm.

    Args:
        name: the arm.
        images: that it learns from, for the first seed.
        texts: likewise.
        false_negatives: true pairs that a step takes for negatives, mean over the first steps.
        gflop_per_step: billions of floating-point operations.
        steps: of each training.
        trainings: seeds still to be trained.
        trials: attacks still to be run, over all seeds.
        training_seconds: of all trainings together.
        judging_seconds: of all trials together.
    """

    name: str
    images: int | None
    texts: int | None
    false_negatives: float | None
    gflop_per_step: float | None
    steps: int | None
    trainings: int
    trials: int
    training_seconds: float
    judging_seconds: float


@dataclass(frozen=True)
class StudyPlan:
    """What is still to be done of a study.

    Args:
        arms: in order, without those that are done.
        device: where.
        threads: of one process.
    """

    arms: tuple[PlannedArm, ...]
    device: str
    threads: int

    @property
    def seconds(self) -> float:
        """How long one process takes for all of it, at the speed of the moment it was measured."""
        return sum(arm.training_seconds + arm.judging_seconds for arm in self.arms)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        arms = [asdict(arm) for arm in self.arms]
        return {"arms": arms, "seconds": self.seconds, "device": self.device, "threads": self.threads}

    def __str__(self) -> str:
        if not self.arms:
            return "nothing is left to be done"
        head = ("", "images", "texts", "false negatives/step", "GFLOP/step", "steps", "trainings", "in", "trials", "in")
        rows = [head, *(_cells(arm) for arm in self.arms)]
        widths = [max(len(row[place]) for row in rows) for place in range(len(head))]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
            for row in rows
        ]
        trainings, trials = sum(arm.trainings for arm in self.arms), sum(arm.trials for arm in self.arms)
        where = f"{self.device}, {self.threads} threads" if self.device == "cpu" else self.device
        total = f"{trainings} trainings and {trials} trials: about {spell(self.seconds)} for one process on {where}"
        return "\n".join([*(line.rstrip() for line in lines), total])


def plan_study(recipe: StudyRecipe, *, progress: Reporter) -> StudyPlan:
    """Tell what is still to be done of a study, and count and measure what it costs; its folder is not touched.

    Augmentations that arms need are made for it, and thrown away.

    Raises:
        ValueError: too few images.
    """
    with TemporaryDirectory() as scratch:
        apart = recipe.model_copy(update={"run": scratch})
        return plan_work(recipe, Work(apart, choose_device(recipe.device), progress))


def plan_work(recipe: StudyRecipe, work: Work) -> StudyPlan:
    """Plan what is missing in the recipe's folder, with the augmentations of `work`."""
    waiting = [task for task in tasks_of(recipe) if task.missing(recipe)]
    if not waiting:
        return StudyPlan((), work.device, recipe.threads)
    with given_threads(recipe, work.device):
        wanted = list(dict.fromkeys(trial for task in waiting for trial in task.missing(recipe)))
        seconds = _seconds_of_trials(recipe, wanted, work)
        rate = _seconds_per_flop(work) if any(task.untrained(recipe) for task in waiting) else 0.0
        arms = [
            _planned(recipe, [task for task in waiting if task.name == name], work, seconds, rate)
            for name in dict.fromkeys(task.name for task in waiting)
        ]
    return StudyPlan(tuple(arms), work.device, recipe.threads)


def _planned(
    recipe: StudyRecipe, tasks: Sequence[Task], work: Work, seconds: Mapping[Trial, float], rate: float
) -> PlannedArm:
    trainings = sum(task.untrained(recipe) for task in tasks)
    trials = [trial for task in tasks for trial in task.missing(recipe)]
    judging = sum(seconds[trial] for trial in trials)
    first = Task(tasks[0].name, tasks[0].arm, recipe.seeds[0])
    if not trainings:
        return PlannedArm(first.name, None, None, None, None, None, 0, len(trials), 0.0, judging)
    cost, steps = work.cost(first), work.steps(first)
    learnt = arranged_pairs(first.arm, work.material(first.seed), work.pairs(first))
    return PlannedArm(
        name=first.name,
        images=len(learnt.pairs.images),
        texts=len(learnt.pairs.texts),
        false_negatives=count_false_negatives(recipe, first.arm, learnt, steps=steps, seed=first.seed),
        gflop_per_step=cost.per_step / 1e9,
        steps=steps,
        trainings=trainings,
        trials=len(trials),
        training_seconds=trainings * cost.of(steps) * rate,
        judging_seconds=judging,
    )


def _cells(arm: PlannedArm) -> tuple[str, ...]:
    counts = [f"{count:,}" if count else "" for count in (arm.images, arm.texts)]
    counts.append("" if arm.false_negatives is None else f"{arm.false_negatives:.2f}")
    flop = "" if arm.gflop_per_step is None else f"{arm.gflop_per_step:,.1f}"
    trained = (str(arm.trainings), spell(arm.training_seconds)) if arm.trainings else ("", "")
    return arm.name, *counts, flop, str(arm.steps or ""), *trained, str(arm.trials), spell(arm.judging_seconds)


def _seconds_of_trials(recipe: StudyRecipe, wanted: Sequence[Trial], work: Work) -> dict[Trial, float]:
    """Measure every trial on a few images under the model that training starts from."""
    model, test, threat = load_model(recipe.model), load_judging(recipe), recipe.threat.build()
    found: dict[Trial, float] = {}
    for name in dict.fromkeys(attack for attack, _ in wanted):
        attack = recipe.attacks[name]
        parts, pairs = [part for other, part in wanted if other == name], judged_by(recipe, name, test)
        cost = estimate_cost(
            model,
            pairs,
            attacks={name: make_attack(attack.name, **attack.options)},
            threats={part: part_of(threat, part) for part in parts},
            sample=min(_JUDGED_SAMPLE, len(pairs.images)),
            seed=recipe.seed,
            device=work.device,
        )
        found |= {
            (name, part): each.seconds
            for each in cost.parts
            for part in parts
            if each.what == f"attack with {name} ({part})"
        }
    return found


def _seconds_per_flop(work: Work) -> float:
    """Time steps of the reference."""
    recipe = work.recipe
    task = work.reference(recipe.seeds[0])
    material, pairs = work.material(task.seed), work.pairs(task)
    bare = task.arm.model_copy(update={"options": {**task.arm.options, "log_every": 0}})

    def timed(steps: int) -> float:
        begun = perf_counter()
        train_arm(
            recipe,
            bare,
            material,
            pairs,
            steps=steps,
            seed=0,
            run=None,
            device=work.device,
            progress=Silent(),
            few=True,
        )
        return perf_counter() - begun

    timed(1)  # the first time pays for loading and caches
    apart = timed(1 + _TIMED_STEPS) - timed(1)
    return max(apart, 1e-9) / _TIMED_STEPS / work.cost(task).per_step
