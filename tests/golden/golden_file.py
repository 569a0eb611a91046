"""The stored rows: how they are written, read, and held against others."""

import base64
import json
import math
import reprlib
import zlib
from pathlib import Path

import numpy as np
from golden_tasks import Change

FILE = Path(__file__).with_name("rows.json")
FEW = 0.05
"""The share of a case's changed values that may differ: where a gradient is nearly zero, its sign is the processor's."""
CLOSE = 2e-4
"""Relative difference of numbers that are not whole, and the absolute one of those near 0."""


def write(found):
    """Write rows by case, one case a line."""
    lines = [f"{json.dumps(name)}: {json.dumps(rows, default=_pack, separators=(',', ':'))}" for name, rows in found]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def read():
    """Return the stored rows by case."""
    return json.loads(FILE.read_text(encoding="utf-8"), object_hook=_unpack)


def differences(stored, found):
    """Return where rows differ from the stored ones, in words; nothing where they do not."""
    said, steps = [], []
    _compare(stored, found, "rows", said, steps)
    if steps:
        here, there = (np.concatenate([pair[side].steps for pair in steps]) for side in (0, 1))
        share = float((here != there).mean())
        if share > FEW:
            said.append(f"{100 * share:.0f} % of the values that the attack changed differ")
    return said


def _compare(stored, found, where, said, steps):
    if isinstance(stored, Change) and isinstance(found, Change) and len(stored.steps) == len(found.steps):
        steps.append((stored, found))
    elif isinstance(stored, dict) and isinstance(found, dict) and stored.keys() == found.keys():
        for key in stored:
            _compare(stored[key], found[key], f"{where}[{key!r}]", said, steps)
    elif isinstance(stored, list) and isinstance(found, list | tuple) and len(stored) == len(found):
        for place, pair in enumerate(zip(stored, found, strict=True)):
            _compare(*pair, f"{where}[{place}]", said, steps)
    elif isinstance(stored, float) and isinstance(found, float):
        if not math.isclose(stored, found, rel_tol=CLOSE, abs_tol=CLOSE):
            said.append(f"{where}: {stored} was stored, and {found} is found")
    elif type(stored) is not type(found) or isinstance(stored, dict | list | Change) or stored != found:
        said.append(f"{where}: {reprlib.repr(stored)} was stored, and {reprlib.repr(found)} is found")


def _pack(value):
    if isinstance(value, Change):
        packed = zlib.compress(value.steps.astype("<i2").tobytes(), 9)
        return {"steps": base64.b64encode(packed).decode()}
    raise TypeError(f"Expected plain values and changes, but got {type(value).__name__}.")


def _unpack(value):
    if value.keys() != {"steps"}:
        return value
    return Change(np.frombuffer(zlib.decompress(base64.b64decode(value["steps"])), "<i2").astype(int))
