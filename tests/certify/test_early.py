"""Early stopping: the error stays below alpha whatever is looked at, and draws are saved."""

import itertools

import numpy as np
import pytest
from certify_toys import ALONE, KEEP, PROBING, Interrupting, SignNet

from crossguard.certify import Counts, certify, certify_early, draws_to_reach
from crossguard.certify.bounds import log_p_values
from crossguard.certify.early import decide_in_rounds
from crossguard.certify.spending import crossing, doubling_rounds, plan_rounds


def votes_of(chances, rng):
    """Votes of samples whose labels have the given probabilities."""
    return lambda ids, start, stop: rng.multinomial(stop - start, chances[ids])


@pytest.mark.parametrize("threshold", [0.5, 0.6, 0.8])
def test_error_under_the_null_is_at_most_alpha(threshold):
    samples, alpha = 40_000, 0.05
    chances = np.tile([threshold, 1 - threshold, 0.0], (samples, 1))  # on the threshold: every certificate is wrong
    rounds = plan_rounds(threshold, 400, alpha)
    assert len(rounds.draws) > 8
    found = decide_in_rounds(
        votes_of(chances, np.random.default_rng(0)), (samples, 3), threshold=threshold, alpha=alpha, rounds=rounds
    )
    error = found.certified.mean()
    assert 0.5 * alpha < error <= alpha + 4 * np.sqrt(alpha / samples)


def test_error_of_other_shares_of_labels_is_at_most_alpha():
    samples, alpha = 20_000, 0.05
    for chances in ([0.5, 0.5, 0.0], [0.34, 0.33, 0.33], [0.55, 0.45, 0.0], [0.5, 0.25, 0.25]):
        rounds = plan_rounds(0.55, 200, alpha)
        table = np.tile(chances, (samples, 1))
        found = decide_in_rounds(
            votes_of(table, np.random.default_rng(1)), (samples, 3), threshold=0.55, alpha=alpha, rounds=rounds
        )
        assert found.certified.mean() <= alpha + 4 * np.sqrt(alpha / samples)


@pytest.mark.parametrize("threshold", [0.5, 0.6, 0.75, 0.95])
@pytest.mark.parametrize("draws", [200, 400, 1000])
def test_it_uses_most_of_what_one_look_at_all_draws_would(threshold, draws):
    counts, alpha = np.arange(draws + 1), 0.001
    passing = (log_p_values(counts, draws, threshold) <= np.log(alpha)) & (2 * counts > draws)
    if not passing.any():
        with pytest.raises(ValueError, match="can only abstain: draw at least"):
            plan_rounds(threshold, draws, alpha)
        return
    single = int(np.argmax(passing))
    rounds = plan_rounds(threshold, draws, alpha)
    used = crossing(rounds.draws, rounds.votes, threshold)
    assert 0.8 * crossing((draws,), (single,), threshold) <= used <= alpha
    assert rounds.votes[-1] <= single + 1
    assert (np.array(rounds.votes) * 2 > np.array(rounds.draws)).all()


def test_the_chance_of_a_crossing_is_that_of_all_paths():
    looks, votes, chance = (3, 5, 8), (3, 5, 7), 0.7
    total = 0.0
    for path in itertools.product((0, 1), repeat=8):
        if any(sum(path[:n]) >= c for n, c in zip(looks, votes, strict=True)):
            total += chance ** sum(path) * (1 - chance) ** (8 - sum(path))
    assert crossing(looks, votes, chance) == pytest.approx(total)


def test_clear_cases_are_decided_with_few_draws():
    rng = np.random.default_rng(0)
    chances = np.array([[1.0, 0.0]] * 500 + [[0.0, 1.0]] * 500 + [[0.4, 0.6]] * 500)
    rounds = plan_rounds(0.75, 1000, 0.001)
    found = decide_in_rounds(votes_of(chances, rng), (1500, 2), threshold=0.75, alpha=0.001, rounds=rounds)
    assert found.certified[:1000].all()
    assert not found.certified[1000:].any()
    assert (found.labels[:500] == 0).all()
    assert (found.labels[500:1000] == 1).all()
    assert found.saved > 2 / 3
    assert found.saved == pytest.approx(1 - found.draws.mean() / 1000)


def test_power_is_close_to_that_of_all_draws():
    chances = np.tile([0.85, 0.15], (2000, 1))
    rounds = plan_rounds(0.75, 1000, 0.001)
    found = decide_in_rounds(
        votes_of(chances, np.random.default_rng(0)), (2000, 2), threshold=0.75, alpha=0.001, rounds=rounds
    )
    assert found.certified.mean() > 0.97


def test_rounds_are_fixed_before_and_end_with_all_draws():
    rounds = plan_rounds(0.75, 1000, 0.001)
    assert rounds.draws[-1] == 1000
    assert list(rounds.draws) == sorted(set(rounds.draws))
    needed = draws_to_reach(0.5, 0.001)
    assert plan_rounds(0.75, needed, 0.001).draws == (needed,)
    with pytest.raises(ValueError, match=f"draw at least {needed}"):
        plan_rounds(0.75, needed - 1, 0.001)
    sizes, shares = doubling_rounds(0.5, 1000, 0.001)
    assert sizes[-1] == 1000
    assert shares[-1] == pytest.approx(0.8)
    assert sum(shares) == pytest.approx(1.0)
    assert doubling_rounds(0.5, needed, 0.001) == ((needed,), (1.0,))
    with pytest.raises(ValueError, match=f"draw at least {needed}"):
        doubling_rounds(0.5, needed - 1, 0.001)


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
    for stop in (3, 6, 10**6):
        try:
            found = certify_early(SignNet(), sensors, folder=tmp_path, progress=Interrupting(stop), **options)
        except KeyboardInterrupt:
            assert stop < 10**6
    for name in ("labels", "certified", "draws"):
        assert (getattr(found, name) == getattr(whole, name)).all()
    # Counts are the state: one file a round, draws that voted are not drawn again.
    spans = [Counts.load(path).spans for path in sorted(tmp_path.iterdir())]
    assert [span for ((span),) in spans] == list(itertools.pairwise((0, *whole.rounds)))[: len(spans)]
    again = SignNet()
    assert (certify_early(again, sensors, folder=tmp_path, **options).draws == whole.draws).all()
    assert again.calls == PROBING + ALONE
    with pytest.raises(ValueError, match="same model and data"):
        certify_early(SignNet(0.5), sensors, folder=tmp_path, **options)
