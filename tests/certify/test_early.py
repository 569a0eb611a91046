"""Early stopping: the error stays below alpha whatever is looked at, and draws are saved."""

import itertools

import numpy as np
import pytest
from certify_toys import KEEP, PROBING, SignNet

from crossguard.certify import Counts, certify, certify_early, draws_to_reach
from crossguard.certify.early import decide_in_rounds, rounds_for


def votes_of(chances, rng):
    """Votes of samples whose labels have the given probabilities."""
    return lambda ids, start, stop: rng.multinomial(stop - start, chances[ids])


@pytest.mark.parametrize("threshold", [0.5, 0.6, 0.8])
def test_error_under_the_null_is_at_most_alpha(threshold):
    samples, alpha = 40_000, 0.05
    chances = np.tile([threshold, 1 - threshold, 0.0], (samples, 1))  # on the threshold: every certificate is wrong
    rounds = rounds_for(2 * threshold - 1, 400, alpha)
    assert len(rounds) > 2
    vote = votes_of(chances, np.random.default_rng(0))
    found = decide_in_rounds(vote, samples, 3, threshold=threshold, alpha=alpha, rounds=rounds)
    error = found.certified.mean()
    assert 0 < error <= alpha + 4 * np.sqrt(alpha / samples)
    # Looking at every round without paying for it does not keep alpha.
    unpaid = decide_in_rounds(
        votes_of(chances, np.random.default_rng(0)),
        samples,
        3,
        threshold=threshold,
        alpha=alpha * len(rounds),
        rounds=rounds,
    )
    assert unpaid.certified.mean() > error


def test_clear_cases_are_decided_with_few_draws():
    rng = np.random.default_rng(0)
    chances = np.array([[1.0, 0.0]] * 500 + [[0.0, 1.0]] * 500 + [[0.4, 0.6]] * 500)
    rounds = rounds_for(0.5, 1000, 0.001)
    found = decide_in_rounds(votes_of(chances, rng), 1500, 2, threshold=0.75, alpha=0.001, rounds=rounds)
    assert found.certified[:1000].all()
    assert not found.certified[1000:].any()
    assert (found.labels[:500] == 0).all()
    assert (found.labels[500:1000] == 1).all()
    assert found.saved > 2 / 3
    assert found.saved == pytest.approx(1 - found.draws.mean() / 1000)


def test_power_is_close_to_that_of_all_draws():
    chances = np.tile([0.85, 0.15], (2000, 1))
    rounds = rounds_for(0.5, 1000, 0.001)
    found = decide_in_rounds(
        votes_of(chances, np.random.default_rng(0)), 2000, 2, threshold=0.75, alpha=0.001, rounds=rounds
    )
    assert found.certified.mean() > 0.97


def test_rounds_are_fixed_before_and_end_with_all_draws():
    rounds = rounds_for(0.5, 1000, 0.001)
    assert rounds[-1] == 1000
    assert list(rounds) == sorted(set(rounds))
    assert rounds[0] >= draws_to_reach(0.5, 0.001 / len(rounds))
    needed = draws_to_reach(0.5, 0.001)
    assert rounds_for(0.5, needed, 0.001) == (needed,)
    with pytest.raises(ValueError, match=f"draw at least {needed}"):
        rounds_for(0.5, needed - 1, 0.001)


def test_agrees_with_certificates_from_all_draws(sign_net, sensors):
    radii = {"left": 1}
    found = certify_early(sign_net, sensors, keep=KEEP, radii=radii, draws=2000, alpha=0.01, batch_size=500, seed=0)
    full = certify(sign_net, sensors, keep=KEEP, draws=2000, alpha=0.01, seed=0)
    assert (found.labels == full.labels).all()
    assert (found.certified <= full.certified(radii)).all()
    assert found.certified.sum() >= full.certified(radii).sum() - 1
    assert found.saved > 0.3


def test_wrong_arguments_are_refused(unchecked, sign_net, sensors):
    for changes, message in (
        ({"radii": {"lefd": 1}}, "did you mean 'left'"),
        ({"radii": {"left": 6}}, "within reach"),
        ({"radii": {"left": 1}, "draws": 3}, "draw at least"),
        ({"radii": {"left": 1}, "alpha": 0}, "alpha"),
    ):
        with pytest.raises(ValueError, match=message):
            certify_early(sign_net, sensors, keep=KEEP, **changes)
    assert sign_net.calls == 0


def test_interrupted_is_uninterrupted(sensors, tmp_path):
    options = {"keep": KEEP, "radii": {"left": 1}, "draws": 2000, "alpha": 0.01, "batch_size": 20, "seed": 0}
    whole = certify_early(SignNet(), sensors, **options)
    assert len(set(whole.draws.tolist())) > 2  # several rounds
    for stop in (PROBING + 2, PROBING + 4, 1000):
        model = SignNet()

        def fail_late(module, *_, stop=stop):
            if module.calls >= stop:
                raise KeyboardInterrupt

        model.register_forward_pre_hook(fail_late)
        try:
            found = certify_early(model, sensors, folder=tmp_path, **options)
        except KeyboardInterrupt:
            assert stop < 1000
    for name in ("labels", "certified", "draws"):
        assert (getattr(found, name) == getattr(whole, name)).all()
    # Counts are the state: one file a round, draws that voted are not drawn again.
    spans = [Counts.load(path).spans for path in sorted(tmp_path.iterdir())]
    assert [span for ((span),) in spans] == list(itertools.pairwise((0, *whole.rounds)))[: len(spans)]
    again = SignNet()
    assert (certify_early(again, sensors, folder=tmp_path, **options).draws == whole.draws).all()
    assert again.calls == PROBING
    with pytest.raises(ValueError, match="same model and data"):
        certify_early(SignNet(0.5), sensors, folder=tmp_path, **options)
