"""How values show themselves: one line, HTML, a DataFrame, SVG files."""

import sys
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from report_helpers import Page, Signs

from crossguard.certify import Certificate
from crossguard.certify.counts import Counts
from crossguard.data import LabelledImages, MultiModalSamples
from crossguard.evaluate import evaluate
from crossguard.threat import LInf, ThreatModel, WordEdits

EPS = (4 / 255, 8 / 255)


@pytest.fixture(scope="module")
def result(toy_pairs):
    from shared import make_clip

    threats = [ThreatModel(image=LInf(eps), text=WordEdits(1)) for eps in EPS]
    return evaluate(make_clip(), toy_pairs, attack=Signs(), threat=threats, modalities=True, label="<b>mine</b>")


@pytest.fixture
def certificate():
    samples = MultiModalSamples(
        "made", "test", {"a": np.zeros((3, 20, 1), np.float32)}, np.array([0, 1, 1]), ("x", "y"), np.arange(3)
    )
    counts = Counts(
        votes=np.array([[1000, 0], [20, 980], [500, 500]]),
        spans=((0, 1000),),
        seed=0,
        n={"a": 20},
        k={"a": 2},
        source="m",
    )
    return Certificate(
        model="net",
        samples=samples,
        counts=counts,
        selection=None,
        alpha=0.001,
        kinds={"a": "substitution"},
        bound="majority",
        seconds=1.0,
    )


def test_everything_has_a_repr_of_one_line(result, certificate, toy_pairs):
    images = LabelledImages("pets", "test", toy_pairs.images, np.zeros(len(toy_pairs.images), int), ("cat",))
    for value in (result, result.outcomes[0], certificate, certificate.samples, toy_pairs, images):
        said = repr(value)
        assert "\n" not in said
        assert 20 < len(said) < 400, said
        assert said.startswith(type(value).__name__ + "(")
    assert "24 images" in repr(toy_pairs)
    assert "5 outcomes under signs" in repr(result)
    assert "N = 1,000, alpha = 0.001; kept: a 2 of 20" in repr(certificate)


def test_notebooks_show_tables_that_are_well_formed_and_escaped(result, certificate, toy_pairs):
    for value in (result, result.outcomes[0], certificate, certificate.samples, toy_pairs):
        page = Page(value._repr_html_())
        assert page.count("script") == 0
        assert all(load.startswith("data:") for load in page.loads)
    shown = Page(result._repr_html_())
    assert "<b>mine</b>" in shown.words
    assert {"L-inf 4/255", "L-inf 8/255", "joint", "TR@1"} <= set(shown.words)
    assert f"{result.clean['tr@1']:.1f}" in shown.words
    assert Page(toy_pairs._repr_html_()).count("img") == 8
    assert f"{100 * certificate.accuracy({'a': 1}):.1f}" in Page(certificate._repr_html_()).words


def test_a_frame_holds_every_figure_once(result):
    frame = result.to_frame()
    assert isinstance(frame, pd.DataFrame)
    assert len(frame) == len(result.figures)
    clean = frame[frame.part == "clean"]
    assert clean.image.isna().all()
    assert not clean.duplicated(["what", "metric"]).any()
    robust = frame[(frame.what == "robust") & (frame.metric == "ir@1")]
    assert sorted(zip(robust.part, robust.image.fillna(""), strict=True)) == [
        ("image", "L-inf 4/255"),
        ("image", "L-inf 8/255"),
        ("joint", "L-inf 4/255"),
        ("joint", "L-inf 8/255"),
        ("text", ""),
    ]
    joint = result.of("joint", threat=ThreatModel(image=LInf(EPS[1]), text=WordEdits(1)))
    assert robust[(robust.part == "joint") & (robust.image == "L-inf 8/255")].value.item() == joint.robust["ir@1"]


def test_without_pandas_the_command_is_told(result, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="Expected pandas for a DataFrame, but it is not installed: "):
        result.to_frame()


def test_plots_are_svg_files(result, tmp_path):
    plots = result.plots()
    assert [plot.title for plot in plots] == ["TR@1 against the image budget", "IR@1 against the image budget"]
    path = plots[0].save(tmp_path / "plot.svg")
    root = ElementTree.parse(path).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "image: L-inf in 1/255" in "".join(root.itertext())
    assert plots[0]._repr_svg_() == path.read_text()
    (alone,) = result.of("joint", threat=ThreatModel(image=LInf(EPS[0]), text=WordEdits(1))).plots()
    assert "TR@1" in "".join(ElementTree.fromstring(alone.text).itertext())
