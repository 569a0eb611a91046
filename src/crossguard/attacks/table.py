"""The table of attacks, and `make_attack`."""

from collections.abc import Callable
from dataclasses import dataclass
from inspect import isabstract
from typing import Any

from crossguard.attacks.adaptive import Adaptive
from crossguard.attacks.auto_attack import APGDCE, APGDT, FABT, AutoAttack, Square
from crossguard.attacks.base import Attack
from crossguard.attacks.co_attack import CoAttack
from crossguard.attacks.dra import DRA
from crossguard.attacks.pgd import APGD, PGD
from crossguard.attacks.saved import Saved
from crossguard.attacks.sep import Sep
from crossguard.attacks.sga import SGA
from crossguard.attacks.sparse import Sparse
from crossguard.attacks.swap import WordSwap
from crossguard.checks import check_options
from crossguard.table import Table


@dataclass(frozen=True)
class AttackRow:
    """One attack: its name, one line about it, the modalities it can attack, what it takes, and how to build it.

    Args:
        name: as recipes call it.
        summary: one line.
        uses: of "image" and "text".
        takes: the types of budget of images, and of every modality of samples.
        samples: whether it attacks sensors and scenes.
        build: its class.
    """

    name: str
    summary: str
    uses: frozenset[str]
    takes: tuple[type[Any], ...]
    samples: bool
    build: Callable[..., Attack]


def _row(build: type[Attack], summary: str) -> AttackRow:
    takes = build.takes["image"] if "image" in build.uses else ()
    return AttackRow(build.name, summary, build.uses, takes, hasattr(build, "run_samples"), build)


ATTACKS = Table[AttackRow](
    "attack",
    (
        _row(PGD, "L-inf projected gradient descent on images"),
        _row(APGD, "Auto-PGD on images: momentum, and steps that halve when progress stalls"),
        _row(AutoAttack, "AutoAttack: apgd-ce, apgd-t, fab-t and square against the ranking of texts for each image"),
        _row(APGDCE, "Auto-PGD on the cross-entropy of the own texts among all; part of auto-attack"),
        _row(APGDT, "Auto-PGD on the targeted DLR loss, one other text after another; part of auto-attack"),
        _row(FABT, "the nearest image that ranks another text first; part of auto-attack"),
        _row(Square, "random squares, without gradients; part of auto-attack"),
        _row(WordSwap, "BERT-Attack: substitutes the most important words of texts (`compat`: as published)"),
        _row(Sep, "PGD and word-swap, each against the clean other side (`compat`: as published)"),
        _row(CoAttack, "word-swap, then PGD away from the clean image and the changed text (`compat`: as published)"),
        _row(SGA, "set-level guidance: captions, images at several scales, captions again (`compat`: as published)"),
        _row(DRA, "SGA with gradients at the worst mix of clean, previous and present image; made to transfer"),
        _row(Adaptive, "each direction's own losses against the whole gallery, images and texts: judge defences by it"),
        _row(Sparse, "a few image patches of any values and a few words: the threat that certificates bound"),
        _row(Saved, "transfer: a set that an attack found earlier, on this model or another (`folder`)"),
    ),
)


def register_attack(name: str, cls: type[Attack], *, summary: str) -> None:
    """Add an attack of your own to the table, so that recipes and the command line can name it.

    Args:
        name: what it is called; its class has the same `name`.
        cls: a subclass of `Attack` with `name`, `uses` and `run`; its keyword-only arguments are its options.
        summary: one line for `crossguard list attacks`.

    Raises:
        ValueError: no such class, another `name` in it, or a name of the package's own.
    """
    if not (isinstance(cls, type) and issubclass(cls, Attack)) or isabstract(cls):
        raise ValueError(f"Expected a subclass of crossguard.attacks.Attack with a `run`, but got {cls!r}.")
    if cls.name != name:
        raise ValueError(f"Expected `name = {name!r}` in {cls.__name__}, but it is {cls.name!r}.")
    ATTACKS.register(_row(cls, summary))


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
    row = ATTACKS.find(name)
    check_options(row.build, options, what=f"attack {name!r}")
    return row.build(**options)
