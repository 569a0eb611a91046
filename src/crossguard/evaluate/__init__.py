"""Evaluation: retrieval clean and under attack, with attack success, confidence intervals and rows."""

from crossguard.evaluate.examples import Example, Examples
from crossguard.evaluate.intervals import paired_drop, wilson
from crossguard.evaluate.measure import evaluate, evaluate_modalities
from crossguard.evaluate.result import RetrievalResult
from crossguard.evaluate.retrieval import METRICS, embedding_ranks, partner_ranks, recalls, retrieval_ranks

__all__ = [
    "METRICS",
    "Example",
    "Examples",
    "RetrievalResult",
    "embedding_ranks",
    "evaluate",
    "evaluate_modalities",
    "paired_drop",
    "partner_ranks",
    "recalls",
    "retrieval_ranks",
    "wilson",
]
