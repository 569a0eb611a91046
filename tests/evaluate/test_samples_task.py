"""Classifiers and segmenters, clean and under attack: figures, rows, going on, and mistakes before any work."""

import numpy as np
import pytest
import torch

from crossguard.attacks import Storage, attack_samples
from crossguard.checks import WrongKind
from crossguard.data import MultiModalSamples
from crossguard.evaluate import TASKS, clustered_interval, evaluate
from crossguard.evaluate.tasks import samples as samples_task
from crossguard.runs import RunFolder
from crossguard.threat import Elements, LInf, ThreatModel

LINF = ThreatModel(left=LInf(0.05), right=LInf(0.1))


class Sensors(torch.nn.Module):
    name, modalities, classes = "toy", ("left", "right"), ("a", "b", "c")

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.weight = torch.nn.Parameter(torch.randn(2, 8, 3, generator=generator))

    def forward(self, inputs, kept=None):
        left, right = (inputs[m].flatten(1) for m in self.modalities)
        return (left @ self.weight[0]).tanh() + (right @ self.weight[1]).sin()


class Scenes(torch.nn.Module):
    name, modalities, classes = "scenes", ("rgb", "depth"), ("other", "road")

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(2)
        self.weight = torch.nn.Parameter(torch.randn(2, 4, 1, 3, generator=generator))

    def forward(self, inputs, kept=None):
        both = torch.cat([inputs["rgb"] - 0.5, inputs["depth"] / 40 - 0.5], dim=1)
        return torch.nn.functional.conv2d(both, self.weight, padding=(0, 1))


def sensors(count=11):
    generator = np.random.default_rng(0)
    return MultiModalSamples(
        name="toy",
        split="test",
        modalities={m: generator.normal(size=(count, 4, 2)).astype(np.float32) for m in ("left", "right")},
        labels=np.array([0, 1, 2, -1, 1, 2, 0, 1, 2, 0, 1][:count]),
        classes=("a", "b", "c"),
        groups=np.arange(count),
    )


def scenes(count=4, labels=None):
    generator = np.random.default_rng(3)
    given = generator.integers(-1, 2, (count, 4, 6))
    return MultiModalSamples(
        name="scenes",
        split="test",
        modalities={
            "rgb": (generator.integers(0, 256, (count, 3, 4, 6)) / 255).astype(np.float32),
            "depth": (generator.integers(0, 40000, (count, 1, 4, 6)) / 1000).astype(np.float32),
        },
        labels=given if labels is None else labels,
        classes=("other", "road"),
        groups=np.arange(count),
    )


def test_a_classifiers_figures_are_those_of_its_rows_and_of_the_attack():
    samples, model = sensors(), Sensors()
    found = evaluate(model, samples, attack="apgd", threat=LINF, modalities=True, seed=4, batch_size=3)
    assert found.parts == ("left", "right", "joint")
    judged = samples.labels >= 0
    for part, threat in (("left", LINF.only("left")), ("right", LINF.only("right")), ("joint", LINF)):
        whole = attack_samples(model, samples, threat=threat, attack="apgd", seed=4)
        result = found.of(part)
        assert [row["clean"] for row in result.rows] == [model.classes[label] for label in whole.answers]
        assert [row["robust"] for row in result.rows] == [model.classes[label] for label in whole.attacked]
        assert result.rows[3]["label"] is None
        before, after = ((a == samples.labels)[judged] for a in (whole.answers, whole.attacked))
        groups = samples.groups[judged]
        assert result.clean == {"accuracy": pytest.approx(100 * whole.clean_accuracy)}
        assert result.robust == {"accuracy": pytest.approx(100 * whole.robust_accuracy)}
        assert result.intervals["robust"]["accuracy"] == clustered_interval(after, groups)
        lost = int((before & ~after).sum())
        assert result.success["conditional"]["accuracy"] == pytest.approx(100 * lost / before.sum())
        drop = result.figure("drop", "accuracy")
        assert drop.low <= result.success["drop"]["accuracy"] <= drop.high
        assert (drop.n, drop.groups) == (10, len(set(groups)))
    assert max(row["edited"]["left"] for row in found.of("right").rows) == 0
    assert max(row["linf"]["left"] for row in found.of("joint").rows) <= 0.05
    assert found.robust["accuracy"] < found.clean["accuracy"]
    assert "under apgd" in str(found)


def test_a_segmenters_figures_are_those_of_its_masks():
    samples, model = scenes(), Scenes()
    threat = ThreatModel(rgb=Elements(2), depth=Elements(2))
    storage = {"depth": Storage.millimetres()}
    result = evaluate(model, samples, attack="sparse", threat=threat, storage=storage, batch_size=3)
    whole = attack_samples(model, samples, attack="sparse", threat=threat, storage=storage)
    assert result.parts == ("joint",)
    truth = samples.labels
    for labels, figures, name in ((whole.answers, result.clean, "clean"), (whole.attacked, result.robust, "robust")):
        judged = truth >= 0
        hits = ((labels == 1) & (truth == 1)).sum()
        either = (((labels == 1) | (truth == 1)) & judged).sum()
        assert figures["pixel accuracy"] == pytest.approx(100 * (labels == truth)[judged].mean())
        assert figures["IoU"] == pytest.approx(100 * hits / either)
        for metric, figure in result.outcomes[0].estimates[name].items():
            assert (figure.value, figure.interval) == (figures[metric], None)
            assert figure.why == f"there are {len(truth)} groups, fewer than 8"
            assert len(figure.by_group) == figure.groups == len(truth)
    right = (truth >= 0) & (whole.answers == truth)
    lost = right & (whole.attacked != truth)
    assert result.success["conditional"]["pixel accuracy"] == pytest.approx(100 * lost.sum() / right.sum())
    assert result.success["drop"]["IoU"] == pytest.approx(result.clean["IoU"] - result.robust["IoU"])
    assert max(row["edited"]["rgb"] for row in result.rows) <= 2


def test_without_attack_and_without_the_positive_class():
    samples = scenes(labels=np.zeros((4, 4, 6), np.int64))
    found = evaluate(Scenes(), samples)
    assert list(found.clean) == ["pixel accuracy"]
    assert (found.robust, found.success) == (None, None)
    named = evaluate(Scenes(), samples, positive="other")
    assert named.clean["IoU"] == pytest.approx(named.clean["pixel accuracy"])


def test_a_constant_modality_matters_to_attacks_alone():
    samples = sensors()
    samples.modalities["right"][:] = 1
    assert evaluate(Sensors(), samples).clean
    with pytest.raises(ValueError, match="Expected data of different values"):
        evaluate(Sensors(), samples, attack="pgd", threat=LINF)


def test_an_answer_that_was_never_right_cannot_be_lost():
    rows = [{"label": "a", "clean": "b", "robust": "b", "group": 0}]
    found = TASKS["classification"](Sensors(), sensors(), 4).estimates(rows, {"attack": "pgd"})
    assert found["conditional"] == {"accuracy": None}


def test_an_interrupted_evaluation_goes_on(tmp_path, monkeypatch):
    asked = {"attack": "apgd", "threat": LINF, "modalities": True, "batch_size": 4, "seed": 2}
    whole = evaluate(Sensors(), sensors(), **asked)
    attacked = []

    def failing(*arguments, **options):
        attacked.append(tuple(options["places"]))
        if len(attacked) == 5:
            raise KeyboardInterrupt
        return attack_samples(*arguments, **options)

    monkeypatch.setattr(samples_task, "attack_samples", failing)
    settings = {"label": "toy"}
    with RunFolder.open(tmp_path / "run", settings=settings) as run, pytest.raises(KeyboardInterrupt):
        evaluate(Sensors(), sensors(), run=run, **asked)
    with RunFolder.open(tmp_path / "run", settings=settings) as run:
        found = evaluate(Sensors(), sensors(), run=run, **asked)
        assert len(attacked) == 5 + 3 * 3 - 4  # four parts of batches were kept
        again = evaluate(Sensors(), sensors(), run=run, **asked)
        assert len(attacked) == 10
        assert len(run.rows) == 3 * 11
        assert set(run.summary["results"]) == {f"classification/toy/{part}" for part in ("left", "right", "joint")}
        with pytest.raises(ValueError, match="`seed` is 2 there and 3 now"):
            evaluate(Sensors(), sensors(), run=run, **{**asked, "seed": 3})
    assert found.figures == again.figures == whole.figures
    assert [row["robust"] for row in found.rows] == [row["robust"] for row in whole.rows]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attack": "apg", "threat": LINF}, "did you mean 'apgd'"),
        ({"attack": "apgd", "threat": ThreatModel(lef=LInf(0.1))}, "did you mean 'left'"),
        ({"attack": "sparse", "threat": LINF}, "Expected Elements or Patch as the budget of 'left'"),
        ({"attack": "apgd"}, "Expected a threat model that says"),
        ({"attack": "apgd", "threat": LINF, "attack_options": {"step": 3}}, "did you mean 'steps'"),
        ({"attack": "apgd", "threat": LINF, "objective": "margins"}, "did you mean 'margin'"),
        ({"threat": LINF}, "Expected an attack for the threat"),
        ({"positive": "a"}, "Unknown option 'positive'"),
        ({"task": "segmentation"}, "Expected samples with masks"),
        ({"batch_size": 0}, "`batch_size` to be a whole number >= 1"),
        ({"storage": {"lef": Storage.pixels()}}, "did you mean 'left'"),
    ],
)
def test_mistakes_are_told_before_the_model_is_asked(options, message, monkeypatch):
    monkeypatch.setattr(Sensors, "forward", lambda *_: pytest.fail("the model was asked"))
    with pytest.raises(ValueError, match=message):
        evaluate(Sensors(), sensors(), **options)


def test_other_models_are_refused(unchecked):
    with pytest.raises(WrongKind, match="Linear is none"):
        evaluate(torch.nn.Linear(2, 2), sensors())
    one = sensors()
    masks = MultiModalSamples(
        name="toy",
        split="test",
        modalities=one.modalities,
        labels=np.zeros((11, 4, 2), np.int64),
        classes=one.classes,
        groups=one.groups,
    )
    with pytest.raises(ValueError, match="Expected answers of shape"):
        evaluate(Sensors(), masks)
