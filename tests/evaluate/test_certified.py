"""Certified figures over groups: against counting sample by sample, for classifiers and for segmenters."""

import numpy as np
import pytest

import crossguard as cg
from crossguard.certify import certify_segmentation
from crossguard.evaluate import Ratio, certified_figures
from crossguard.evaluate.certified import certified_ratios, differences_along, smoothed_figures
from crossguard.evaluate.labels import label_accuracy, label_ratio
from crossguard.models import RoadNet, WatchNet


def sensors(people=10, windows=4):
    rng = np.random.default_rng(0)
    labels = np.arange(people * windows) % 2
    values = {
        m: (rng.normal(size=(len(labels), 12, 2)) + labels[:, None, None]).astype(np.float32) for m in ("left", "right")
    }
    labels[3] = -1
    return cg.MultiModalSamples("toy", "test", values, labels, ("rest", "move"), np.arange(len(labels)) // windows)


def roads(images=9):
    rng = np.random.default_rng(1)
    masks = (rng.random((images, 8, 8)) < 0.4).astype(np.int64)
    masks[:, 0] = -1
    rgb = rng.random((images, 3, 8, 8)).astype(np.float32) * 0.5 + 0.5 * (masks[:, None] == 1)
    depth = rng.random((images, 1, 8, 8)).astype(np.float32)
    return cg.MultiModalSamples("toy", "test", {"rgb": rgb, "depth": depth}, masks, ("no", "road"), np.arange(images))


def test_a_classifiers_figures_count_right_and_certified_samples_by_person():
    samples = sensors()
    model = WatchNet.for_samples(samples)
    found = cg.certify(model, samples, keep={"left": 3, "right": 3}, draws=60, alpha=0.05, seed=0)
    vectors = [{}, {"left": 1}, {"left": 1, "right": 1}]
    figures = certified_figures(found, vectors)["accuracy"]
    judged = samples.labels >= 0
    for vector, figure in zip(vectors, figures, strict=True):
        hits = found.certified(vector) & (found.labels == samples.labels)
        assert figure.value == pytest.approx(100 * found.accuracy(vector))
        assert figure.interval == cg.evaluate.clustered_interval(hits[judged], samples.groups[judged])
        assert (figure.n, figure.groups) == (39, 10)
    smoothed = smoothed_figures(found)
    assert smoothed["clean"].value == pytest.approx(100 * found.clean_accuracy)
    assert smoothed["abstention"].value == pytest.approx(100 * found.abstention)
    whole = label_ratio(model.eval(), samples)
    assert whole.value == pytest.approx(100 * label_accuracy(model.eval(), samples))


def test_a_segmenters_figures_are_ratios_of_pixels_over_scenes():
    samples = roads()
    model = RoadNet.for_samples(samples)
    found = certify_segmentation(model, samples, keep={"rgb": 30, "depth": 30}, draws=40, alpha=0.05, seed=0)
    vectors = [{}, {"rgb": 1, "depth": 1}]
    figures = certified_figures(found, vectors, correction="bonferroni")
    bounds = found.bounds(vectors, correction="bonferroni")
    for metric, along in figures.items():
        for figure, bound in zip(along, bounds, strict=True):
            value = getattr(bound, metric)
            if figure is None:
                assert np.isnan(value) or value == 0
                continue
            assert figure.value == pytest.approx(100 * value)
            assert figure.groups <= 9
    accuracy = certified_ratios(found, vectors, correction="bonferroni")[1]["accuracy"]
    assert accuracy.whole.tolist() == [56.0] * 9
    assert isinstance(accuracy, Ratio)
    more = differences_along(*(certified_ratios(found, [vector]) for vector in vectors))
    assert more["accuracy"][0].value == pytest.approx(100 * (bounds[0].accuracy - bounds[1].accuracy), abs=20)


def test_two_people_give_values_and_no_interval():
    samples = sensors(people=2, windows=8)
    found = cg.certify(
        WatchNet.for_samples(samples), samples, keep={"left": 3, "right": 3}, draws=60, alpha=0.05, seed=0
    )
    (figure,) = certified_figures(found, [{}])["accuracy"]
    assert figure.interval is None
    assert set(figure.by_group) == {"0", "1"}
    assert figure.why == "there are 2 groups, fewer than 8"
