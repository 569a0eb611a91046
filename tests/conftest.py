"""What every test run sets up, and fixtures that many tests share."""

import os

import garbage  # before anything large
import own_home  # before anything that looks for the home folder
import type_checks  # before anything of the library

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Tiny models gain nothing from threads and lose much when several test runs share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from itertools import product
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from crossguard.data import OneToManyPairs, PairBatch, Picture, links_among
from crossguard.models import CLIP
from shared import COLOURS, PLACES, SHAPES, draw, make_clip

# A busy machine is no failure. In CI the same examples are drawn every time; elsewhere new ones are looked for.
for name, examples in (("quick", 25), ("thorough", 200)):  # pytest --hypothesis-profile thorough
    settings.register_profile(
        name,
        deadline=None,
        derandomize="CI" in os.environ,
        max_examples=examples,
        suppress_health_check=[HealthCheck.too_slow],
    )
settings.load_profile("quick")


# No test needs what it wrote to outlive the machine, and waiting for a disk takes long.
os.fsync = lambda handle: None


def pytest_collection_finish() -> None:
    garbage.search_from_now()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol() -> None:
    type_checks.begin_test()


def pytest_runtest_teardown() -> None:
    own_home.check_home()


@pytest.fixture
def unchecked(monkeypatch):
    """Switch the type checks of the test run off, to meet the library's own errors as users do."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture
def tiny_clip() -> CLIP:
    return make_clip()


@pytest.fixture(scope="session")
def toy_pairs(tmp_path_factory) -> OneToManyPairs:
    """24 pictures; the two places of a coloured shape share a text, and each has texts of its own: many to many."""
    folder: Path = tmp_path_factory.mktemp("toy")
    pictures, texts, links = [], [], []
    for colour, shape, place in product(COLOURS, SHAPES, PLACES):
        path = folder / f"{colour}-{shape}-{place}.png"
        draw(colour, shape, place).save(path)
        pictures.append(Picture(path.stem, path, style=place))
        for text in (
            f"a small picture of a {colour} {shape}",
            f"a bright {colour} {shape} on the {place} side",
            f"drawing of the {colour} {shape} {place}",
        ):
            if text not in texts:
                texts.append(text)
            links.append((len(pictures) - 1, texts.index(text)))
    return OneToManyPairs("toy", "test", tuple(pictures), tuple(texts), np.array(links), ("caption",) * len(texts))


@pytest.fixture(scope="session")
def toy_batch(toy_pairs) -> PairBatch:
    """The first 8 pictures with all their texts."""
    image_ids = np.arange(8)
    text_ids = np.unique(np.concatenate([toy_pairs.texts_of(int(i)) for i in image_ids]))
    return PairBatch(
        pixels=make_clip().preprocess([toy_pairs.image(int(i)) for i in image_ids]),
        texts=tuple(toy_pairs.texts[int(j)] for j in text_ids),
        links=torch.from_numpy(links_among(toy_pairs, image_ids, text_ids)),
        image_ids=torch.from_numpy(image_ids),
        text_ids=torch.from_numpy(text_ids),
    )
