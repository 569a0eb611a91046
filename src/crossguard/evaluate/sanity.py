"""Warnings that come with every evaluation: signs that a figure says less about robustness than it seems to.

After Athalye et al. (ICML 2018) and Carlini et al. (2019): a defence that hides gradients stops attacks by gradients
without being robust, and a model that does not look at a modality cannot be hurt through it.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from crossguard.attacks.ascent import Pixels
from crossguard.attacks.base import Attack
from crossguard.attacks.candidates import CandidateSource, coverage, uncovered
from crossguard.attacks.noise import uniform
from crossguard.attacks.objectives import mean_partner, misalignment
from crossguard.attacks.text_gradients import token_gradients
from crossguard.data import PairBatch
from crossguard.evaluate.examples import spread_evenly
from crossguard.evaluate.result import Outcome
from crossguard.models import Defended, VisionLanguageModel
from crossguard.threat import ThreatModel

FEWEST = 8
"""Fewer items than this say nothing about what a model ignores."""
_SCORES = 1 << 22  # held at once: 16 MiB of float32
_TEXTS_ASKED = 512
_SAME = 0.9
_FLAT = 1e-6  # a change of a cosine that float32 does not resolve
_STEP = 2 / 255


def unchanged_answers(
    images: Float[Tensor, "images dim"], texts: Float[Tensor, "texts dim"], *, seed: int = 0
) -> dict[str, float]:
    """Return, by modality, the share of queries that are answered alike when that modality is shuffled.

    Every image is asked with another image in its place, and every text with another text: the same best answer shows
    that the query was not looked at. A model of any use stays near zero.

    Args:
        images: embeddings of all images.
        texts: embeddings of all texts.
        seed: of the shuffling.
    """
    rng = np.random.default_rng(seed)
    sides = {"image": (images, texts), "text": (texts, images)}
    shares = {}
    for modality, (queries, gallery) in sides.items():
        unit = torch.nn.functional.normalize(gallery.float(), dim=-1)
        at_once = max(1, _SCORES // len(unit))
        answers = torch.empty(len(queries), dtype=torch.int64, device=unit.device)
        # Written into one tensor: a list of small ones between large passing ones keeps the memory of these from reuse.
        for start in range(0, len(queries), at_once):
            scores = queries[start : start + at_once].float() @ unit.T
            answers[start : start + at_once] = scores.argmax(dim=1)
        order = rng.permutation(len(queries))
        others = torch.from_numpy(np.roll(order, 1)[np.argsort(order)]).to(answers.device)  # none stays in its place
        shares[modality] = float((answers == answers[others]).float().mean())
    return shares


def warn_of_ignored(images: Float[Tensor, "images dim"], texts: Float[Tensor, "texts dim"]) -> list[str]:
    """Return a warning per modality that the model's answers do not depend on."""
    if min(len(images), len(texts)) < FEWEST:
        return []
    other = {"image": "text", "text": "image"}
    return [
        f"The model ignores the {modality}: {100 * share:.0f} % of its answers stay the same when every {modality} is "
        f"replaced by another one. Robustness to changes of the {modality} says nothing, and the {other[modality]} "
        "alone decides."
        for modality, share in unchanged_answers(images, texts).items()
        if share >= _SAME
    ]


def warn_of_masking(model: VisionLanguageModel, batch: PairBatch, *, modalities: Sequence[str]) -> list[str]:
    """Return warnings about gradients that an attack cannot follow: not finite, vanishing, or no better than chance.

    Args:
        model: the victim, frozen and in evaluation mode.
        batch: a few pairs, on the model's device; one forward and backward each, and two forwards more.
        modalities: "image", "text" or both: whose gradients matter.
    """
    found = []
    with torch.no_grad():
        texts = model.encode_text(batch.texts).float()
        images = model.encode_image(batch.pixels).float()
    if not bool(texts.isfinite().all() and images.isfinite().all()):
        return ["The model gives embeddings that are not finite: its figures mean nothing."]
    if "image" in modalities:
        if isinstance(model, Defended) and model.approximated:
            found.append(
                f"Gradients to the pixels are those of the surrogate of {model.defence.name!r}, not of the defence: "
                "attacks by gradients are as strong as it is near."
            )
        found += _image_masking(model, batch, texts)
    if "text" in modalities:
        found += _text_masking(model, batch, images)
    return found


def _image_masking(model: VisionLanguageModel, batch: PairBatch, texts: Float[Tensor, "texts dim"]) -> list[str]:
    partners = mean_partner(texts, batch.positives)

    def loss(pixels: Pixels) -> Float[Tensor, " images"]:
        return misalignment(model.encode_image(pixels).float(), partners)

    pixels = batch.pixels.detach().clone().requires_grad_(True)
    with torch.enable_grad():
        values = loss(pixels)
        gradient = None
        if values.requires_grad:
            (gradient,) = torch.autograd.grad(values.sum(), pixels, allow_unused=True)
    gradient = torch.zeros_like(pixels) if gradient is None else gradient
    per_image = gradient.flatten(1)
    if not bool(gradient.isfinite().all()):
        return [_broken("pixels", int((~per_image.isfinite().all(dim=1)).sum()), len(pixels), "not finite")]
    flat = int((_STEP * per_image.abs().sum(dim=1) < _FLAT).sum())
    if flat > len(pixels) / 2:
        return [_broken("pixels", flat, len(pixels), "zero")]
    with torch.no_grad():
        noise = uniform(batch.image_ids, tuple(pixels.shape[1:]), seed=0, device=pixels.device)
        along, random = (
            loss((batch.pixels + _STEP * way.sign()).clamp(0, 1)) - values.detach() for way in (gradient, noise - 0.5)
        )
    if float(along.mean()) <= float(random.mean()):
        return [
            "Gradients to the pixels point nowhere: a step along them hurts the model no more than random noise of the "
            "same size. Attacks by gradients, and figures from them, may be far too kind (gradient masking)."
        ]
    return []


def _text_masking(model: VisionLanguageModel, batch: PairBatch, images: Float[Tensor, "images dim"]) -> list[str]:
    partners = mean_partner(images, batch.positives.T)
    try:
        found = token_gradients(
            model, batch.texts, lambda e: (torch.nn.functional.normalize(e, dim=-1) * partners).sum(dim=-1)
        )
    except ValueError:  # nothing to look into: the text attacks of this model use no gradients either
        return []
    per_text = found.gradient.flatten(1)
    if not bool(per_text.isfinite().all()):
        return [_broken("words", int((~per_text.isfinite().all(dim=1)).sum()), len(per_text), "not finite")]
    flat = int((per_text.abs().amax(dim=1) < _FLAT * 1e-3).sum())
    return [_broken("words", flat, len(per_text), "zero")] if flat > len(per_text) / 2 else []


def _broken(what: str, count: int, total: int, how: str) -> str:
    return (
        f"Gradients to the {what} are {how} for {count} of {total} samples looked at: attacks by gradients cannot "
        "work, and figures from them say nothing about robustness (gradient masking)."
    )


def warn_of_few_words(attack: Attack, texts: Sequence[str], model: VisionLanguageModel) -> list[str]:
    """Return a warning if an attack's source has candidates for fewer than half the words of (some) texts.

    Args:
        attack: any attack; one that substitutes no words is not warned of.
        texts: those of the data; 512 evenly spread ones are looked at.
        model: the victim, for sources that look into it.
    """
    source = _source_of(attack)
    if source is None:
        return []
    asked = spread_evenly(texts, count=_TEXTS_ASKED)
    covered, words = coverage(asked, source.candidates(asked, model=model))
    return [uncovered(source, covered, words)] if covered < words / 2 else []


def _source_of(attack: Attack) -> CandidateSource | None:
    """Return the source of an attack, or of an attack that it is made of."""
    for part in vars(attack).values():
        found = _source_of(part) if isinstance(part, Attack) else part
        if isinstance(found, CandidateSource):
            return found
    return None


def warn_of_weak_attacks(outcomes: Mapping[str, Outcome]) -> dict[str, list[str]]:
    """Return, by attack, warnings that a model seems to withstand while another of the same budget breaks it.

    It seems to withstand an attack that leaves at least 85 % of a headline figure; it is broken by one that leaves less
    than half of that, beyond the intervals of both figures. Figures of too few groups for an interval say nothing.

    Args:
        outcomes: by attack, all of one model under one threat model.
    """
    found: dict[str, list[str]] = {}
    metrics = next(iter(outcomes.values())).about["headline"] if outcomes else ()
    for metric in metrics:
        figures = {
            name: (figure.value, *figure.interval)
            for name, outcome in outcomes.items()
            if (figure := outcome.estimates.get("robust", {}).get(metric)) is not None and figure.interval is not None
        }
        if len(figures) < 2:
            continue
        strongest = min(figures, key=lambda name: figures[name][0])
        value, _, high = figures[strongest]
        for name, (kind, low, _) in figures.items():
            clean = outcomes[name].estimates["clean"][metric]
            if clean is not None and kind >= 0.85 * clean.value > 0 and value < kind / 2 and high < low:
                named = metric.upper() if "@" in metric else metric
                found.setdefault(name, []).append(
                    f"{named} looks robust under {name} ({kind:.1f} %) and breaks under {strongest} ({value:.1f} %) of "
                    f"the same budget: judge by {strongest}."
                )
    return found


def warn_of_rising(outcomes: Sequence[Outcome]) -> list[tuple[Outcome, str]]:
    """Return outcomes with a warning that more is left than within a smaller budget, which they include.

    An attack that searched well would find the smaller budget's answer too. Differences within half of the interval
    of the smaller budget's figure are not told.

    Args:
        outcomes: of one model under one attack within several budgets.
    """
    found = []
    for larger in outcomes:
        inner = [one for one in outcomes if one is not larger and _within(one.budgets, larger.budgets)]
        for metric in larger.about["headline"]:
            left = larger.estimates.get("robust", {}).get(metric)
            others = [
                (figure, one)
                for one in inner
                if (figure := one.estimates.get("robust", {}).get(metric)) is not None and figure.high is not None
            ]
            if left is None or not others:
                continue
            least, smaller = min(others, key=lambda pair: pair[0].value)
            if least.high is not None and left.value > (least.value + least.high) / 2:
                named = metric.upper() if "@" in metric else metric
                found.append(
                    (
                        larger,
                        f"{named} is {left.value:.1f} % here and {least.value:.1f} % within less ({smaller.budgets}): "
                        "the attack has not converged; give it more steps or restarts.",
                    )
                )
    return found


def _within(small: ThreatModel, large: ThreatModel) -> bool:
    """Whether a threat allows no more than another, budget by budget of the same kind."""
    if set(small) != set(large) or small.target != large.target or small == large:
        return False
    return all(
        type(budget) is type(large[name])
        and all(
            value == other if isinstance(value, tuple | str) else value <= other
            for value, other in zip(vars(budget).values(), vars(large[name]).values(), strict=True)
        )
        for name, budget in small.items()
    )
