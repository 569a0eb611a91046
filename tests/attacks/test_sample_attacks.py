"""Attacks on sensors and scenes: within budget in the storage type, whatever the type, the model and the batch."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crossguard.attacks import ATTACKS, Storage, attack_samples
from crossguard.checks import WrongKind
from crossguard.data import MultiModalSamples
from crossguard.threat import Elements, LInf, ThreatModel, WordEdits


class ToySensors(torch.nn.Module):
    """A small random classifier of two sensors, of different types of storage."""

    name, modalities, classes = "toy", ("counts", "signal"), ("a", "b", "c")

    def __init__(self, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.counts = torch.nn.Parameter(torch.randn(6 * 2, 3, generator=generator))
        self.signal = torch.nn.Parameter(torch.randn(5 * 1, 3, generator=generator))

    def forward(self, inputs, kept=None):
        counts = inputs["counts"] / 65535
        signal = inputs["signal"]
        if kept is not None:
            counts = counts * kept["counts"][:, :, None]
            signal = signal * kept["signal"][:, :, None]
        return (counts.flatten(1) @ self.counts).tanh() + (signal.flatten(1) @ self.signal).sin()


class ToyScenes(torch.nn.Module):
    """A label per pixel from colours and depth and their neighbours to the left."""

    name, modalities, classes = "toy-scenes", ("rgb", "depth"), ("other", "road")

    def __init__(self, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = torch.nn.Parameter(torch.randn(2, 4, 1, 3, generator=generator))

    def forward(self, inputs, kept=None):
        both = [inputs["rgb"] - 0.5, inputs["depth"] / 40 - 0.5]
        if kept is not None:
            both = [values * kept[m][:, None] for m, values in zip(self.modalities, both, strict=True)]
        return torch.nn.functional.conv2d(torch.cat(both, dim=1), self.weight, padding=(0, 1))


def sensors(seed=0, count=7):
    generator = np.random.default_rng(seed)
    return MultiModalSamples(
        name="toy",
        split="test",
        modalities={
            "counts": generator.integers(0, 65536, (count, 6, 2), dtype=np.uint16),
            "signal": generator.normal(size=(count, 5, 1)).astype(np.float16),
        },
        labels=np.array([0, 1, 2, 0, 1, 2, -1][:count]),
        classes=("a", "b", "c"),
        groups=np.arange(count),
    )


def scenes(seed=0, count=3):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, (count, 4, 6))
    labels[0, 0] = -1
    return MultiModalSamples(
        name="toy",
        split="test",
        modalities={
            "rgb": (generator.integers(0, 256, (count, 3, 4, 6)) / 255).astype(np.float32),
            "depth": (generator.integers(0, 40000, (count, 1, 4, 6)) / 1000).astype(np.float32),
        },
        labels=labels,
        classes=("other", "road"),
        groups=np.arange(count),
    )


def test_storage_is_read_from_the_data():
    values = sensors().modalities
    assert Storage.of(values["counts"]) == Storage(0.0, 65535.0, 1.0)
    signal = values["signal"].astype(np.float64)
    assert Storage.of(values["signal"]) == Storage(signal.min(), signal.max())
    assert Storage.of(scenes().modalities["rgb"]) == Storage.pixels()
    assert Storage.of(scenes().modalities["depth"]).step is None
    with pytest.raises(ValueError, match="Expected data of different values"):
        Storage.of(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="low < high"):
        Storage(1.0, 1.0)


@given(
    seed=st.integers(0, 1000),
    eps=st.sampled_from([0.0, 1e-7, 0.003, 0.02, 0.5, 1.0]),
    kind=st.sampled_from(["u8", "u16", "f16", "f32", "pixels", "millimetres"]),
)
@settings(max_examples=60, deadline=None)
def test_what_is_stored_keeps_type_range_step_and_budget(seed, eps, kind):
    generator = np.random.default_rng(seed)
    source = {
        "u8": lambda: generator.integers(0, 256, 50, dtype=np.uint8),
        "u16": lambda: generator.integers(0, 65536, 50, dtype=np.uint16),
        "f16": lambda: generator.normal(size=50).astype(np.float16),
        "f32": lambda: generator.normal(size=50).astype(np.float32),
        "pixels": lambda: (generator.integers(0, 256, 50) / 255).astype(np.float32),
        "millimetres": lambda: (generator.integers(0, 65536, 50) / 1000).astype(np.float32),
    }[kind]()
    how = {"pixels": Storage.pixels(), "millimetres": Storage.millimetres()}.get(kind) or Storage.of(source)
    span = how.high - how.low
    moved = generator.random(50) < 0.8
    stored = how.stored(generator.random(50).astype(np.float32), source, moved=moved, eps=eps)
    assert stored.dtype == source.dtype
    assert (stored[~moved] == source[~moved]).all()
    change = np.abs(stored.astype(np.float64) - source.astype(np.float64))
    assert change.max() <= eps * span + (2e-6 * span if kind in ("pixels", "millimetres") else 0)
    assert stored.min() >= np.float32(how.low)
    assert stored.max() <= np.float32(how.high)
    if how.step is not None:
        steps = (stored.astype(np.float64) - how.low) / how.step
        assert np.abs(steps - np.round(steps)).max() < 5e-3


LINF = ThreatModel(counts=LInf(0.05), signal=LInf(0.2))
SPARSE = ThreatModel(counts=Elements(2), signal=Elements(1))
CASES = [
    ("adaptive", {"steps": 10}, LINF),
    ("pgd", {}, LINF),
    ("apgd", {}, LINF),
    ("auto-attack", {"steps": 10, "targets": 2, "queries": 20}, LINF),
    ("apgd-ce", {"steps": 10}, LINF),
    ("apgd-t", {"steps": 10, "targets": 2}, LINF),
    ("fab-t", {"steps": 10, "targets": 2}, LINF),
    ("square", {"queries": 100}, LINF),
    ("sparse", {}, SPARSE),
]


def test_the_cases_cover_the_table():
    assert {name for name, _, _ in CASES} == {name for name, row in ATTACKS.items() if row.samples}


@pytest.mark.parametrize(("attack", "options", "threat"), CASES)
def test_sensors_stay_within_budget_and_accuracy_falls(attack, options, threat):
    samples, model = sensors(), ToySensors().train()
    before = {m: values.copy() for m, values in samples.modalities.items()}
    found = attack_samples(model, samples, threat=threat, attack=attack, attack_options=options, seed=3)
    for m, values in found.samples.modalities.items():
        assert values.dtype == before[m].dtype
        assert (samples.modalities[m] == before[m]).all()
        assert (values[6] == before[m][6]).all()  # no label: left clean
        change = np.abs(values.astype(float) - before[m].astype(float))
        edited = (change > 0).any(axis=2).sum(axis=1)
        assert (found.edited[m] == edited).all()
        budget = threat[m]
        if isinstance(budget, Elements):
            assert edited.max() <= budget.r
        else:
            low, high = Storage.of(before[m]).low, Storage.of(before[m]).high
            assert change.max() / (high - low) <= budget.eps
    # Success is what the model says of the stored values.
    with torch.no_grad():
        said = model({m: torch.from_numpy(v.astype(np.float32)) for m, v in found.samples.modalities.items()})
    assert (said.argmax(dim=1).numpy() == found.attacked).all()
    assert found.robust_accuracy < found.clean_accuracy
    assert model.training
    rows = found.rows()
    assert rows[6]["label"] is None
    assert rows[6]["success"] is None
    assert rows[0]["edited"] == {m: int(found.edited[m][0]) for m in found.edited}
    right = found.answers[:6] == samples.labels[:6]
    lost = right & (found.attacked[:6] != samples.labels[:6])
    assert [row["success"] for row in rows[:6] if row["success"] is not None] == lost[right].astype(float).tolist()


@pytest.mark.parametrize(
    ("attack", "threat"),
    [
        ("adaptive", ThreatModel(rgb=LInf(8 / 255), depth=LInf(0.02))),
        ("apgd", ThreatModel(rgb=LInf(8 / 255), depth=LInf(0.02))),
        ("sparse", ThreatModel(rgb=Elements(3))),
    ],
)
def test_scenes_stay_within_budget(attack, threat):
    samples = scenes()
    found = attack_samples(ToyScenes(), samples, threat=threat, attack=attack, storage={"depth": Storage.millimetres()})
    steps = found.samples.modalities["depth"].astype(float) * 1000
    assert np.abs(steps - steps.round()).max() < 5e-3
    grey = found.samples.modalities["rgb"] * 255
    assert np.abs(grey - grey.round()).max() < 1e-3
    if attack == "sparse":
        changed = (found.samples.modalities["rgb"] != samples.modalities["rgb"]).any(axis=1).sum(axis=(1, 2))
        assert changed.max() <= 3
        assert (changed == found.edited["rgb"]).all()
        assert (found.samples.modalities["depth"] == samples.modalities["depth"]).all()
    assert found.attacked.shape == samples.labels.shape
    assert found.robust_accuracy < found.clean_accuracy
    assert found.rows()[0]["attacked"] < 1


@pytest.mark.parametrize(("attack", "options", "threat"), CASES)
def test_the_batch_size_is_irrelevant_and_the_seed_decides(attack, options, threat):
    samples, model = sensors(), ToySensors(1)
    whole, again, parts = (
        attack_samples(model, samples, threat=threat, attack=attack, attack_options=options, seed=5, batch_size=size)
        for size in (64, 64, 2)
    )
    for m in model.modalities:
        assert (whole.samples.modalities[m] == again.samples.modalities[m]).all()
        assert np.allclose(
            whole.samples.modalities[m].astype(float), parts.samples.modalities[m].astype(float), rtol=1e-2, atol=1e-3
        )
    assert (whole.attacked == parts.attacked).all()


def test_a_part_with_its_places_is_attacked_as_the_whole_is():
    samples, model = sensors(), ToySensors(1)
    storage = {m: Storage.of(values) for m, values in samples.modalities.items()}
    options = {"attack": "pgd", "attack_options": {"steps": 1}, "threat": LINF, "seed": 5, "storage": storage}
    whole = attack_samples(model, samples, **options)
    chosen = np.array([4, 2])
    part = attack_samples(model, samples.select(chosen), places=chosen, **options)
    other = attack_samples(model, samples.select(chosen), **options)
    for m in model.modalities:
        found, expected = part.samples.modalities[m].astype(float), whole.samples.modalities[m][chosen].astype(float)
        assert np.allclose(found, expected, rtol=1e-2, atol=1e-3)
    assert (other.samples.modalities["counts"] != part.samples.modalities["counts"]).any()
    with pytest.raises(ValueError, match="Expected 2 places"):
        attack_samples(model, samples.select(chosen), places=np.array([4]), **options)


@pytest.mark.parametrize(
    ("attack", "threat"),
    [
        ("adaptive", ThreatModel(counts=LInf(0.0), signal=LInf(0.0))),
        ("apgd", ThreatModel(counts=LInf(0.0), signal=LInf(0.0))),
        ("auto-attack", ThreatModel(counts=LInf(0.0), signal=LInf(0.0))),
        ("sparse", ThreatModel(counts=Elements(0), signal=Elements(0))),
    ],
)
def test_no_budget_changes_nothing(attack, threat):
    samples = sensors()
    found = attack_samples(ToySensors(), samples, threat=threat, attack=attack)
    for m, values in found.samples.modalities.items():
        assert (values == samples.modalities[m]).all()
    assert (found.answers == found.attacked).all()


def test_more_budget_is_never_weaker_on_average():
    accuracies = [
        np.mean(
            [
                attack_samples(
                    ToySensors(seed),
                    sensors(seed),
                    threat=ThreatModel(counts=Elements(r), signal=Elements(r)),
                    attack="sparse",
                    attack_options={"placement": "greedy", "steps": 4},
                ).robust_accuracy
                for seed in range(4)
            ]
        )
        for r in (0, 1, 3)
    ]
    assert accuracies[0] > accuracies[1] >= accuracies[2]


@pytest.mark.parametrize(
    ("attack", "threat", "message"),
    [
        ("sparse", LINF, "Expected Elements or Patch as the budget of 'counts' for attack 'sparse'"),
        ("auto-attack", SPARSE, "Expected LInf as the budget of 'counts'"),
        ("sparse", ThreatModel(counts=Elements(1, "insertion")), "cannot insert or delete any"),
        ("sparse", ThreatModel(count=Elements(1)), "did you mean 'counts'"),
        ("sparse", ThreatModel(counts=WordEdits(1)), "Expected Elements"),
        ("sparse", ThreatModel(), "Expected a budget for at least one modality"),
        ("spars", SPARSE, "did you mean 'sparse'"),
    ],
)
def test_wrong_budgets_are_refused(attack, threat, message):
    with pytest.raises(ValueError, match=message):
        attack_samples(ToySensors(), sensors(), threat=threat, attack=attack)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attack_options": {"step": 1}}, "did you mean 'steps'"),
        ({"attack_options": {"steps": -1}}, "Expected `steps` >= 0"),
        ({"attack_options": {"placement": "greedi"}}, "did you mean 'greedy'"),
        ({"objective": "margins"}, "did you mean 'margin'"),
        ({"storage": {"counds": Storage.pixels()}}, "did you mean 'counts'"),
        ({"batch_size": 0}, "Expected samples, `batch_size` >= 1"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        attack_samples(ToySensors(), sensors(), threat=SPARSE, attack="sparse", **options)


def test_attacks_on_labels_are_refused_for_masks():
    with pytest.raises(ValueError, match="such as 'adaptive', but 'auto-attack' attacks labels of whole samples"):
        attack_samples(ToyScenes(), scenes(), threat=ThreatModel(rgb=LInf(0.1)), attack="auto-attack")


def test_a_model_of_another_kind_is_refused(unchecked):
    with pytest.raises(WrongKind, match="Expected a classifier or segmenter of several modalities .*Linear is none"):
        attack_samples(torch.nn.Linear(2, 2), sensors(), threat=ThreatModel(counts=LInf(0.1)), attack="pgd")
