"""The fuzzer tells what it is meant to tell, and finds nothing in a few inputs of every kind."""

import importlib.util
import sys
import time
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def fuzz():
    path = Path(__file__).parents[1] / "tools" / "fuzz.py"
    spec = importlib.util.spec_from_file_location("fuzz", path)
    module = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = before
    return module


def _works(outcome):
    def work(rng, folder):
        if outcome == "refused":
            raise ValueError("Expected another.")
        if outcome == "no words":
            raise ValueError
        if outcome == "traceback":
            raise KeyError("seed")
        if outcome == "hang":
            time.sleep(5)
        assert folder.is_dir()

    return work


@pytest.mark.parametrize(
    ("done", "told"),
    [
        ("right", "right"),
        ("refused", "refused"),
        ("no words", "traceback"),
        ("traceback", "traceback"),
        ("hang", "hang"),
    ],
)
def test_outcomes(fuzz, monkeypatch, done, told):
    monkeypatch.setitem(fuzz.KINDS, "one", (_works(done), 1))
    assert fuzz.judge("one", 0, 0, 0.2)[0] == told


def test_a_wrong_answer_is_told(fuzz, monkeypatch):
    def wrong(rng, folder):
        fuzz.check(rng.random() > 1, "not the truth")

    monkeypatch.setitem(fuzz.KINDS, "one", (wrong, 1))
    assert fuzz.judge("one", 0, 0, 5.0) == ("silently wrong", "not the truth")


def test_a_reader_that_loses_a_row_is_caught(fuzz, monkeypatch):
    """The judge of rows is no echo of the reader: it reads by itself."""
    from crossguard.data.gather import Gathering

    add = Gathering.add_plain
    monkeypatch.setattr(Gathering, "add_plain", lambda self, *given, **more: add(self, *(g[1:] for g in given), **more))
    outcomes = {fuzz.judge("json rows", 0, number, 20.0)[0] for number in range(200)}
    assert "silently wrong" in outcomes


def test_the_same_number_is_the_same_input(fuzz):
    import random

    first, second = (fuzz.damaged(random.Random("0 x 3"), bytes(range(200))) for _ in range(2))
    assert first == second != bytes(range(200))


def test_a_few_inputs_of_every_kind(fuzz, monkeypatch, tmp_path):
    monkeypatch.setenv("CROSSGUARD_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in fuzz.KINDS:
        for number in range(3):
            outcome, told = fuzz.judge(name, 12, number, 60.0)
            assert outcome in ("right", "refused"), (name, number, told)


def test_two_kills(fuzz, monkeypatch, tmp_path):
    monkeypatch.setenv("CROSSGUARD_CACHE", str(tmp_path))
    monkeypatch.setattr(fuzz, "WORK", {"rows": fuzz.WORK["rows"]})
    outcomes, told = fuzz.kills(0, 2)
    assert (dict(outcomes), told) == ({"right": 2}, [])
