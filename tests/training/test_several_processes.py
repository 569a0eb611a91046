"""Two processes do what one does with twice the batch: same losses, same weights; the main one writes, both go on."""

import json
import multiprocessing
import os
import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from accelerate.state import AcceleratorState, GradientState
from training_helpers import ToySource

import crossguard as cg
from crossguard.data.augmented import load_augmented
from crossguard.runs import RunFolder
from crossguard.training import train
from fusion_models import make_albef
from shared import make_clip

THREAT = cg.ThreatModel(image=cg.LInf(eps=8 / 255), text=cg.WordEdits(words=1))
COMMON = {"threat": THREAT, "learning_rate": 1e-3, "source": ToySource(), "log_every": 1, "seed": 4}
CASES = {
    "clip": {"defence": "mat+", "steps": 3, "checkpoint_every": 2, "start": "warm", "ema": 0.9},
    "albef": {"defence": "mmcoa", "steps": 2, "queue_size": 20},
    "fare": {"defence": "fare", "steps": 1, "chunk_size": 3, "tracker": "tensorboard"},
}


def start(case, folder):
    return make_albef(folder / f"vocabulary-{os.environ.get('RANK', 'alone')}") if case == "albef" else make_clip()


def run_cases(folder, pairs, *, batch_size, name):
    """Train all cases; only the main process has run folders."""
    for case, options in CASES.items():
        place = folder / f"{name}-{case}"
        common = {**COMMON, **options, "batch_size": batch_size}
        if int(os.environ.get("RANK", "0")) == 0:
            with RunFolder.open(place, settings={}) as run:
                trained = train(start(case, folder), pairs, run=run, **common)
            torch.save(trained.state_dict(), place / "weights.pt")
        else:
            trained = train(start(case, folder), pairs, **common)
            torch.save(trained.state_dict(), folder / f"other-{case}.pt")


def work(rank, port, folder):
    """One of two processes, as `torchrun` starts them."""
    places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {key: str(value) for key, value in places.items()}
    folder = Path(folder)
    pairs = load_augmented(folder / "pairs").originals()
    run_cases(folder, pairs, batch_size=4, name="two")
    options = {**COMMON, **CASES["clip"], "batch_size": 4}
    if rank == 0:
        with RunFolder.open(folder / "two-clip", settings={}) as run:
            train(make_clip(), pairs, run=run, **options)
    else:
        torch.save(train(make_clip(), pairs, **options).state_dict(), folder / "again-clip.pt")
    dist.destroy_process_group()


def rows_of(folder):
    return [json.loads(line) for line in (folder / "training.jsonl").read_text().splitlines()]


@pytest.fixture
def saved(toy_pairs, tmp_path):
    """The toy pairs on the disk, for another process to read."""
    from crossguard.data.augmented import AugmentedPairs, save_augmented

    whole = {"original_name": "toy", "original_images": 24, "original_texts": len(toy_pairs.texts)}
    fields = {f: getattr(toy_pairs, f) for f in ("name", "split", "images", "texts", "links", "text_kinds")}
    save_augmented(tmp_path / "pairs", AugmentedPairs(**fields, **whole))
    return tmp_path


@pytest.mark.slow
def test_two_processes_train_as_one_with_twice_the_batch(saved, monkeypatch):
    pairs = load_augmented(saved / "pairs").originals()
    run_cases(saved, pairs, batch_size=8, name="one")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    for key in places:
        monkeypatch.setenv(key, "0")  # put back at the end, whatever `work` leaves
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    other = multiprocessing.get_context("spawn").Process(target=work, args=(1, port, str(saved)))
    other.start()
    try:
        work(0, port, str(saved))
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
        for key in places:
            monkeypatch.delenv(key)
        other.join(60)
        other.kill()
    assert other.exitcode == 0
    for case in CASES:
        one, two = rows_of(saved / f"one-{case}"), rows_of(saved / f"two-{case}")
        assert len(one) == len(two) == CASES[case]["steps"]
        for a, b in zip(one, two, strict=True):
            assert b["loss"] == pytest.approx(a["loss"], rel=1e-5), case
            assert b["gradient_norm"] == pytest.approx(a["gradient_norm"], rel=1e-4), case
            assert b["robust_accuracy"] == a["robust_accuracy"]
        states = [
            torch.load(saved / file, weights_only=True)
            for file in (f"one-{case}/weights.pt", f"two-{case}/weights.pt", f"other-{case}.pt")
        ]
        for key, value in states[0].items():
            assert torch.equal(states[1][key], states[2][key]), (case, key)
            torch.testing.assert_close(states[1][key], value, rtol=1e-3, atol=1e-4)
    # Both took the finished training up again; and what two processes left, one goes on from.
    first, again = (torch.load(saved / f"{name}-clip.pt", weights_only=True) for name in ("other", "again"))
    assert all(torch.equal(first[key], again[key]) for key in first)
    with RunFolder.open(saved / "two-clip", settings={}) as run:
        taken = train(make_clip(), pairs, run=run, batch_size=8, **COMMON, **CASES["clip"]).state_dict()
    assert all(torch.equal(first[key], taken[key]) for key in first)
    assert len(rows_of(saved / "two-clip")) == 3
