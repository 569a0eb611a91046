"""The test run checks types and shapes: of functions, methods and what dataclasses are made of."""

import importlib.util
import sys

import pytest
import torch
from jaxtyping import TypeCheckError

from crossguard.data import PairBatch
from crossguard.models import cosine
from crossguard.threat import LInf
from type_checks import CALLS


def test_shapes_that_do_not_agree_are_caught():
    assert cosine(torch.ones(2, 3), torch.ones(4, 3)).shape == (2, 4)
    with pytest.raises(TypeCheckError, match="cosine"):
        cosine(torch.ones(2, 3), torch.ones(4, 5))
    with pytest.raises(TypeCheckError, match="cosine"):
        cosine(torch.ones(2, 3), [[1.0, 2.0, 3.0]])


def test_what_is_called_often_is_checked_at_first():
    for _ in range(CALLS):
        cosine(torch.ones(2, 3), torch.ones(4, 3))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        cosine(torch.ones(2, 3), torch.ones(4, 5))


def test_what_a_dataclass_is_made_of_is_checked(toy_batch):
    values = {field: getattr(toy_batch, field) for field in PairBatch.__dataclass_fields__}
    with pytest.raises(TypeCheckError):
        PairBatch(**{**values, "pixels": toy_batch.pixels[0]})
    with pytest.raises(TypeCheckError):
        LInf("2/255")


def test_methods_and_functions_within_functions_are_checked(tmp_path, monkeypatch):
    file = tmp_path / "crossguard_like.py"
    file.write_text(
        "class Thing:\n"
        "    @property\n"
        "    def size(self) -> int:\n"
        "        return 'large'\n"
        "    @classmethod\n"
        "    def make(cls, size: int) -> 'Thing':\n"
        "        return cls()\n"
        "def outer():\n"
        "    if True:\n"
        "        def inner(number: int) -> str:\n"
        "            return str(number)\n"
        "    return inner\n"
    )
    loader = type(importlib.util.find_spec("crossguard.threat").loader)("crossguard_like", str(file))
    spec = importlib.util.spec_from_file_location("crossguard_like", file, loader=loader)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "crossguard_like", module)
    spec.loader.exec_module(module)
    assert module.outer()(3) == "3"
    for wrong in (lambda: module.outer()("3"), lambda: module.Thing.make("large"), lambda: module.Thing().size):
        with pytest.raises(TypeCheckError):
            wrong()
