"""Attacks on image-text models: within a threat model, batched, with the model's weights left as they are."""

from crossguard.attacks.adaptive import Adaptive
from crossguard.attacks.apgd import auto_maximise
from crossguard.attacks.ascent import maximise, step_size
from crossguard.attacks.auto_attack import APGDCE, APGDT, FABT, AutoAttack, Square
from crossguard.attacks.ball import Ball, ElementsBall, JointBall, L2Ball, LInfBall, PatchBall, ball_of
from crossguard.attacks.base import Adversarial, Attack, fast_precision, frozen
from crossguard.attacks.budget import Budgets, count_word_edits, within_words
from crossguard.attacks.candidates import Candidates, CandidateSource
from crossguard.attacks.characters import Characters
from crossguard.attacks.class_search import Search, run_parts, standard_parts
from crossguard.attacks.co_attack import CoAttack
from crossguard.attacks.dra import DRA
from crossguard.attacks.gallery import Gallery
from crossguard.attacks.image_loss import image_loss
from crossguard.attacks.masked_lm import MaskedLM
from crossguard.attacks.neighbours import EmbeddingNeighbours
from crossguard.attacks.pgd import APGD, PGD
from crossguard.attacks.samples import AttackedSamples, SampleAttack, attack_samples
from crossguard.attacks.saved import Saved
from crossguard.attacks.saved_set import AdversarialSet, load_adversarial, save_adversarial
from crossguard.attacks.scores import ClassScores
from crossguard.attacks.sep import Sep
from crossguard.attacks.sga import SGA
from crossguard.attacks.sources import SOURCES, SourceRow, make_source
from crossguard.attacks.sparse import Sparse
from crossguard.attacks.storage import Storage
from crossguard.attacks.swap import WordSwap, swap_words
from crossguard.attacks.table import ATTACKS, AttackRow, make_attack, register_attack
from crossguard.attacks.text_score import TextScore, text_score
from crossguard.attacks.thesaurus import Thesaurus
from crossguard.attacks.victims import Plain, Victim

__all__ = [
    "APGD",
    "APGDCE",
    "APGDT",
    "ATTACKS",
    "DRA",
    "FABT",
    "PGD",
    "SGA",
    "SOURCES",
    "Adaptive",
    "Adversarial",
    "AdversarialSet",
    "Attack",
    "AttackRow",
    "AttackedSamples",
    "AutoAttack",
    "Ball",
    "Budgets",
    "CandidateSource",
    "Candidates",
    "Characters",
    "ClassScores",
    "CoAttack",
    "ElementsBall",
    "EmbeddingNeighbours",
    "Gallery",
    "JointBall",
    "L2Ball",
    "LInfBall",
    "MaskedLM",
    "PatchBall",
    "Plain",
    "SampleAttack",
    "Saved",
    "Search",
    "Sep",
    "SourceRow",
    "Sparse",
    "Square",
    "Storage",
    "TextScore",
    "Thesaurus",
    "Victim",
    "WordSwap",
    "attack_samples",
    "auto_maximise",
    "ball_of",
    "count_word_edits",
    "fast_precision",
    "frozen",
    "image_loss",
    "load_adversarial",
    "make_attack",
    "make_source",
    "maximise",
    "register_attack",
    "run_parts",
    "save_adversarial",
    "standard_parts",
    "step_size",
    "swap_words",
    "text_score",
    "within_words",
]
