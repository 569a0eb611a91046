"""What an arm of a study trains on, what its steps cost, and its training."""

import json
import time
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from crossguard.attacks.sources import make_source
from crossguard.augment import augment, thin
from crossguard.data import OneToManyPairs
from crossguard.models import VisionLanguageModel, load_model
from crossguard.progress import Reporter, Silent
from crossguard.recipes.schema import StudyArm, StudyRecipe
from crossguard.recipes.study.cost import CountedSource, TrainingCost
from crossguard.recipes.study.pairs import load_training
from crossguard.runs import RunBusy, RunFolder
from crossguard.training import DEFENCES, Arranged, Pictures, arrange, false_negatives, train

_COUNTED_STEPS = 2
_DRAWN_STEPS = 200  # whose false negatives are counted
_PATIENCE = 2.0  # seconds between looks at what another process has open


@dataclass(frozen=True)
class Material:
    """What the arms of one seed train on.

    Args:
        whole: the data set.
        originals: its images or some of them, each with one text (and further ones that are true of several).
        new_originals: more images, the originals among them, likewise; None where no arm has such.
    """

    whole: OneToManyPairs
    originals: OneToManyPairs
    new_originals: OneToManyPairs | None


def draw_material(recipe: StudyRecipe, seed: int) -> Material:
    """Draw a seed's originals from the data.

    Raises:
        ValueError: the data has fewer images than the recipe asks for.
    """
    whole = load_training(recipe)
    for name in ("new_originals", "originals"):
        size = getattr(recipe, name)
        if size is not None and size > len(whole.images):
            raise ValueError(
                f"Expected at least {size} images (`{name}`) in {recipe.data.name!r} ({recipe.data.split}), but it has "
                f"{len(whole.images)}."
            )
    order = np.random.default_rng([seed, 0]).permutation(len(whole.images))

    def drawn(size: int | None) -> OneToManyPairs:
        return thin(whole.select(images=np.sort(order[:size]).tolist()), texts_per_image=1, seed=seed)

    more = None if recipe.new_originals is None else drawn(recipe.new_originals)
    return Material(whole, drawn(recipe.originals), more)


def arm_pairs(
    recipe: StudyRecipe, arm: StudyArm, material: Material, *, seed: int, device: str, progress: Reporter
) -> OneToManyPairs:
    """Return what an arm trains on: the originals, and their augmentation, made once into the study's folder.

    Where another process is making it for an arm of its own, this one waits.
    """
    if not arm.sources:
        return material.originals
    model = load_model(recipe.model, device=device) if recipe.measured else None
    while True:
        try:
            return augment(
                material.originals,
                sources=[source.model_dump() for source in arm.sources],
                per_sample=arm.per_sample,
                seed=seed,
                folder=augmentation_folder(recipe, arm, seed),
                model=model,
                pool=material.whole,
                progress=progress,
                device=device,
            )
        except RunBusy:
            time.sleep(_PATIENCE)


def augmentation_folder(recipe: StudyRecipe, arm: StudyArm, seed: int) -> Path:
    """Return where the augmentation of an arm lies; arms with the same sources share it."""
    names = "-".join(source.name for source in arm.sources)
    if any(source.options for source in arm.sources):
        told = json.dumps([source.options for source in arm.sources], sort_keys=True)
        names += f"-{blake2b(told.encode(), digest_size=4).hexdigest()}"
    return Path(recipe.run) / "augmented" / f"{names}-{arm.per_sample}-seed-{seed}"


def train_arm(
    recipe: StudyRecipe,
    arm: StudyArm,
    material: Material,
    pairs: OneToManyPairs,
    *,
    steps: int,
    seed: int,
    run: RunFolder | None,
    device: str,
    progress: Reporter,
    few: bool = False,
) -> VisionLanguageModel:
    """Train an arm from the study's model for a number of steps; where they are few, no picture is decoded in vain."""
    extra: dict[str, Any] = {"learning_rate": recipe.learning_rate, **trainer_options(recipe, arm)}
    if arm.links is not None:
        extra["links"] = arm.links
    if arm.links == "new-originals":
        extra["new_originals"] = material.new_originals
    model = load_model(recipe.model)
    if few:
        learnt = arranged_pairs(arm, material, pairs).pairs
        extra |= {"pictures": Pictures(model, learnt, memory_limit=0), "workers": 0}
    return train(
        model,
        pairs,
        defence=str(arm.defence),
        threat=recipe.threat.build(),
        steps=steps,
        seed=seed,
        batch_size=recipe.batch_size,
        run=run,
        progress=progress,
        device=device,
        **extra,
    )


def trainer_options(recipe: StudyRecipe, arm: StudyArm) -> dict[str, Any]:
    """Return an arm's options of the trainer, the study's among them."""
    return {**recipe.options, **arm.options}


def arranged_pairs(arm: StudyArm, material: Material, pairs: OneToManyPairs) -> Arranged:
    """Return what an arm learns from: its pairs as its links arrange them."""
    more = material.new_originals if arm.links == "new-originals" else None
    return arrange(pairs, arm.links, one_to_many=DEFENCES[str(arm.defence)].one_to_many, new_originals=more)


def count_false_negatives(recipe: StudyRecipe, arm: StudyArm, arranged: Arranged, *, steps: int, seed: int) -> float:
    """Return how many true pairs a step of a training takes for negatives, mean over (the first of) its steps."""
    options = trainer_options(recipe, arm)
    composed = {name: options[name] for name in ("texts_per_image", "images_per_text") if name in options}
    composition = arranged.composition(recipe.batch_size, **composed)
    return false_negatives(arranged.pairs, composition, seed=seed, steps=min(steps, _DRAWN_STEPS))


def training_cost(
    recipe: StudyRecipe, arm: StudyArm, material: Material, pairs: OneToManyPairs, *, device: str
) -> TrainingCost:
    """Count the operations of an arm's training, as PyTorch's counter sees them.

    Two steps are taken and thrown away, without what is measured for the log. What finding candidates takes, which
    these steps do for texts that all are new to them, is counted apart: a training does it once a text. Attention is
    written out for the counter, since it misses some of its fused kernels.
    """
    known = trainer_options(recipe, arm)
    source = CountedSource(make_source(known.get("source", DEFENCES[str(arm.defence)].source)))
    bare = arm.model_copy(update={"options": {**arm.options, "log_every": 0, "source": source}})
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        train_arm(
            recipe,
            bare,
            material,
            pairs,
            steps=_COUNTED_STEPS,
            seed=0,
            run=None,
            device=device,
            progress=Silent(),
            few=True,
        )
    return TrainingCost(
        per_step=(counter.get_total_flops() - source.flop) / _COUNTED_STEPS,
        per_text=source.flop / max(1, source.asked),
        texts=len(arranged_pairs(arm, material, pairs).pairs.texts),
        new_texts=source.asked / _COUNTED_STEPS,
    )
