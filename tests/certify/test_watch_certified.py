"""The built-in watch task: early stopping keeps what all draws certify, at less than a third of them."""

import pytest

from crossguard.certify import certify, certify_early
from crossguard.data import load_samples
from crossguard.models import WatchNet
from crossguard.training.ablated import train_ablated, turn_sensors


@pytest.mark.slow
def test_early_stopping_takes_a_third_of_the_draws():
    pytest.importorskip("seglearn")
    train = load_samples("watch", split="train", stride=52)
    keep = dict.fromkeys(train.modalities, 5)
    model = WatchNet.for_samples(train, width=64)
    train_ablated(model, train, keep=keep, steps=250, augment=turn_sensors)
    samples = load_samples("watch", split="val")
    full = certify(model, samples, keep=keep, draws=1000, seed=0)
    assert full.clean_accuracy > 0.6
    for radius in (1, 3, 5):
        radii = dict.fromkeys(keep, radius)
        early = certify_early(model, samples, keep=keep, radii=radii, draws=1000, seed=0)
        assert early.draws.mean() <= 1000 / 3
        certified = full.certified(radii)
        assert certified.mean() > 0.3
        assert (early.certified & ~certified).mean() <= 0.02  # each pays in its own way; none is right more often
        assert early.certified.mean() >= certified.mean() - 0.03
