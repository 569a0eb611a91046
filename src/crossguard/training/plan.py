"""What a training will do, checked before any work: the trainer's options resolved for a model and its pairs."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from torch import nn

from crossguard.attacks.ascent import step_size
from crossguard.attacks.ball import LInfBall, is_empty
from crossguard.attacks.options import check_step_rule
from crossguard.attacks.sources import SourceLike, make_source
from crossguard.data import OneToManyPairs
from crossguard.models import Captioner, VisionLanguageModel
from crossguard.threat import L2, Budget, LInf, Patch, ThreatModel, WordEdits
from crossguard.training.believed import Momentum, read_momentum
from crossguard.training.codes import Tower
from crossguard.training.composition import Composition
from crossguard.training.defences import DEFENCES, DefenceRow
from crossguard.training.inner import InnerAttack
from crossguard.training.links import arrange
from crossguard.training.lora import Lora, read_lora
from crossguard.training.options import TrainOptions
from crossguard.training.swaps import Swaps
from crossguard.training.terms import Contrast, Term, attacked, scaled, terms_for


@dataclass(frozen=True)
class Plan:
    """A training, all options resolved.

    Args:
        options: as they were given.
        row: the defence.
        pairs: what is trained on.
        terms: its loss, with the clean share mixed in.
        composition: what a step is made of.
        inner: the inner attack.
        steps: optimiser steps.
        seed: of the whole training.
        momentum: options of a momentum copy with queues, or None.
        lora: adapters to train in place of the weights, or None.
        settings: all that decides the outcome, as JSON values.
    """

    options: TrainOptions
    row: DefenceRow
    pairs: OneToManyPairs
    terms: tuple[Term, ...]
    composition: Composition
    inner: InnerAttack
    steps: int
    seed: int
    momentum: Momentum | None
    lora: Lora | None
    settings: Mapping[str, Any]

    @property
    def warmup_steps(self) -> int:
        """Steps in which the learning rate rises."""
        return round(self.options.warmup * self.steps)

    @property
    def freeze(self) -> tuple[str, ...]:
        """Name patterns of parameters that are not trained."""
        given = self.options.freeze
        return (given,) if isinstance(given, str) else tuple(given)


def make_plan(
    pairs: OneToManyPairs,
    options: TrainOptions,
    *,
    model: nn.Module,
    defence: str,
    threat: ThreatModel | None,
    new_originals: OneToManyPairs | None,
    steps: int,
    seed: int,
    processes: int,
) -> Plan:
    """Resolve the arguments of `train`; their meaning is said there.

    Raises:
        ValueError: as `train`.
    """
    row = DEFENCES.find(defence)
    believed = read_momentum(
        model, queue_size=options.queue_size, momentum=options.momentum, soft_targets=options.soft_targets
    )
    arranged = arrange(pairs, options.links, one_to_many=row.one_to_many, new_originals=new_originals)
    pairs = arranged.pairs
    if options.positives == "drawn" and not arranged.one_to_many:
        raise ValueError(
            f"Expected positives='summed' for {row.name!r}, which has one target per image: use a one-to-many defence."
        )
    if believed is not None and options.positives == "drawn":
        raise ValueError("Expected positives='summed' with `queue_size` > 0, whose targets are soft, but got 'drawn'.")
    if arranged.every_pair and options.start == "warm":
        raise ValueError("Expected start='uniform' or 'clean' with links='every-pair', where an image may come twice.")
    together = options.batch_size * processes
    if arranged.samples < together:
        several = f" in each of {processes} processes" if processes > 1 else ""
        what = "pairs" if arranged.every_pair else "images"
        raise ValueError(
            f"Expected at least {together} {what} (`batch_size`{several}) to train on, but {pairs.name!r} "
            f"({pairs.split}) has {arranged.samples}."
        )
    composition = arranged.composition(
        together, texts_per_image=options.texts_per_image, images_per_text=options.images_per_text
    )
    terms = terms_for(model, _mixed(row.terms, options.clean_weight), defence=defence)
    image, words = inner_budgets(defence, attacked(terms), threat)
    candidates = make_source(row.source if options.source is None else options.source)
    step = check_step_rule(options.pgd_step)
    if isinstance(image, LInf):
        step = step_size(step, LInfBall(torch.zeros(1), image.eps), steps=options.pgd_steps)
    settings = {
        "model": model.name,
        "pairs": f"{pairs.name} {pairs.split} {_fingerprint(pairs)}",
        "defence": defence,
        "eps": image.eps if isinstance(image, LInf) else ThreatModel(image=image).to_dict()["image"],
        "words": words,
        "steps": steps,
        "seed": seed,
        "composition": {k: v for k, v in asdict(composition).items() if k != "every_pair"},  # `links` says it
        **{name: getattr(options, name) for name in ("learning_rate", "weight_decay", "warmup", "clip_norm")},
        "clean_weight": options.clean_weight,
        "positives": options.positives,
        "pgd": {"steps": options.pgd_steps, "step": step, "start": options.start},
        "order": options.order,
        "text_tries": options.text_tries,
        "source": candidates.name,
    }
    plan = Plan(
        options=options,
        row=row,
        pairs=pairs,
        terms=terms,
        composition=composition,
        inner=InnerAttack(
            image=image,
            words=words,
            swaps=Swaps(candidates, cast(VisionLanguageModel | Captioner, model)),
            text_tries=options.text_tries,
            pgd_steps=options.pgd_steps,
            pgd_step=step,
            start="clean" if options.start == "clean" else "uniform",
            order=options.order,  # type: ignore[arg-type]
        ),
        steps=steps,
        seed=seed,
        momentum=believed,
        lora=read_lora(options.lora),
        settings=settings,
    )
    # What is at its default is not named, so that a training begun before an option was there goes on.
    named: dict[str, tuple[Any, Any]] = {
        "links": (options.links, None),
        "momentum": (None if believed is None else asdict(believed), None),
        "ema": (options.ema, 0.0),
        "source_options": (_source_options(options.source), {}),
        "lora": (None if plan.lora is None else asdict(plan.lora), None),
        "freeze": (list(plan.freeze), []),
    }
    settings |= {name: value for name, (value, default) in named.items() if value != default}
    return plan


def _mixed(terms: tuple[Term, ...], clean_weight: float) -> tuple[Term, ...]:
    if clean_weight == 0:
        return terms
    return (*scaled(terms, 1 - clean_weight), Contrast("clean", "clean", clean_weight))


def inner_budgets(defence: str, modalities: frozenset[Tower], threat: ThreatModel | None) -> tuple[Budget, int]:
    """Return what the inner attack may change: the threat's budgets of the modalities that the defence attacks.

    Raises:
        ValueError: budgets of other kinds than training's, or none for a defence that attacks something.
    """
    threat = threat or ThreatModel()
    for modality in threat:
        if modality not in ("image", "text"):
            raise ValueError(f"Expected budgets for 'image' and 'text', but got one for {modality!r}.")
    image, text = threat.get("image"), threat.get("text")
    if not isinstance(image, LInf | L2 | Patch | None):
        raise ValueError(f"Expected an LInf, L2 or Patch budget for 'image', but got {image!r}.")
    if not isinstance(text, WordEdits | None):
        raise ValueError(f"Expected a WordEdits budget for 'text', but got {text!r}.")
    if text is not None and "text" in modalities and "substitution" not in text.kinds:
        raise ValueError(
            f"Expected 'substitution' among the kinds of the text budget, which is how training attacks texts, but got "
            f"{', '.join(text.kinds)}."
        )
    moved = image if image is not None and "image" in modalities else LInf(0.0)
    words = text.words if text is not None and "text" in modalities else 0
    if modalities and is_empty(moved) and not words:
        needed = " or ".join(
            {"image": "an image budget eps > 0", "text": "a text budget words > 0"}[m] for m in sorted(modalities)
        )
        raise ValueError(
            f"Expected {needed} for the defence {defence!r}, but the threat is '{threat}': nothing would be attacked. "
            "Use the defence 'clean' to train without attacks."
        )
    return moved, words


def _source_options(source: SourceLike | None) -> dict[str, Any]:
    """Return the options of a candidate source as JSON values; none for one that was given by its name alone.

    Of a built source they are its public attributes that are words or numbers.
    """
    if source is None or isinstance(source, str):
        return {}
    if isinstance(source, Mapping):
        told = {name: value for name, value in source.items() if name != "name"}
        return {name: v if isinstance(v, bool | int | float | str | None) else str(v) for name, v in told.items()}
    plain = {name: value for name, value in vars(source).items() if isinstance(value, bool | int | float | str)}
    return {name: value for name, value in plain.items() if name != "name" and not name.startswith("_")}


def _fingerprint(pairs: OneToManyPairs) -> str:
    digest = hashlib.sha256(pairs.links.tobytes())
    for part in (*pairs.texts, *(picture.key for picture in pairs.images)):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()[:16]
