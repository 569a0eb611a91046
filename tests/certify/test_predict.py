"""Answers of the smoothed model: those of the saved design for certain, those of fresh draws where a test is sure."""

import json
from itertools import product

import numpy as np
import pytest
from certify_toys import KEEP, SignNet
from scipy.stats import binomtest
from test_segment import TwoRegions, samples  # noqa: F401  (a fixture)

import crossguard as cg
from crossguard.certify import certify, certify_segmentation
from crossguard.certify.answers import sure
from crossguard.certify.saved_design import SavedDesign
from crossguard.data import MultiModalSamples
from crossguard.models import WatchNet


@pytest.fixture
def watch():
    rng = np.random.default_rng(0)
    labels = np.arange(12) % 2
    values = {
        m: (rng.normal(size=(12, 16, 3)) + 2 * labels[:, None, None]).astype(np.float32)
        for m in ("accelerometer", "gyroscope")
    }
    data = MultiModalSamples("toy", "test", values, labels, ("walk", "run"), np.arange(12))
    return WatchNet.for_samples(data, width=8).eval(), data


@pytest.mark.parametrize("kind", ["fixed", "product"])
def test_a_folder_with_a_design_answers_as_it_was_certified(watch, tmp_path, kind):
    model, data = watch
    found = certify(model, data, keep={"accelerometer": 3, "gyroscope": 2}, design=kind, seed=5)
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="Expected `keep`"):
        cg.predict(tmp_path / "model", data)
    found.save_design(tmp_path / "model")
    labels = cg.predict(tmp_path / "model", data)
    assert labels.dtype == np.int64
    assert (labels == found.labels).all()
    assert (cg.predict(tmp_path / "model", data.select([7])) == found.labels[7]).all()
    for changes in ({"keep": {"accelerometer": 3}}, {"draws": 5}, {"alpha": 0.1}, {"seed": 0}, {"scheme": "joint"}):
        with pytest.raises(ValueError, match=f"no `{next(iter(changes))}` beside a saved design"):
            cg.predict(tmp_path / "model", data, **changes)
    longer = {m: np.repeat(values, 2, axis=1) for m, values in data.modalities.items()}
    other = MultiModalSamples("toy", "test", longer, data.labels, data.classes, data.groups)
    with pytest.raises(ValueError, match="as many elements as the saved design's"):
        cg.predict(tmp_path / "model", other)
    model.save_pretrained(tmp_path / "model")  # another model takes the folder: the design goes with the old one
    assert not (tmp_path / "model" / "design.json").exists()
    (tmp_path / "model" / "design.json").write_text("{}")
    with pytest.raises(ValueError, match="could not be read"):
        cg.predict(tmp_path / "model", data)


def test_a_saved_design_keeps_the_precision_that_was_certified(watch, tmp_path):
    model, data = watch
    model.save_pretrained(tmp_path / "model")
    keep = dict.fromkeys(model.modalities, 3)
    certify(model, data, keep=keep, draws=100, precision="bfloat16").save_design(tmp_path / "model")
    saved = SavedDesign.load(tmp_path / "model")
    assert (saved.precision, saved.options().precision) == ("bfloat16", "bfloat16")


def test_settings_of_random_draws_are_kept_without_their_seed(watch, tmp_path):
    model, data = watch
    keep = dict.fromkeys(model.modalities, 3)
    found = certify(model, data, keep=keep, draws=100, seed=77)
    with pytest.raises(ValueError, match="Expected the folder of a model"):
        found.save_design(tmp_path / "nothing")
    model.save_pretrained(tmp_path / "model")
    found.save_design(tmp_path / "model")
    assert "77" not in (tmp_path / "model" / "design.json").read_text()
    drawn = cg.predict(tmp_path / "model", data, seed=5)
    assert (drawn == cg.predict(model, data, keep=keep, draws=100, seed=5)).all()
    assert (cg.predict(tmp_path / "model", data, draws=3) == -1).all()
    for changes in ({"keep": keep}, {"noise": {"gyroscope": 1.0}}, {"fill": 0.5}):
        with pytest.raises(ValueError, match=f"no `{next(iter(changes))}` beside a saved design"):
            cg.predict(tmp_path / "model", data, **changes)
    noisy = certify(model, data, keep={"accelerometer": 3}, noise={"gyroscope": 0.5}, draws=100)
    noisy.save_design(tmp_path / "model")
    assert (
        cg.predict(tmp_path / "model", data, seed=1)
        == cg.predict(model, data, keep={"accelerometer": 3}, noise={"gyroscope": 0.5}, draws=100, seed=1)
    ).all()


def test_it_answers_where_it_is_sure(sign_net, sensors):
    found = certify(sign_net, sensors, keep=KEEP, draws=400, alpha=0.01, seed=3)
    answers = cg.predict(sign_net, sensors, keep=KEEP, draws=400, alpha=0.01, seed=3)
    assert set(answers[answers >= 0].tolist()) <= {0, 1}
    said = answers >= 0
    assert said.any()
    assert (answers[said] == found.labels[said]).all()
    two = np.sort(found.counts.votes, axis=1)[:, -2:]
    for i, (second, top) in enumerate(two.tolist()):
        assert said[i] == (binomtest(top, top + second).pvalue <= 0.01)
    assert (cg.predict(sign_net, sensors, keep=KEEP, draws=3) == -1).all()  # three votes are never sure
    seen = []

    class Watching(SignNet):
        def forward(self, inputs, kept=None):
            seen.append(kept["left"].clone())
            return super().forward(inputs, kept)

    for _ in range(2):  # drawn anew every time
        cg.predict(Watching(), sensors, keep=KEEP, draws=30, batch_size=360)
    assert (seen[0] != seen[1]).any()


def test_wrong_answers_are_as_rare_as_promised():
    rng, alpha = np.random.default_rng(0), 0.05
    for chances in ([0.48, 0.52], [0.34, 0.33, 0.33], [0.5, 0.5]):
        votes = np.sort(rng.multinomial(200, chances, size=40_000) * 100 + np.arange(len(chances)), axis=1)
        label, top, second = votes[:, -1] % 100, votes[:, -1] // 100, votes[:, -2] // 100
        wrong = sure(top, second, alpha) & (label != int(np.argmax(chances)))
        assert wrong.mean() <= alpha + 4 * np.sqrt(alpha / 40_000)


def test_pixels_abstain_too(samples):  # noqa: F811
    keep = {"image": 2, "depth": 1}
    answers = cg.predict(TwoRegions(), samples, keep=keep, draws=100, alpha=0.01, seed=0)
    assert answers.shape == samples.labels.shape
    found = certify_segmentation(TwoRegions(), samples, keep=keep, draws=100, alpha=0.01, seed=0)
    for i, y, x in product(range(5), range(2), range(3)):
        first, second = np.sort(found.counts[i].votes[y, x])[::-1][:2]
        expected = found.image(i, [{}]).label[y, x] if binomtest(first, first + second).pvalue <= 0.01 / 6 else -1
        assert answers[i, y, x] == expected


def test_what_certify_refuses_is_refused(unchecked, sign_net, sensors):
    for changes, message in (
        ({"keep": {"left": 1}}, "'right' is missing"),
        ({"alpha": 0}, "alpha"),
        ({"draws": 0}, "draws"),
        ({"scheme": "fixed"}, "scheme"),
    ):
        with pytest.raises(ValueError, match=message):
            cg.predict(sign_net, sensors, **({"keep": KEEP} | changes))
    assert sign_net.calls == 0


def test_a_folder_answers_only_with_the_model_that_was_certified(watch, tmp_path):
    model, data = watch
    found = certify(model, data, keep=dict.fromkeys(model.modalities, 3), design="product")
    other = WatchNet.for_samples(data, width=8, seed=1).eval()
    place = tmp_path / "model"
    other.save_pretrained(place)
    with pytest.raises(ValueError, match="of the model that was certified, 'watch-net', but .* holds another one"):
        found.save_design(place)
    model.save_pretrained(place)
    found.save_design(place)
    moved = place.rename(tmp_path / "moved")
    (moved / "crossguard.json").write_text('{"name": "renamed"}')
    (moved / "README.md").write_text("about it")
    assert (cg.predict(moved, data) == found.labels).all()
    other.save_pretrained(tmp_path / "other")
    certified = {name: (moved / name).read_bytes() for name in ("model.safetensors", "config.json", "design.json")}
    for name, changed in (
        ("model.safetensors", (tmp_path / "other" / "model.safetensors").read_bytes()),
        ("config.json", certified["config.json"] + b" "),
        ("pytorch_model.bin", b"other weights"),
    ):
        (moved / name).write_bytes(changed)
        with pytest.raises(ValueError, match=rf"saved with, but {name} is not what it was"):
            cg.predict(moved, data)
        (moved / name).write_bytes(certified[name]) if name in certified else (moved / name).unlink()
    held = json.loads(certified["design.json"])
    for key, value in (("k", dict.fromkeys(held["k"], 4)), ("seed", 1), ("draws", 7), ("fill", 0.5)):
        (moved / "design.json").write_text(json.dumps(held | {key: value}))
        with pytest.raises(ValueError, match="changed after it was saved"):
            cg.predict(moved, data)


def test_inserted_elements_are_answered_where_places_are_withheld(watch, tmp_path):
    _, data = watch
    model = WatchNet.for_samples(data, width=8, position_free=("gyroscope",)).eval()
    keep = {"accelerometer": 6, "gyroscope": 2}
    found = certify(model, data, keep=keep, draws=400, kind={"gyroscope": "edit"})
    model.save_pretrained(tmp_path / "model")
    found.save_design(tmp_path / "model")

    def longer(modality):
        values = {m: np.repeat(v, 2, axis=1)[:, :17] if m == modality else v for m, v in data.modalities.items()}
        return MultiModalSamples("toy", "test", values, data.labels, data.classes, data.groups)

    asked = longer("gyroscope")
    assert (
        cg.predict(tmp_path / "model", asked, seed=1) == cg.predict(model, asked, keep=keep, draws=400, seed=1)
    ).all()
    with pytest.raises(ValueError, match="as many elements as the saved design's"):
        cg.predict(tmp_path / "model", longer("accelerometer"))
