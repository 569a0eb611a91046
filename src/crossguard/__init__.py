"""crossguard attacks, hardens and certifies models that read several modalities at once.

import crossguard as cg

pairs = cg.load_pairs("emoji", split="test")
model = cg.load_model("emoji-clip")
threat = cg.ThreatModel(image=cg.LInf(eps=2 / 255), text=cg.WordEdits(words=1))
result = cg.evaluate(model, pairs, attack="sga", threat=threat, seed=0)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from crossguard.threat import L2, Elements, LInf, Patch, ThreatModel, WordEdits

if TYPE_CHECKING:
    from crossguard.certify import certify, predict
    from crossguard.data import (
        LabelledImages,
        MultiModalSamples,
        OneToManyPairs,
        PictureQuestions,
        as_images,
        as_pairs,
        as_samples,
        load_expressions,
        load_images,
        load_pairs,
        load_questions,
        load_samples,
    )
    from crossguard.evaluate import Result, evaluate
    from crossguard.models import load_model
    from crossguard.training import train

__version__ = "0.1.0"

__all__ = [
    "L2",
    "Elements",
    "LInf",
    "LabelledImages",
    "MultiModalSamples",
    "OneToManyPairs",
    "Patch",
    "PictureQuestions",
    "Result",
    "ThreatModel",
    "WordEdits",
    "__version__",
    "as_images",
    "as_pairs",
    "as_samples",
    "certify",
    "evaluate",
    "load_expressions",
    "load_images",
    "load_model",
    "load_pairs",
    "load_questions",
    "load_samples",
    "predict",
    "train",
]

# Loaded on first use: the mathematics of certificates and the command line's help need no PyTorch.
_HOMES = {
    "LabelledImages": "data",
    "MultiModalSamples": "data",
    "OneToManyPairs": "data",
    "PictureQuestions": "data",
    "as_images": "data",
    "as_pairs": "data",
    "as_samples": "data",
    "load_expressions": "data",
    "load_images": "data",
    "load_pairs": "data",
    "load_questions": "data",
    "load_samples": "data",
    "load_model": "models",
    "train": "training",
    "predict": "certify",
    "Result": "evaluate",
}


_ROOMS = ("attacks", "augment", "certify", "data", "evaluate", "models", "recipes", "report", "runs", "training")


def __getattr__(name: str) -> Any:
    if name in _ROOMS:  # `evaluate` and `certify` among them, which can be called
        return import_module(f"crossguard.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'crossguard' has no attribute {name!r}")
    return getattr(import_module(f"crossguard.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*__all__, *_ROOMS})
