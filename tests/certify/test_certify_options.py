"""Options are given by name: mistyped ones are answered with the nearest, others refused before anything is drawn."""

import numpy as np
import pytest
from certify_toys import KEEP, SignNet
from test_segment import TwoRegions, samples  # noqa: F401  (a fixture)

from crossguard.certify import (
    Counts,
    certify,
    certify_early,
    certify_lengths,
    certify_segmentation,
    certify_segmentation_early,
)
from crossguard.data import MultiModalSamples


class Untouched(SignNet):
    """A model that must not be asked."""

    def forward(self, inputs, kept=None):
        pytest.fail("the model was asked before its options were checked")


def sensors(count=3):
    rng = np.random.default_rng(0)
    values = {m: rng.normal(size=(count, n, 1)) for m, n in (("left", 6), ("right", 5))}
    return MultiModalSamples("toy", "test", values, np.zeros(count, int), ("no", "yes", "never"), np.arange(count))


@pytest.mark.parametrize(
    ("ask", "options", "message"),
    [
        (certify, {"drwas": 100}, "Unknown option 'drwas' of `certify`: did you mean 'draws'"),
        (certify, {"radii": {"left": 1}}, "Unknown option 'radii' of `certify`"),
        (certify_early, {"radii": {}, "bound": "gap"}, "Unknown option 'bound' of `certify_early`"),
        (certify_early, {"radii": {}, "design": "fixed"}, "Unknown option 'design'"),
        (certify, {"noise": {"left": 0.5}}, "got it in both"),
        (certify, {"keep": {"right": 2}, "noise": {"left": 0.0}}, "finite sigma > 0, but got 0.0"),
        (certify, {"keep": {"right": 2}, "noise": {"left": -1.0}}, "finite sigma > 0, but got -1.0"),
        (certify, {"keep": {"right": 2}, "noise": {"left": 1.0}, "design": "fixed"}, "draws that are random"),
        (certify, {"lengths": {"left": 7}}, r"`lengths\['left'\]` in 1..6"),
        (certify, {"lengths": {"lft": 3}}, "did you mean 'left'"),
        (certify, {"units": {"lft": "step"}}, "did you mean 'left'"),
        (certify_lengths, {"lengths": {"left": np.array([1, 2, 9])}}, r"in 1..6, the elements there are, but got 1..9"),
        (certify, {"design": "product", "draws": 5}, "or 18, all tuples of blocks, but got 5"),
    ],
)
def test_mistakes_are_told_before_anything_is_drawn(ask, options, message):
    with pytest.raises(ValueError, match=message):
        ask(Untouched(), sensors(), **({"keep": KEEP, "draws": 100, "seed": 0} | options))


def test_keep_is_asked_for():
    with pytest.raises(ValueError, match="Expected the option 'keep' of `certify`"):
        certify(Untouched(), sensors())


@pytest.mark.parametrize("ask", [certify_segmentation, certify_segmentation_early])
@pytest.mark.parametrize("option", [{"bound": "gap"}, {"lengths": {"image": 2}}, {"selection_draws": 5}])
def test_segmentations_take_no_options_of_labels(ask, option, samples):  # noqa: F811
    radii = {"radii": {}} if ask is certify_segmentation_early else {}
    with pytest.raises(ValueError, match=f"Unknown option '{next(iter(option))}' of `{ask.__name__}`"):
        ask(TwoRegions(), samples, keep={"image": 2, "depth": 1}, **radii, **option)


def test_units_are_told_wherever_radii_are(samples):  # noqa: F811
    found = certify(SignNet(), sensors(), keep=KEEP, draws=60, alpha=0.1, seed=0, units={"left": "step"})
    assert found.units == {"left": "step", "right": "element"}
    assert found.summary()["unit"] == found.rows()[0]["unit"] == found.units
    pixels = certify_segmentation(TwoRegions(), samples, keep={"image": 2, "depth": 1}, draws=80, alpha=0.1, seed=0)
    assert pixels.summary()["unit"] == {"image": "pixel", "depth": "pixel"}


def test_a_secret_seed_that_was_lost_is_told_and_counts_stay(tmp_path):
    """The seed lies in the counts; without the file a new one is drawn, and counts of two seeds do not add."""
    options = {"keep": KEEP, "draws": 60, "alpha": 0.1}
    first = certify(SignNet(), sensors(), folder=tmp_path / "one", **options)
    file = tmp_path / "one" / "votes.npz"
    kept = file.read_bytes()
    file.unlink()
    second = certify(SignNet(), sensors(), folder=tmp_path / "one", **options)
    assert second.counts.seed != first.counts.seed
    with pytest.raises(ValueError, match="same `seed`"):
        _ = first.counts + second.counts
    file.write_bytes(kept[: len(kept) // 2])
    with pytest.raises(ValueError, match="could not be read"):
        certify(SignNet(), sensors(), folder=tmp_path / "one", **options)
    assert file.read_bytes() == kept[: len(kept) // 2]
    file.write_bytes(kept)
    assert (Counts.load(file).votes == first.counts.votes).all()
    with pytest.raises(ValueError, match="same `seed`"):
        certify(SignNet(), sensors(), folder=tmp_path / "one", seed=1, **options)
    assert file.read_bytes() == kept
