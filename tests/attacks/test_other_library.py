"""pgd and apgd against another library's on a plain image classifier, at equal settings."""

import numpy as np
import pytest
import torch
from art.attacks.evasion import AutoProjectedGradientDescent, ProjectedGradientDescentPyTorch
from art.estimators.classification import PyTorchClassifier
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

from crossguard.attacks import auto_maximise, maximise, random_start
from crossguard.data import PairBatch

STEPS, SAMPLES = 10, 300
# Strong enough to break most digits, weak enough to leave some.
RADII = [0.05, 0.1]


@pytest.fixture(scope="module")
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
            for part in torch.randperm(len(pixels) - SAMPLES).split(128):
                optimiser.zero_grad()
                cross_entropy(network(pixels[part]), labels[part]).backward()
                optimiser.step()
    network.requires_grad_(False).eval()
    return network, pixels[-SAMPLES:], labels[-SAMPLES:]


def theirs(network):
    return PyTorchClassifier(
        network, loss=nn.CrossEntropyLoss(), input_shape=(3, 8, 8), nb_classes=10, clip_values=(0.0, 1.0)
    )


def accuracy(network, pixels, labels):
    with torch.no_grad():
        return float((network(pixels).argmax(dim=1) == labels).float().mean())


@pytest.mark.parametrize("eps", RADII)
def test_pgd_takes_the_same_steps(digits, eps):
    network, pixels, labels = digits
    attack = ProjectedGradientDescentPyTorch(
        theirs(network), norm=np.inf, eps=eps, eps_step=eps / 4, max_iter=STEPS, batch_size=SAMPLES, verbose=False
    )
    expected = torch.from_numpy(attack.generate(pixels.numpy(), labels.numpy()))
    found = maximise(
        lambda x: cross_entropy(network(x), labels, reduction="none"),
        pixels,
        eps=eps,
        steps=STEPS,
        step_size=eps / 4,
        keep_best=False,
    )
    # A gradient of float noise around zero may take another sign.
    assert ((found - expected).abs() < 1e-5).float().mean() > 0.99
    robust = accuracy(network, found, labels)
    assert robust == pytest.approx(accuracy(network, expected, labels), abs=0.005)
    assert robust < accuracy(network, pixels, labels) - 0.1


@pytest.mark.parametrize("eps", RADII)
def test_apgd_is_as_strong(digits, eps):
    network, pixels, labels = digits
    with torch.random.fork_rng():
        torch.manual_seed(0)
        before = np.random.get_state()  # noqa: NPY002, the other library draws from it
        np.random.seed(0)  # noqa: NPY002
        attack = AutoProjectedGradientDescent(
            theirs(network),
            norm=np.inf,
            eps=eps,
            eps_step=2 * eps,
            max_iter=STEPS,
            nb_random_init=1,
            batch_size=SAMPLES,
            loss_type=None,
            verbose=False,
        )
        expected = torch.from_numpy(attack.generate(pixels.numpy(), labels.numpy()))
        np.random.set_state(before)  # noqa: NPY002
    ids = torch.arange(SAMPLES)
    batch = PairBatch(pixels, ("",) * SAMPLES, torch.stack([ids, ids], dim=1), ids, ids)
    found = auto_maximise(
        lambda x: cross_entropy(network(x), labels, reduction="none"),
        pixels,
        eps=eps,
        steps=STEPS,
        start=random_start(batch, eps=eps, seed=0),
    )
    assert accuracy(network, found, labels) == pytest.approx(accuracy(network, expected, labels), abs=0.02)
