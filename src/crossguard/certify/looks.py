"""Secret seeds that counts keep, and looks at growing counts that are paid for.

Whoever draws more because the certificates so far did not please looks twice, and chances of a wrong certificate add
up. So counts in a folder keep the numbers of draws at which they were looked at. The first look has nine tenths of
alpha; look j >= 2 has a tenth of it divided by j (j - 1), which adds up to a tenth however many there are.
"""

import secrets
from collections.abc import Iterable
from pathlib import Path

from crossguard.certify.counts import Counts
from crossguard.world import join

FIRST = 0.9
"""Share of alpha that the first look has."""


def alpha_of_look(alpha: float, looks: tuple[int, ...], draws: int) -> float:
    """Return the part of alpha that a look at so many draws has.

    Args:
        alpha: of all looks together.
        looks: numbers of draws that were looked at, this one included.
        draws: of the look.
    """
    number = sorted(looks).index(draws) + 1
    return FIRST * alpha if number == 1 else (1 - FIRST) * alpha / (number * (number - 1))


def level_of(counts: Counts, alpha: float) -> float:
    """Return the part of alpha that this look at counts has: all of it where they are looked at once."""
    return alpha_of_look(alpha, counts.looks, counts.draws) if counts.looks else alpha


def choose_seed(seed: int | None, files: Iterable[Path]) -> tuple[int, bool]:
    """Return the seed, and whether it is secret: the one that was given, that kept counts have, or a fresh one.

    All processes take the first one's.

    Args:
        seed: what the caller gave; None: a secret.
        files: counts of an earlier call, which may be there.

    Raises:
        ValueError: a file that is there is broken.
    """
    if seed is not None:
        return seed, False
    found = next((Counts.load(path) for path in files if path.exists()), None)
    return join("cpu").agree((found.seed, found.secret) if found is not None else (secrets.randbits(62), True))
