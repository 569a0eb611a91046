"""The precision of the base model is a part of it: in its votes, its fingerprint, its counts and its saved design."""

import pytest
import torch
from certify_toys import KEEP

from crossguard.certify import certify, certify_early, predict
from crossguard.certify.smoothed import Smoothed

OPTIONS = {"keep": KEEP, "draws": 200, "alpha": 0.01, "seed": 0}


class Near(torch.nn.Module):
    """Answers 1 if a product is above 1, which bfloat16 cannot tell from 1: there it answers 0."""

    name, modalities, classes = "near", ("left", "right"), ("no", "yes", "never")

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1, 1))

    def forward(self, inputs, kept=None):
        ones = torch.full((len(inputs["left"]), 1), 1.001)
        score = (ones @ self.weight)[:, 0] - 1.0005
        return torch.stack([-score, score, torch.full_like(score, -99.0)], dim=1)


def test_votes_are_those_of_the_model_in_its_precision(sensors):
    high, low = (certify(Near(), sensors, precision=p, **OPTIONS) for p in ("float32", "bfloat16"))
    assert high.counts.votes[:, 1].tolist() == [200] * 12
    assert low.counts.votes[:, 0].tolist() == [200] * 12
    assert "precision" not in high.settings
    assert low.settings["precision"] == "bfloat16"
    assert low.ablation.endswith("the model in bfloat16")
    early = certify_early(
        Near(), sensors, radii={"left": 0}, keep=KEEP, draws=200, alpha=0.01, seed=0, precision="bfloat16"
    )
    assert early.labels.tolist() == [0] * 12


def test_counts_of_two_precisions_are_never_mixed(sensors, tmp_path):
    certify(Near(), sensors, folder=tmp_path, **OPTIONS)
    with pytest.raises(ValueError, match="Expected counts of the same model and data"):
        certify(Near(), sensors, folder=tmp_path, precision="bfloat16", **OPTIONS)


def test_what_is_deployed_answers_in_the_precision_that_is_asked_for(sensors):
    labels = {p: predict(Near(), sensors, precision=p, **OPTIONS) for p in ("float32", "bfloat16")}
    assert labels["float32"].tolist() == [1] * 12
    assert labels["bfloat16"].tolist() == [0] * 12


def test_attacks_meet_the_model_in_its_precision(sensors):
    inputs = {m: torch.from_numpy(sensors.modalities[m]) for m in Near.modalities}
    ids = torch.arange(12)
    for precision, label in (("float32", 1), ("bfloat16", 0)):
        victim = Smoothed(Near().eval(), keep=KEEP, draws=20, attack_draws=4, precision=precision)
        assert victim.decide(inputs, ids).tolist() == [label] * 12
        assert victim.log_probabilities(inputs, ids).dtype == torch.float32


def test_another_precision_is_refused(sensors):
    with pytest.raises(ValueError, match="precision"):
        certify(Near(), sensors, precision="float16", **OPTIONS)
