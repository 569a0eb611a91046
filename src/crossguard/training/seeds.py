"""One number for all that is drawn at a training step."""


def step_seed(seed: int, step: int, *, part: int = 0, parts: int = 1) -> int:
    """Return a seed in [0, 2^63) for a step, or for one of the parts of it that draw apart.

    Example:
        >>> step_seed(2, 5), step_seed(0, 5, part=1, parts=4)
        (2000011, 21)
    """
    return ((seed * 1_000_003 + step) * parts + part) % 2**63
