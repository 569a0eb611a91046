"""A GPU without memory left says which batch size would fit."""

import pytest
import torch

import crossguard as cg
from crossguard import memory
from crossguard.certify import certify
from crossguard.evaluate import evaluate
from crossguard.memory import told_of_memory
from crossguard.training import train
from shared import make_clip

GIB = 2**30
LACK = "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 80.00 GiB."


@pytest.fixture
def full(monkeypatch):
    """A GPU of 80 GiB, 76 of which were taken."""
    monkeypatch.setattr(memory, "_measured", lambda: (80 * GIB, 76 * GIB))


def lacking(*arguments, **options):
    raise torch.OutOfMemoryError(LACK)


@pytest.mark.parametrize(("batch_size", "fits"), [(256, 128), (100, 64), (3, 2)])
def test_the_size_that_fits_is_a_power_of_two_below_what_was_measured(full, batch_size, fits):
    with pytest.raises(RuntimeError) as error, told_of_memory(None, batch_size=batch_size):
        lacking()
    assert str(error.value) == (
        f"Expected a batch_size of {batch_size} to fit into the 80.0 GiB of the GPU, but it takes 96.0 GiB or more, "
        f"0.0 GiB of them the model's weights: by what was measured, batch_size={fits} fits."
    )


def test_what_does_not_fit_at_all_is_said(full):
    with pytest.raises(RuntimeError, match="not even one sample fits"), told_of_memory(None, batch_size=1):
        lacking()


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="other"), told_of_memory(None, batch_size=8):
        raise RuntimeError("other")


def test_evaluation_and_training_say_it(full, toy_pairs, monkeypatch):
    model = make_clip()
    monkeypatch.setattr(model, "encode_image", lacking)
    with pytest.raises(RuntimeError, match="batch_size=4 fits"):
        evaluate(model, toy_pairs, batch_size=8)
    monkeypatch.undo()
    monkeypatch.setattr(memory, "_measured", lambda: (80 * GIB, 76 * GIB))
    monkeypatch.setattr(type(model), "encode_image", lacking)
    with pytest.raises(RuntimeError, match="chunk_size .* fits"):
        train(model, toy_pairs, defence="clean", steps=1, batch_size=8)


def test_certification_says_it(full, monkeypatch):
    class Net(torch.nn.Module):
        name, modalities, classes = "net", ("x",), ("0", "1")

        def forward(self, inputs, kept=None):
            return torch.zeros(len(inputs["x"]), 2) if len(inputs["x"]) <= 4 else lacking()

    samples = cg.as_samples({"x": torch.zeros(2, 4, 1).numpy()}, [0, 1])
    with pytest.raises(RuntimeError, match="batch_size=32 fits"):
        certify(Net(), samples, keep={"x": 2}, draws=100, alpha=0.1, seed=0, batch_size=64)
