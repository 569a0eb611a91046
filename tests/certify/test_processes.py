"""Two processes give the counts of one: classification, segmentation, early stopping, with saving and without."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from certify_toys import KEEP, SignNet
from test_segment import TwoRegions, samples  # noqa: F401  (a fixture)

from crossguard.certify import Counts, certify, certify_early, certify_segmentation, certify_segmentation_early
from crossguard.runs import write_atomically

HERE = Path(__file__).parent
PIXELS = {"image": 2, "depth": 1}


def certify_all(sensors, images, folder=None):
    """All votes and decisions, by name."""
    options = {"keep": KEEP, "alpha": 0.01, "batch_size": 77, "folder": folder, "seed": 0}
    classes = certify(SignNet(), sensors, draws=301, selection_draws=20, **options)
    early = certify_early(SignNet(), sensors, draws=900, radii={"left": 1}, **options)
    pixels = certify_segmentation(
        TwoRegions(), images, keep=PIXELS, draws=101, alpha=0.01, batch_size=7, scheme="joint", seed=0, folder=folder
    )
    regions = certify_segmentation_early(
        TwoRegions(),
        images,
        keep=PIXELS,
        radii={"image": 1},
        draws=400,
        alpha=0.01,
        undecided=0.2,
        seed=0,
        folder=folder,
    )
    return {
        "votes": classes.counts.votes,
        "selection": classes.selection.votes,
        "early": np.stack([early.labels, early.certified, early.draws]),
        "regions": np.stack([regions.labels, regions.certified]),
        "region draws": regions.draws,
        "pixels": np.stack([counts.votes for counts in pixels.counts]),
    }


SCRIPT = """
import sys
from pathlib import Path
import numpy as np, torch
sys.path[:0] = [{tests!r}, {here!r}]
import test_processes
from crossguard.data import MultiModalSamples

def read(path):
    held = np.load(path)
    names = [name for name in held.files if name not in ("labels", "groups", "classes")]
    return MultiModalSamples("toy", "test", {{name: held[name] for name in names}}, held["labels"],
                             tuple(held["classes"].tolist()), held["groups"])

torch.distributed.init_process_group("gloo")
folder = Path(sys.argv[1])
sensors, images = read(folder / "sensors.npz"), read(folder / "images.npz")
for name, place in (("saved", folder / "counts"), ("unsaved", None)):
    found = test_processes.certify_all(sensors, images, place)
    np.savez(folder / f"{{name}}-{{torch.distributed.get_rank()}}.npz", **found)
torch.distributed.destroy_process_group()
"""

APART = """
import sys
from pathlib import Path
import torch
sys.path[:0] = [{tests!r}, {here!r}]
from crossguard.certify.accumulate import resume
from test_processes import toy_counts

torch.distributed.init_process_group("gloo")
rank = torch.distributed.get_rank()
try:
    resume(Path(sys.argv[1]) / str(rank) / "votes.npz", toy_counts(), 10)
except ValueError as error:
    Path(sys.argv[1], f"said-{{rank}}").write_text(str(error))
torch.distributed.destroy_process_group()
"""


def toy_counts(draws=0):
    spans = ((0, draws),) if draws else ()
    return Counts(np.array([[draws, 0]]), spans, seed=0, n={"x": 9}, k={"x": 2}, source="toy")


def run_in_two(script, folder):
    write_atomically(folder / "script.py", script.format(tests=str(HERE.parent), here=str(HERE)).encode())
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "script.py", "."]
    subprocess.run(command, cwd=folder, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


@pytest.mark.slow
def test_processes_that_see_different_files_are_all_told(tmp_path):
    toy_counts(6).save(tmp_path / "0" / "votes.npz")
    run_in_two(APART, tmp_path)
    for rank in (0, 1):
        said = (tmp_path / f"said-{rank}").read_text()
        assert said.startswith("Expected all processes to see the same counts in ")
        assert said.endswith("on a disk that they share, but got process 0: ((0, 6),); process 1: none.")


@pytest.mark.slow
def test_two_processes_give_the_counts_of_one(sensors, samples, tmp_path):  # noqa: F811
    for name, data in (("sensors", sensors), ("images", samples)):
        np.savez(
            tmp_path / f"{name}.npz",
            **data.modalities,
            labels=data.labels,
            groups=data.groups,
            classes=np.array(data.classes),
        )
    run_in_two(SCRIPT, tmp_path)
    expected = certify_all(sensors, samples)
    for run in ("saved-0", "saved-1", "unsaved-0", "unsaved-1"):
        found = np.load(tmp_path / f"{run}.npz")
        for name, votes in expected.items():
            assert (found[name] == votes).all(), (run, name)
    assert (Counts.load(tmp_path / "counts" / "votes.npz").votes == expected["votes"]).all()
    assert (Counts.load(tmp_path / "counts" / "image-00003-joint.npz").votes == expected["pixels"][3]).all()
