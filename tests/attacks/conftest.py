"""A small network that reads digits, for comparisons with other libraries."""

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

HELD_BACK = 300


@pytest.fixture(scope="session")
def digits():
    """(network, pixels, labels): a small network that reads digits of 8 x 8 pixels, and digits it has not seen."""
    data = load_digits()
    pixels = torch.tensor(data.images / 16, dtype=torch.float32).unsqueeze(1).expand(-1, 3, -1, -1).contiguous()
    labels = torch.tensor(data.target)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 10)
        )
        optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
        for _ in range(10):
            for part in torch.randperm(len(pixels) - HELD_BACK).split(128):
                optimiser.zero_grad()
                cross_entropy(network(pixels[part]), labels[part]).backward()
                optimiser.step()
    network.requires_grad_(False).eval()
    return network, pixels[-HELD_BACK:], labels[-HELD_BACK:]
