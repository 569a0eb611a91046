"""The table of attacks, and `make_attack`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from crossguard.attacks.adaptive import Adaptive
from crossguard.attacks.apgd import APGD
from crossguard.attacks.base import Attack
from crossguard.attacks.co_attack import CoAttack
from crossguard.attacks.dra import DRA
from crossguard.attacks.pgd import PGD
from crossguard.attacks.saved import Saved
from crossguard.attacks.sep import Sep
from crossguard.attacks.sga import SGA
from crossguard.attacks.sparse import Sparse
from crossguard.attacks.swap import WordSwap
from crossguard.checks import check_options, lookup


@dataclass(frozen=True)
class AttackRow:
    """One attack: its name, one line about it, the modalities it can attack, and how to build it."""

    name: str
    summary: str
    uses: frozenset[str]
    build: Callable[..., Attack]


def _row(build: type[Attack], summary: str) -> AttackRow:
    return AttackRow(build.name, summary, build.uses, build)


ATTACKS: dict[str, AttackRow] = {
    row.name: row
    for row in (
        _row(PGD, "L-inf projected gradient descent on images"),
        _row(APGD, "Auto-PGD on images: momentum, and steps that halve when progress stalls"),
        _row(WordSwap, "BERT-Attack: substitutes the most important words of texts"),
        _row(Sep, "PGD and word-swap, each against the clean other side"),
        _row(CoAttack, "word-swap, then PGD away from the clean image and the changed text"),
        _row(SGA, "set-level guidance: captions, then images at several scales, then captions again"),
        _row(DRA, "SGA with gradients at the worst mix of clean, previous and present image; made to transfer"),
        _row(Adaptive, "joint Auto-PGD and word-swap on the very score retrieval ranks by: judge defences by it"),
        _row(Sparse, "a few image patches of any values and a few words: the threat that certificates bound"),
        _row(Saved, "transfer: a set that an attack found earlier, on this model or another (`folder`)"),
    )
}


def make_attack(name: str, **options: Any) -> Attack:
    """Build an attack by its name in the table.

    Args:
        name: "pgd", "word-swap", "sga", ... (`crossguard list attacks`).
        options: the attack's own keyword arguments.

    Raises:
        ValueError: an unknown name or option (the nearest known one is named), or a value out of range.

    Example:
        >>> make_attack("pgd", stepps=5)
        Traceback (most recent call last):
        ValueError: Unknown option 'stepps' of attack 'pgd': did you mean 'steps'? ...
    """
    row = lookup(ATTACKS, name, what="attack")
    check_options(row.build, options, what=f"attack {name!r}")
    return row.build(**options)
