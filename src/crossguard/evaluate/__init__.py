"""Evaluation of all tasks, clean and under attack, with attack success, intervals and rows."""

from crossguard.callable_module import make_callable
from crossguard.evaluate.batches import pair_batch
from crossguard.evaluate.captioning_scores import CAPTION_METRICS, CaptionScores, score_captions
from crossguard.evaluate.certified import certified_figures
from crossguard.evaluate.examples import Example, Item
from crossguard.evaluate.fingerprint import pairs_fingerprint, weights_fingerprint
from crossguard.evaluate.labels import label_accuracy
from crossguard.evaluate.measure import evaluate, threats_over
from crossguard.evaluate.result import Figure, Outcome, Result
from crossguard.evaluate.retrieval import METRICS, embedding_ranks, partner_ranks, recalls, retrieval_ranks
from crossguard.evaluate.statistics import Estimate, NoInterval, Ratio, clustered_interval, wilson
from crossguard.evaluate.task import SampleTask, Task, check_budgets, task_options
from crossguard.evaluate.tasks import TASKS, register_task

__all__ = [
    "CAPTION_METRICS",
    "METRICS",
    "TASKS",
    "CaptionScores",
    "Estimate",
    "Example",
    "Figure",
    "Item",
    "NoInterval",
    "Outcome",
    "Ratio",
    "Result",
    "SampleTask",
    "Task",
    "certified_figures",
    "check_budgets",
    "clustered_interval",
    "embedding_ranks",
    "evaluate",
    "label_accuracy",
    "pair_batch",
    "pairs_fingerprint",
    "partner_ranks",
    "recalls",
    "register_task",
    "retrieval_ranks",
    "score_captions",
    "task_options",
    "threats_over",
    "weights_fingerprint",
    "wilson",
]

make_callable(__name__)
