"""The pre-flight is shown before anything is drawn, with the time it will take."""

import time
from contextlib import contextmanager

import pytest
import torch
from certify_toys import ALONE, KEEP, PROBING, SignNet
from test_segment import TwoRegions, samples  # noqa: F401  (a fixture)

from crossguard.certify import certify, certify_early, certify_segmentation
from crossguard.certify.rehearsal import PASSES, WORTH
from crossguard.progress import Silent


class Listening:
    """A reporter that keeps what it is told."""

    def __init__(self):
        self.tasks = []

    @contextmanager
    def task(self, title, *, total, done=0):
        self.tasks.append([title, total, done, ""])
        row = self.tasks[-1]

        class Task:
            def advance(self, steps=1, *, note=""):
                row[2] += steps
                row[3] = note or row[3]

        yield Task()


class Slow(SignNet):
    def forward(self, inputs, kept=None):
        time.sleep(0.004)
        return super().forward(inputs, kept)


def expected_seconds(note):
    """What the note says after "about"."""
    return float(note.split("about ")[1].removesuffix(" s"))


def test_the_expected_time_is_close_to_what_it_takes(sensors):
    heard = Listening()
    found = certify(Slow(), sensors, keep=KEEP, draws=1200, alpha=0.01, batch_size=48, progress=heard)
    (first, total, done, note), (second, drawn, counted, _) = heard.tasks
    assert (first, second) == ("pre-flight", "certify")
    assert total == done == PASSES
    assert drawn == counted == 12 * 1200
    assert "1200 draws, alpha 0.01: at least" in note
    assert "radius" in note
    slept = 300 * 0.004  # 300 batches; a machine that is busy with other work may take longer at any time
    assert 0.4 * slept < expected_seconds(note) < 3 * found.seconds + 2


@pytest.mark.parametrize(("draws", "extra"), [(WORTH, 0), (WORTH + 1, PASSES)])
def test_only_what_takes_a_while_is_timed(sensors, draws, extra):
    model, heard = SignNet(), Listening()
    certify(model, sensors, keep=KEEP, draws=draws, alpha=0.01, batch_size=12, progress=heard)
    assert model.calls == ALONE + draws + extra
    assert ("about" in heard.tasks[0][3]) == bool(extra)


class OverTheBatch(SignNet):
    """Compares each sub-sample with the others of its batch."""

    def forward(self, inputs, kept=None):
        logits = super().forward(inputs, kept)
        return logits - logits.mean(dim=0)


class AtRandom(SignNet):
    """Adds noise of its own."""

    def forward(self, inputs, kept=None):
        logits = super().forward(inputs, kept)
        return logits + 99 * torch.randn(logits.shape)


@pytest.mark.parametrize(
    "options", [{"draws": 100}, {"design": "fixed", "draws": 30}, {"radii": {"left": 1}, "draws": 2000}]
)
def test_a_model_whose_answers_hang_together_is_refused(sensors, options):
    ask = certify_early if "radii" in options else certify
    with pytest.raises(ValueError, match="answers to every sub-sample by itself, but 'sign-net'"):
        ask(OverTheBatch(), sensors, keep=KEEP, alpha=0.01, seed=0, **options)


def test_a_model_that_draws_at_random_has_no_published_design(sensors):
    with pytest.raises(ValueError, match="answers are always the same, for a published design"):
        certify(AtRandom(), sensors, keep=KEEP, design="product")
    certify(AtRandom(), sensors, keep=KEEP, draws=100, alpha=0.01)  # its own chance is one more of the draws'


def test_nobody_looks_nothing_is_timed(sensors):
    for progress in (None, Silent()):
        model = SignNet()
        certify(model, sensors, keep=KEEP, draws=100, alpha=0.01, batch_size=12, progress=progress)
        assert model.calls == ALONE + 100


def test_what_is_counted_already_is_not_expected_again(sensors, tmp_path):
    options = {"keep": KEEP, "alpha": 0.01, "batch_size": 12, "folder": tmp_path}
    certify(SignNet(), sensors, draws=100, **options)
    model, heard = SignNet(), Listening()
    certify(model, sensors, draws=100, progress=heard, **options)
    assert model.calls == PROBING
    assert heard.tasks[1][:3] == ["certify", 1200, 1200]


def test_segmentations_tell_it_too(samples):  # noqa: F811
    heard = Listening()
    certify_segmentation(TwoRegions(), samples, keep={"image": 2, "depth": 1}, draws=200, alpha=0.01, progress=heard)
    assert [row[0] for row in heard.tasks] == ["pre-flight", "certify"]
    assert "about" in heard.tasks[0][3]
    assert heard.tasks[1][1:3] == [1000, 1000]
