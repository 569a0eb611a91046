"""Evaluation of all tasks, clean and under attack, with attack success, intervals and rows."""

from crossguard.callable_module import make_callable
from crossguard.evaluate.captioning import evaluate_captioning
from crossguard.evaluate.captioning_result import CaptioningResult
from crossguard.evaluate.captioning_scores import CAPTION_METRICS, CaptionScores, score_captions
from crossguard.evaluate.certified import certified_figures
from crossguard.evaluate.examples import Example, Examples
from crossguard.evaluate.grounding import evaluate_grounding, evaluate_grounding_modalities
from crossguard.evaluate.grounding_result import GroundingResult
from crossguard.evaluate.labels import label_accuracy
from crossguard.evaluate.measure import evaluate, evaluate_modalities
from crossguard.evaluate.result import RetrievalResult
from crossguard.evaluate.retrieval import METRICS, embedding_ranks, partner_ranks, recalls, retrieval_ranks
from crossguard.evaluate.sample_examples import SampleExample, SampleExamples
from crossguard.evaluate.samples_result import SamplesResult
from crossguard.evaluate.samples_task import evaluate_samples
from crossguard.evaluate.several import evaluate_attacks
from crossguard.evaluate.statistics import Figure, NoInterval, Ratio, clustered_interval, wilson

__all__ = [
    "CAPTION_METRICS",
    "METRICS",
    "CaptionScores",
    "CaptioningResult",
    "Example",
    "Examples",
    "Figure",
    "GroundingResult",
    "NoInterval",
    "Ratio",
    "RetrievalResult",
    "SampleExample",
    "SampleExamples",
    "SamplesResult",
    "certified_figures",
    "clustered_interval",
    "embedding_ranks",
    "evaluate",
    "evaluate_attacks",
    "evaluate_captioning",
    "evaluate_grounding",
    "evaluate_grounding_modalities",
    "evaluate_modalities",
    "evaluate_samples",
    "label_accuracy",
    "partner_ranks",
    "recalls",
    "retrieval_ranks",
    "score_captions",
    "wilson",
]

make_callable(__name__)
