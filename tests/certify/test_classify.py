"""Certificates of a classifier: true under every attack on small inputs, the same however they were drawn."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from certify_toys import ALONE, KEEP, PROBING, Interrupting, SignNet, attacked, smoothed

import crossguard
from crossguard.certify import Counts, certify


def run(model, samples, **options):
    return certify(
        model, samples, **({"keep": KEEP, "draws": 400, "alpha": 0.01, "batch_size": 777, "seed": 0} | options)
    )


def test_votes_estimate_the_exact_probabilities(sign_net, sensors):
    found = run(sign_net, sensors, draws=4000)
    for i in range(len(sensors)):
        exact = smoothed(sensors.modalities["left"][i, :, 0], sensors.modalities["right"][i, :, 0])
        assert found.counts.votes[i, 1] / 4000 == pytest.approx(exact, abs=5 * 0.5 / 4000**0.5)
    assert found.counts.votes[:, 2].sum() == 0


@pytest.mark.parametrize("bound", ["majority", "gap"])
def test_no_attack_within_certified_radii_changes_the_smoothed_label(sign_net, sensors, bound):
    found = run(sign_net, sensors, draws=3000, bound=bound)
    tried = 0
    for i in range(len(sensors)):
        left, right = (sensors.modalities[m][i, :, 0] for m in ("left", "right"))
        for r, s in found.frontier(i).tolist():
            for one, other in product(attacked(left, r), attacked(right, s)):
                yes = smoothed(one, other)
                assert (yes > 0.5) == (found.labels[i] == 1)
                tried += r + s > 0
    assert tried > 100


def test_results_do_not_depend_on_batches_or_interruptions(sign_net, sensors, tmp_path):
    whole = run(sign_net, sensors)
    for size in (7, 64, 100_000):
        assert (run(sign_net, sensors.head(2), batch_size=size).counts.votes == whole.counts.votes[:2]).all()
    # Interrupted after some calls: what was counted is kept, and the rest gives the same.
    interrupted = SignNet()
    with pytest.raises(KeyboardInterrupt):
        run(interrupted, sensors, folder=tmp_path, progress=Interrupting(3))
    kept = Counts.load(tmp_path / "votes.npz").draws
    assert 0 < kept < 400
    before = interrupted.calls
    assert (run(interrupted, sensors, folder=tmp_path).counts.votes == whole.counts.votes).all()
    assert interrupted.calls - before < PROBING + ALONE + 10
    # Nothing is drawn twice, and more draws go on where the others ended.
    before = interrupted.calls
    run(interrupted, sensors, folder=tmp_path)
    assert interrupted.calls == before + PROBING
    more = run(interrupted, sensors, folder=tmp_path, draws=600)
    assert (more.counts.votes == run(sign_net, sensors, draws=600).counts.votes).all()


def test_counts_of_something_else_are_refused(sign_net, sensors, tmp_path):
    run(sign_net, sensors, folder=tmp_path)
    for changes, message in (
        ({"seed": 1}, "same `seed`"),
        ({"keep": {"left": 2, "right": 2}}, "same `k`"),
        ({"draws": 100}, "at most 100 draws"),
        ({"fill": "mean"}, "same model and data"),
    ):
        with pytest.raises(ValueError, match=message):
            run(sign_net, sensors, folder=tmp_path, **changes)
    with pytest.raises(ValueError, match="same model and data"):
        run(SignNet(0.5), sensors, folder=tmp_path)
    with pytest.raises(ValueError, match="same model and data"):
        run(sign_net, sensors.head(5), folder=tmp_path)


def test_the_model_sees_nothing_of_ablated_elements(sign_net, sensors):
    seen = []

    class Peeking(SignNet):
        def forward(self, inputs, kept=None):
            seen.append(all(bool((inputs[m][~kept[m]] == 0).all()) for m in inputs))
            seen.append(all((kept[m].sum(dim=1) == KEEP[m]).all().item() for m in inputs))
            return super().forward(inputs, kept)

    run(Peeking(), sensors)
    assert seen
    assert all(seen)


def test_separate_selection_chooses_the_label(sign_net, sensors, tmp_path):
    found = run(sign_net, sensors, selection_draws=50, folder=tmp_path)
    assert found.selection.draws == 50
    assert (found.labels == found.selection.votes.argmax(axis=1)).all()
    assert (found.counts.votes == run(sign_net, sensors).counts.votes).all()
    assert found.certified({}).any()
    with pytest.raises(ValueError, match="needs none"):
        run(sign_net, sensors, selection_draws=50, bound="gap")


def test_mode_and_inputs_are_left_as_they_were(sign_net, sensors):
    sign_net.train()
    before = {m: values.copy() for m, values in sensors.modalities.items()}
    run(sign_net, sensors)
    assert sign_net.training
    for m, values in sensors.modalities.items():
        assert (values == before[m]).all()


@pytest.mark.parametrize(
    "stored",
    [
        lambda values: values.astype(np.float64),
        lambda values: values.astype(">f4"),
        lambda values: values.astype(np.int8),
        lambda values: values[::-1].copy()[::-1],
        lambda values: np.broadcast_to(values[None], (1, *values.shape))[0],
    ],
    ids=["double", "big-endian", "whole numbers", "negative strides", "read-only"],
)
def test_values_may_be_stored_in_any_way(sign_net, sensors, stored):
    other = replace(sensors, modalities={m: stored(values) for m, values in sensors.modalities.items()})
    assert (run(sign_net, other).counts.votes == run(sign_net, sensors).counts.votes).all()


def test_images_are_ablated_by_pixel(sensors):
    class Bright(torch.nn.Module):
        name, modalities, classes = "bright", ("image",), ("dark", "bright")

        def forward(self, inputs, kept=None):
            pixels = inputs["image"]
            assert pixels.shape[1:] == (3, 4, 5)
            mask = kept["image"].reshape(-1, 1, 4, 5)
            assert (pixels.masked_select(~mask) == 0).all()
            assert (mask.sum(dim=(1, 2, 3)) == 6).all()
            total = pixels.sum(dim=(1, 2, 3))
            return torch.stack([-total, total], dim=1)

    images = np.ones((2, 3, 4, 5), dtype=np.float32) * np.array([1, -1], dtype=np.float32)[:, None, None, None]
    samples = crossguard.MultiModalSamples(
        "toy", "test", {"image": images}, np.array([1, 0]), ("dark", "bright"), np.arange(2)
    )
    found = certify(Bright(), samples, keep={"image": 6}, draws=100)
    assert found.counts.n == {"image": 20}
    assert found.accuracy({"image": 1}) == 1.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keep": {"left": 1}}, "'right' is missing"),
        ({"keep": {"left": 1, "rihgt": 1}}, "did you mean 'right'"),
        ({"keep": {"left": 7, "right": 1}}, "<= 6"),
        ({"keep": {"left": 0, "right": 0}}, ">= 1 for some modality"),
        ({"keep": {"left": -1, "right": 1}}, ">= 0"),
        ({"draws": 7, "bound": "majority"}, r"7 can only abstain .* at least 8"),
        ({"draws": 0}, "draws"),
        ({"alpha": 0}, "alpha"),
        ({"kind": "edits"}, "did you mean 'edit'"),
        ({"kind": {"lift": "edit"}}, "did you mean 'left'"),
        ({"bound": "gaps"}, "did you mean 'gap'"),
        ({"batch_size": 0}, "batch_size"),
        ({"seed": -1}, "seed"),
    ],
)
def test_wrong_settings_are_refused_before_drawing(unchecked, sign_net, sensors, changes, message):
    with pytest.raises(ValueError, match=message):
        run(sign_net, sensors, **changes)
    assert sign_net.calls == 0


def test_wrong_classes_and_logits_are_refused(unchecked, sign_net, sensors):
    with pytest.raises(ValueError, match="model's classes"):
        run(sign_net, replace(sensors, classes=("no", "yes", "perhaps")))

    class Broken(SignNet):
        def forward(self, inputs, kept=None):
            return super().forward(inputs, kept) * float("nan")

    with pytest.raises(ValueError, match="NaN"):
        run(Broken(), sensors)
