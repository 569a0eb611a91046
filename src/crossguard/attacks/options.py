"""Checking the values of options that several attacks share."""

from typing import get_args

from crossguard.attacks.ascent import Start, StepRule
from crossguard.checks import check_choice


def check_counts(**counts: int) -> None:
    """Refuse numbers of steps, restarts and the like below one.

    Raises:
        ValueError: saying which and what came.
    """
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"Expected `{name}` >= 1, but got {count}.")


def check_steps(steps: int) -> None:
    """Refuse step counts below one.

    Raises:
        ValueError: saying what came.
    """
    check_counts(steps=steps)


def check_step_rule(step: str | float) -> StepRule | float:
    """Return a known step rule or a size in (0, 1].

    Raises:
        ValueError: saying what came.
    """
    if isinstance(step, str):
        rule: StepRule = check_choice(step, get_args(StepRule), "step")
        return rule
    if not 0 < step <= 1:
        raise ValueError(f"Expected `step` in (0, 1] pixel units, but got {step}.")
    return step


def check_starts(start: str, restarts: int, objective: str) -> Start:
    """Return a known start; refuse restarts that would all be the same, and a start without a gradient.

    Raises:
        ValueError: saying what came.
    """
    known: Start = check_choice(start, get_args(Start), "start")
    if restarts < 1 or (restarts > 1 and start == "clean"):
        raise ValueError(
            f"Expected `restarts` >= 1, and 1 with start='clean', but got {restarts} with start={start!r}."
        )
    if start == "clean" and objective == "distance":
        raise ValueError(
            "Expected start='uniform' with objective='distance', whose gradient is zero at the clean image."
        )
    return known
