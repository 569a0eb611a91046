"""Bootstrap over samples: how often each sample is drawn, and 95 % intervals of whatever follows from that."""

import numpy as np
from jaxtyping import Float64

DRAWS = 1000
"""Resamples of an interval."""


def resamples(samples: int, *, seed: int, draws: int = DRAWS) -> Float64[np.ndarray, "draws samples"]:
    """Return how often each of the samples is drawn, `samples` times with replacement per draw (Efron, 1979)."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(samples, np.full(samples, 1 / samples), size=draws).astype(np.float64)


def percentile_interval(values: Float64[np.ndarray, " draws"]) -> tuple[float, float]:
    """Return the 2.5 % and 97.5 % quantiles of a figure's values over resamples."""
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)
