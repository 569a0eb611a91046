"""Carry out evaluate recipes of grounding, captioning, and classifiers and segmenters of samples."""

from typing import Any

from crossguard.attacks import make_attack
from crossguard.attacks.storage import Storage
from crossguard.data import MultiModalSamples, OneToManyPairs, load_expressions
from crossguard.evaluate import (
    CaptioningResult,
    GroundingResult,
    SamplesResult,
    evaluate_captioning,
    evaluate_grounding,
    evaluate_grounding_modalities,
    evaluate_samples,
)
from crossguard.evaluate.asked import part_name
from crossguard.models import load_model
from crossguard.progress import Reporter
from crossguard.recipes.schema import Captioning, EvaluateRecipe, Grounding, Samples
from crossguard.runs import RunFolder


def perform_grounding(
    recipe: EvaluateRecipe, run: RunFolder, *, device: str, progress: Reporter
) -> dict[str, GroundingResult]:
    """Measure visual grounding as the recipe says; an interrupted run goes on where it stopped.

    Returns:
        By what is attacked ("image", "text", "joint", or "clean" without attack).
    """
    given = {} if recipe.data.split is None else {"split": recipe.data.split}
    expressions = load_expressions(recipe.data.name, **given, **recipe.data.options)
    if recipe.max_samples is not None:
        expressions = expressions.head(recipe.max_samples)
    common: dict[str, Any] = {
        **(recipe.grounding or Grounding()).model_dump(),
        **_common(recipe, run, device=device, progress=progress),
    }
    model, threat = load_model(recipe.model), recipe.threat.build()
    if recipe.attack is None:
        return {"clean": evaluate_grounding(model, expressions, **common)}
    common |= {"attack": recipe.attack.name, "attack_options": recipe.attack.options, "threat": threat}
    if recipe.modalities and len(threat) > 1:
        return evaluate_grounding_modalities(model, expressions, **common)
    return {part_name(threat): evaluate_grounding(model, expressions, **common)}


def perform_captioning(
    recipe: EvaluateRecipe, run: RunFolder, pairs: OneToManyPairs, *, device: str, progress: Reporter
) -> dict[str, CaptioningResult]:
    """Measure captioning as the recipe says; an interrupted run goes on where it stopped.

    Returns:
        By what is attacked: "image", or "clean" without attack.
    """
    common: dict[str, Any] = {
        **(recipe.captioning or Captioning()).model_dump(),
        **_common(recipe, run, device=device, progress=progress),
    }
    model = load_model(recipe.model)
    if recipe.attack is None:
        return {"clean": evaluate_captioning(model, pairs, **common)}
    threat = recipe.threat.build()
    common |= {"attack": recipe.attack.name, "attack_options": recipe.attack.options, "threat": threat}
    return {part_name(threat): evaluate_captioning(model, pairs, **common)}


def perform_samples(
    recipe: EvaluateRecipe, run: RunFolder, samples: MultiModalSamples, *, device: str, progress: Reporter
) -> dict[str, SamplesResult]:
    """Measure a classifier or segmenter as the recipe says; an interrupted run goes on where it stopped.

    Returns:
        By what is attacked (a modality, "joint", or "clean" without attack).
    """
    asked: dict[str, Any] = {}
    if recipe.attack is not None:
        make_attack(recipe.attack.name, **recipe.attack.options)  # raises before the model is loaded
        asked = {"attack": recipe.attack.name, "attack_options": recipe.attack.options}
    more = recipe.samples or Samples()
    known = {"pixels": Storage.pixels(), "millimetres": Storage.millimetres()}
    model: Any = load_model(recipe.model)
    return evaluate_samples(
        model,
        samples,
        threat=recipe.threat.build() or None,
        modalities=recipe.modalities,
        objective=more.objective,
        positive=more.positive,
        storage={name: known[kind] for name, kind in more.storage.items()},
        **asked,
        **_common(recipe, run, device=device, progress=progress),
    )


def _common(recipe: EvaluateRecipe, run: RunFolder, *, device: str, progress: Reporter) -> dict[str, Any]:
    return {
        "seed": recipe.seed,
        "batch_size": recipe.batch_size,
        "run": run,
        "progress": progress,
        "device": device,
    }
