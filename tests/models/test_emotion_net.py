"""The emotion network: blind to ablated elements, equal to a slow reference, learns, saved and read back."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crossguard.data import MultiModalSamples
from crossguard.models import load_model
from crossguard.models.base import MultiModalClassifier
from crossguard.models.emotion_net import EmotionNet
from crossguard.models.packing import pack
from crossguard.training.ablated import train_ablated
from crossguard.training.ablated_loop import random_masks

SHAPES = {"video": (5, 3 * 8 * 8), "audio": (7, 4), "features": (9, 1)}
CLASSES = ("calm", "angry", "happy")


def toy(count=12, seed=0):
    generator = np.random.default_rng(seed)
    values = {m: generator.normal(2, 3, (count, *shape)).astype(np.float32) for m, shape in SHAPES.items()}
    labels = generator.integers(0, 3, count)
    return MultiModalSamples("toy", "train", values, labels, CLASSES, np.arange(count))


@pytest.fixture(scope="module")
def model():
    return EmotionNet.for_samples(toy(), width=16, seed=0).eval()


def inputs(count=4, seed=0):
    return {m: torch.from_numpy(values) for m, values in toy(count, seed).modalities.items()}


def test_it_meets_the_protocol_and_reads_frames_as_frames(model):
    assert isinstance(model, MultiModalClassifier)
    assert model.config["frames"] == ["video"]
    assert model(inputs()).shape == (4, 3)


@given(seed=st.integers(0, 99), share=st.floats(0, 1))
def test_ablated_elements_do_not_change_the_answer(model, seed, share):
    values = inputs(seed=seed)
    generator = torch.Generator().manual_seed(seed)
    kept = {m: torch.rand(v.shape[:2], generator=generator) < share for m, v in values.items()}
    other = {m: torch.where(kept[m][..., None], v, torch.full_like(v, torch.nan)) for m, v in values.items()}
    with torch.no_grad():
        answer = model(values, kept)
        assert torch.isfinite(answer).all()
        assert torch.equal(answer, model(other, kept))


def test_branches_equal_a_loop_over_samples_and_elements(model):
    values = inputs(3, seed=4)
    generator = torch.Generator().manual_seed(1)
    for modality, batch in values.items():
        branch = model.branches[modality]
        kept = torch.rand(batch.shape[:2], generator=generator) < 0.6
        kept[2] = False
        rows = []
        with torch.no_grad():
            for sample in range(3):
                found = []
                for index in kept[sample].nonzero()[:, 0].tolist():
                    value = (batch[sample, index] - branch.mean[index]) / branch.scale[index]
                    first = value * branch.slope[index] if modality == "features" else branch.read(value[None])[0]
                    found.append(branch.embed(first + branch.offset[index]))
                table = torch.stack(found) if found else torch.zeros(1, 16)
                rows.append(torch.cat([table.mean(dim=0), table.amax(dim=0)]))
            torch.testing.assert_close(branch(pack(batch, kept)), torch.stack(rows), atol=1e-5, rtol=1e-4)


def test_the_order_of_samples_and_the_batch_do_not_matter(model):
    values = inputs(6)
    with torch.no_grad():
        whole = model(values)
        alone = torch.cat([model({m: v[[i]] for m, v in values.items()}) for i in range(6)])
    torch.testing.assert_close(whole, alone, atol=1e-5, rtol=1e-4)


def test_it_learns_from_ablated_features():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 300)
    features = generator.normal(0, 1, (300, 9, 1)).astype(np.float32)
    features[np.arange(300), labels, 0] += 4
    features[np.arange(300), labels + 3, 0] -= 4
    samples = MultiModalSamples("toy", "train", {"features": features}, labels, CLASSES, np.arange(300))
    net = EmotionNet.for_samples(samples, width=24)
    net = train_ablated(net, samples, keep={"features": 6}, steps=60, batch_size=64, lr=5e-3)
    mask = random_masks(300, 9, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        answer = net({"features": torch.from_numpy(features)}, {"features": mask}).argmax(dim=1).numpy()
    assert (answer == labels).mean() > 0.8


def test_saved_and_read_back_bit_equal(model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    again = load_model(tmp_path / "model")
    assert again.config == model.config
    with torch.no_grad():
        assert torch.equal(again(inputs()), model(inputs()))


def test_wrong_inputs_are_refused(model, unchecked):
    values = inputs()
    with pytest.raises(ValueError, match="Expected an input 'audio'"):
        model({m: v for m, v in values.items() if m != "audio"})
    with pytest.raises(ValueError, match=r"Expected 'audio' \[samples, 7, 4\]"):
        model({**values, "audio": values["audio"][:, :6]})
    with pytest.raises(ValueError, match=r"Expected a mask \[4, 5\] of 'video'"):
        model(values, {m: torch.ones(4, 9, dtype=torch.bool) for m in values})
    with pytest.raises(ValueError, match="two classes"):
        EmotionNet({"audio": (3, 2)}, ("calm",))
    with pytest.raises(ValueError, match="Expected frames of 'video'"):
        EmotionNet({"video": (3, 100)}, CLASSES, frames=("video",))
