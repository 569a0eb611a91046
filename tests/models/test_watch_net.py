"""`WatchNet`: sees kept time steps only, in any number, and survives saving bit-equal."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crossguard.data import MultiModalSamples
from crossguard.models import MultiModalClassifier, WatchNet, load_model

SIZES = {"a": 9, "b": 7}


def make(seed=0):
    rng = np.random.default_rng(0)
    samples = MultiModalSamples(
        "toy",
        "train",
        {m: rng.normal(3, 5, size=(20, n, 3)).astype(np.float32) for m, n in SIZES.items()},
        np.zeros(20, dtype=np.int64),
        ("x", "y", "z"),
        np.zeros(20, dtype=np.int64),
    )
    return WatchNet.for_samples(samples, width=16, seed=seed).eval(), samples


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32), st.booleans())
def test_ablated_values_do_not_change_the_answer(seed, equal):
    model, _ = make()
    generator = torch.Generator().manual_seed(seed)
    inputs = {m: torch.randn(5, n, 3, generator=generator) for m, n in SIZES.items()}
    if equal:
        kept = {m: torch.zeros(5, n, dtype=torch.bool) for m, n in SIZES.items()}
        for mask in kept.values():
            for row in mask:
                row[torch.randperm(len(row), generator=generator)[:3]] = True
    else:  # any number of kept steps, none at all included
        kept = {m: torch.rand(5, n, generator=generator) < 0.3 for m, n in SIZES.items()}
    other = {m: torch.where(kept[m][..., None], x, torch.full_like(x, 1e4)) for m, x in inputs.items()}
    with torch.no_grad():
        found = model(inputs, kept)
        assert torch.equal(found, model(other, kept))
        assert torch.isfinite(found).all()
        alone = torch.cat(
            [
                model({m: x[i : i + 1] for m, x in inputs.items()}, {m: x[i : i + 1] for m, x in kept.items()})
                for i in range(5)
            ]
        )
    assert torch.allclose(found, alone, atol=1e-5)


def test_kept_values_and_their_moments_do_change_the_answer():
    model, samples = make()
    inputs = {m: torch.from_numpy(x[:4]) for m, x in samples.modalities.items()}
    kept = {m: torch.zeros(4, n, dtype=torch.bool).index_fill_(1, torch.tensor([1, 4]), True) for m, n in SIZES.items()}
    with torch.no_grad():
        found = model(inputs, kept)
        assert not torch.allclose(found, model({**inputs, "a": inputs["a"] + 1}, kept))
        rolled = {m: x.roll(1, dims=1) for m, x in inputs.items()}, {m: x.roll(1, dims=1) for m, x in kept.items()}
        assert not torch.allclose(found, model(*rolled))
        everything = {m: torch.ones(4, n, dtype=torch.bool) for m, n in SIZES.items()}
        assert torch.equal(model(inputs), model(inputs, everything))


def test_meets_the_protocol_and_normalises_inside():
    model, samples = make()
    assert isinstance(model, MultiModalClassifier)
    assert (model.modalities, model.classes, model.name) == (("a", "b"), ("x", "y", "z"), "watch-net")
    for m, values in samples.modalities.items():
        assert np.allclose(model.streams[m].mean, values.mean(axis=(0, 1)), atol=1e-5)
        assert np.allclose(model.streams[m].scale, values.std(axis=(0, 1)), atol=1e-5)


def test_saving_is_bit_equal(tmp_path):
    model, samples = make()
    model.save_pretrained(tmp_path / "net")
    again = load_model(tmp_path / "net")
    inputs = {m: torch.from_numpy(x) for m, x in samples.modalities.items()}
    with torch.no_grad():
        assert torch.equal(again(inputs), model(inputs))
    assert again.config == model.config
    assert sorted(path.name for path in (tmp_path / "net").iterdir()) == ["config.json", "model.safetensors"]
    (tmp_path / "net" / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ValueError, match="broken"):
        load_model(tmp_path / "net")


def test_a_seed_gives_the_same_weights_and_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second, other = (make(seed)[0].state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_wrong_arguments_are_refused(unchecked):
    model, samples = make()
    inputs = {m: torch.from_numpy(x) for m, x in samples.modalities.items()}
    with pytest.raises(ValueError, match="input 'b'"):
        model({"a": inputs["a"]})
    with pytest.raises(ValueError, match=r"mask \[20, 9\]"):
        model(inputs, {"a": torch.ones(20, 8, dtype=torch.bool), "b": torch.ones(20, 7, dtype=torch.bool)})
    with pytest.raises(ValueError, match="two classes"):
        WatchNet({"a": 3}, ("only",))
