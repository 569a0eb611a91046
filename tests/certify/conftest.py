"""Fixtures of the small classifier and its samples."""

import numpy as np
import pytest
from certify_toys import SignNet

from crossguard.data import MultiModalSamples


@pytest.fixture
def sign_net():
    return SignNet()


@pytest.fixture
def sensors():
    rng = np.random.default_rng(0)
    left = rng.choice([-1.0, 1.0], size=(12, 6), p=[0.1, 0.9])
    right = rng.choice([-1.0, 1.0], size=(12, 5), p=[0.1, 0.9])
    flip = np.where(np.arange(12) % 3 == 0, -1.0, 1.0)[:, None]
    return MultiModalSamples(
        name="toy",
        split="test",
        modalities={
            "right": (flip * right)[..., None].astype(np.float32),
            "left": (flip * left)[..., None].astype(np.float32),
        },
        labels=np.array([0, 1, 1, 0, 1, 1, 0, 1, 0, 1, 1, -1]),
        classes=("no", "yes", "never"),
        groups=np.arange(12) // 4,
    )
