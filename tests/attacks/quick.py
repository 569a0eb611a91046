"""Attacks with few steps, which keep tests short: what is tested does not depend on the number."""

import math

from crossguard.attacks import make_attack
from crossguard.threat import Elements, LInf, ThreatModel, WordEdits

QUICK = {
    "pgd": {"steps": 3},
    "apgd": {"steps": 5},
    "auto-attack": {"steps": 3, "targets": 2, "queries": 10},
    "apgd-ce": {"steps": 5},
    "apgd-t": {"steps": 3, "targets": 2},
    "fab-t": {"steps": 3, "targets": 2},
    "square": {"queries": 40},
    "word-swap": {},
    "sep": {"steps": 3},
    "co-attack": {"steps": 3},
    "sga": {"steps": 2, "scales": (0.5, 1.5)},
    "dra": {"steps": 2, "scales": (0.5,), "draws": 2},
    "adaptive": {"steps": 5, "rounds": 1},
    "sparse": {"steps": 2, "trials": 1},
}


def quick(name, **options):
    return make_attack(name, **(QUICK[name] | options))


def threat(eps, words, name="pgd"):
    """A budget of `eps` grey levels, or of a third as many patches (of 4) for attacks that take patches."""
    image = Elements(math.ceil(eps / 3)) if name == "sparse" else LInf(eps / 255)
    return ThreatModel(image=image, text=WordEdits(words))
