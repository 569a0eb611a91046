"""Training: one trainer, a table of defences, and training on ablated inputs for certificates."""

from crossguard.training.ablated import train_ablated
from crossguard.training.ablated_options import AblatedOptions
from crossguard.training.batches import Pictures, StepBatches, TrainingBatch
from crossguard.training.composition import Composition, Draw, draw_step, false_negatives
from crossguard.training.defences import DEFENCES, DefenceRow, register_defence
from crossguard.training.inner import InnerAttack
from crossguard.training.links import Arranged, arrange
from crossguard.training.lora import Lora
from crossguard.training.options import TrainOptions
from crossguard.training.step_loss import StepLoss
from crossguard.training.swaps import Swaps, swap_some
from crossguard.training.terms import Anchor, Attention, Consistency, Contrast, Language, Match, Term
from crossguard.training.trainer import train

__all__ = [
    "DEFENCES",
    "AblatedOptions",
    "Anchor",
    "Arranged",
    "Attention",
    "Composition",
    "Consistency",
    "Contrast",
    "DefenceRow",
    "Draw",
    "InnerAttack",
    "Language",
    "Lora",
    "Match",
    "Pictures",
    "StepBatches",
    "StepLoss",
    "Swaps",
    "Term",
    "TrainOptions",
    "TrainingBatch",
    "arrange",
    "draw_step",
    "false_negatives",
    "register_defence",
    "swap_some",
    "train",
    "train_ablated",
]
