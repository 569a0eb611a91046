"""pgd and apgd against another library's on a plain image classifier, at equal settings."""

import numpy as np
import pytest
import torch
from art.attacks.evasion import AutoProjectedGradientDescent, ProjectedGradientDescentPyTorch
from art.estimators.classification import PyTorchClassifier
from torch import nn
from torch.nn.functional import cross_entropy

from crossguard.attacks import LInfBall, auto_maximise, maximise

STEPS, SAMPLES = 10, 300
# Strong enough to break most digits, weak enough to leave some.
RADII = [0.05, 0.1]


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
        LInfBall(pixels, eps),
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
    ball = LInfBall(pixels, eps)
    found = auto_maximise(
        lambda x: cross_entropy(network(x), labels, reduction="none"),
        ball,
        steps=STEPS,
        start=ball.start(torch.arange(SAMPLES), seed=0),
    )
    assert accuracy(network, found, labels) == pytest.approx(accuracy(network, expected, labels), abs=0.02)
