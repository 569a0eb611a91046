"""Checks on arguments: types of options."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pytest

from crossguard.checks import ill_typed


class Quack(Protocol):
    def quack(self) -> None: ...


def build(
    *,
    steps: int = 1,
    step: str | float = "auto",
    scales: Sequence[float] = (1.0,),
    size: tuple[int, ...] = (1,),
    folder: Path | str = "x",
    order: Literal["first", "last"] = "first",
    more: Mapping[str, Any] | None = None,
    source: str | Quack = "x",
    call: Callable[[], int] | None = None,
    share: float = 0.5,
    on: bool = False,
    free=None,
) -> None: ...


def test_values_of_the_declared_types_pass():
    given = {
        "steps": np.int64(3),
        "step": 1,
        "scales": [1, 2.5],
        "size": [1, 2],
        "folder": Path("y"),
        "order": "last",
        "more": {"a": 1},
        "source": 3,  # a protocol is no plain value
        "share": np.float32(0.25),
        "on": True,
        "free": object(),
        "other": 1,
    }
    assert ill_typed(build, given) == []
    assert ill_typed(build, {"more": None, "scales": np.ones(2)}) == []


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"steps": 2.5}, "`steps` to be int, but got 2.5"),
        ({"steps": "ten"}, "`steps` to be int, but got 'ten'"),
        ({"steps": True}, "`steps` to be int, but got True"),
        ({"step": [1]}, "`step` to be str | float, but got [1]"),
        ({"scales": "abc"}, "`scales` to be Sequence[float], but got 'abc'"),
        ({"size": [1, "x"]}, "`size` to be tuple[int, ...], but got [1, 'x']"),
        ({"folder": 3}, "`folder` to be Path | str, but got 3"),
        ({"order": "middle"}, "`order` to be one of ['first', 'last'], but got 'middle'"),
        ({"more": [1]}, "`more` to be Mapping[str, Any] | None, but got [1]"),
        ({"share": "0.5"}, "`share` to be float, but got '0.5'"),
        ({"on": "yes"}, "`on` to be bool, but got 'yes'"),
    ],
)
def test_other_types_are_told(given, wanted):
    assert ill_typed(build, given) == [wanted]
