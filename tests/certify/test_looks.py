"""Secret seeds, and looks at growing counts that are kept and paid for."""

from dataclasses import replace

import numpy as np
import pytest
from certify_toys import KEEP, PROBING, Interrupting, SignNet
from test_segment import TwoRegions, samples  # noqa: F401  (a fixture)

from crossguard.certify import Counts, certify, certify_segmentation
from crossguard.certify.bounds import lead_bounds
from crossguard.certify.looks import alpha_of_look


def run(model, sensors, **options):
    return certify(model, sensors, **({"keep": KEEP, "draws": 100, "alpha": 0.01} | options))


def test_a_seed_is_secret_unless_it_is_given(sign_net, sensors, tmp_path):
    one, other = run(sign_net, sensors), run(sign_net, sensors)
    assert one.counts.secret
    assert one.counts.seed != other.counts.seed
    assert (one.counts.votes != other.counts.votes).any()
    assert one.summary()["seed"] is None
    assert {row["seed"] for row in one.rows()} == {None}
    assert str(one.counts.seed) not in str(one.summary())
    given = run(sign_net, sensors, seed=7)
    assert not given.counts.secret
    assert given.summary()["seed"] == 7
    # A secret is kept with the counts, and taken up by whoever goes on.
    kept = run(sign_net, sensors, folder=tmp_path, selection_draws=20)
    again = SignNet()
    assert (run(again, sensors, folder=tmp_path, selection_draws=20).counts.votes == kept.counts.votes).all()
    assert again.calls == PROBING
    with pytest.raises(ValueError, match="same `seed`"):
        run(sign_net, sensors, folder=tmp_path, seed=7)
    (tmp_path / "votes.npz").unlink()  # the selection still has it
    assert (run(again, sensors, folder=tmp_path, selection_draws=20).counts.votes == kept.counts.votes).all()


def test_draws_depend_on_the_input_and_not_on_its_place(sign_net, sensors):
    found = run(sign_net, sensors, seed=0)
    turned = run(sign_net, sensors.select(range(11, -1, -1)), seed=0)
    assert (turned.counts.votes[::-1] == found.counts.votes).all()
    seen, drawn = [], []

    class Watching(SignNet):
        def forward(self, inputs, kept=None):
            seen.append(kept["left"].clone())
            return super().forward(inputs, kept)

    changed = {m: values.copy() for m, values in sensors.modalities.items()}
    changed["right"][0, 0] += 1e-3  # another modality, a little
    for given in (sensors.head(1), replace(sensors, modalities=changed).head(1)):
        run(Watching(), given, seed=0, draws=50, batch_size=50)
        drawn.append(seen[-1])
    assert (drawn[0] != drawn[1]).any()


def test_images_share_a_secret_and_go_on_with_it(samples, tmp_path):  # noqa: F811
    options = {"keep": {"image": 2, "depth": 1}, "draws": 60, "alpha": 0.01}
    found = certify_segmentation(TwoRegions(), samples, folder=tmp_path, **options)
    assert len({counts.seed for counts in found.counts}) == 1
    assert found.summary()["seed"] is None
    (tmp_path / "image-00001.npz").unlink()
    again = certify_segmentation(TwoRegions(), samples, folder=tmp_path, **options)
    for one, other in zip(found.counts, again.counts, strict=True):
        assert (one.votes == other.votes).all()
    more = certify_segmentation(TwoRegions(), samples, folder=tmp_path, **(options | {"draws": 80}))
    assert {counts.looks for counts in more.counts} == {(60, 80)}
    assert more.level(0) == pytest.approx(0.0005)


def test_looks_are_kept_and_add_up_to_alpha(sign_net, sensors, tmp_path):
    first = run(sign_net, sensors, folder=tmp_path)
    assert first.level == pytest.approx(0.009)
    assert run(sign_net, sensors, folder=tmp_path).level == first.level  # the same look
    assert run(sign_net, sensors).level == 0.01  # nothing is kept, nothing can grow
    second = run(sign_net, sensors, folder=tmp_path, draws=200)
    assert second.counts.looks == (100, 200)
    assert second.level == pytest.approx(0.0005)
    assert second.summary()["level"] == second.level
    assert (second.gaps == lead_bounds(second.counts.votes, second.votes, 200, second.level)).all()
    assert Counts.load(tmp_path / "votes.npz").looks == (100, 200)
    looks = tuple(range(1, 2000))
    spent = np.cumsum([alpha_of_look(0.05, looks, look) for look in looks])
    assert spent[-1] <= 0.05
    assert spent[-1] == pytest.approx(0.05, rel=1e-3)


def test_an_interrupted_call_is_no_look(sensors, tmp_path):
    model = SignNet()
    with pytest.raises(KeyboardInterrupt):
        run(model, sensors, folder=tmp_path, batch_size=100, progress=Interrupting(5))
    assert Counts.load(tmp_path / "votes.npz").looks == ()
    found = run(model, sensors, folder=tmp_path, batch_size=100)
    whole = run(SignNet(), sensors, seed=found.counts.seed)
    assert (found.counts.votes == whole.counts.votes).all()
    assert found.level == pytest.approx(0.009)


@pytest.mark.parametrize("threshold", [0.5, 0.7])
def test_the_error_over_nine_looks_is_at_most_alpha(threshold):
    rng, alpha, inputs = np.random.default_rng(0), 0.05, 20_000
    ends = [50, 100, 150, 200, 300, 400, 600, 800, 1000]
    votes, wrong = np.zeros((inputs, 2), dtype=np.int64), np.zeros(inputs, dtype=bool)
    unpaid = wrong.copy()
    for end in ends:  # p_A lies on the threshold, so that every certificate is wrong
        votes += rng.multinomial(end - votes[0].sum(), [threshold, 1 - threshold], size=inputs)
        top = votes.max(axis=1)
        wrong |= lead_bounds(votes, top, end, alpha_of_look(alpha, tuple(ends), end)) >= 2 * threshold - 1
        unpaid |= lead_bounds(votes, top, end, alpha) >= 2 * threshold - 1
    assert 0 < wrong.mean() <= alpha
    assert unpaid.mean() > alpha
