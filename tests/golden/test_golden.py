"""Every task under every attack gives the rows that are stored, so that nothing changes unseen.

Where a change is meant, run `python tools/golden.py` and look at what differs in tests/golden/rows.json before it is
committed.
"""

import copy

import numpy as np
import pytest
from golden_cases import CAPTION_ATTACKS, QUICK, cases
from golden_data import Golden
from golden_file import differences, read

from crossguard.attacks import ATTACKS
from crossguard.attacks.pgd import GradientAttack

NAMES = list(cases(None))
pytestmark = pytest.mark.usefixtures("unchecked")  # other tests call all this with types checked


@pytest.fixture(scope="session")
def golden(tmp_path_factory):
    return Golden(tmp_path_factory.mktemp("golden"))


@pytest.fixture(scope="session")
def stored():
    return read()


def test_every_attack_and_no_other_case_is_stored(stored):
    assert set(QUICK) == set(ATTACKS) - {"saved"}
    assert set(CAPTION_ATTACKS) == {name for name, row in ATTACKS.items() if issubclass(row.build, GradientAttack)}
    assert list(stored) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_those_stored(golden, stored, name):
    if name.startswith("captioning"):
        pytest.importorskip("pycocoevalcap.bleu.bleu_scorer", reason="pycocoevalcap is not installed")
    found = differences(stored[name], cases(golden)[name]())
    told = "\n".join(found[:10])
    assert not found, f"{len(found)} differences; if they are meant, run `python tools/golden.py`:\n{told}"


def test_any_difference_is_seen(stored):
    """One rank, word, loss or row that is another one, and pictures of another seed."""
    rows = stored["retrieval: sga"]
    assert differences(rows, copy.deepcopy(rows)) == []
    for key in ("robust_rank", "adversarial_tokens", "words"):
        other = copy.deepcopy(rows)
        row = next(row for row in other if row.get(key) is not None)
        row[key] = [row[key][0] + 1, *row[key][1:]] if isinstance(row[key], list) else row[key] + 1
        (said,) = differences(rows, other)
        assert f"[{key!r}]" in said
    assert differences(rows, rows[:-1])
    losses = stored["captioning: pgd, references"]
    other = copy.deepcopy(losses)
    other[0]["robust_loss"] *= 1.001
    assert len(differences(losses, other)) == 1
    other = copy.deepcopy(rows)
    for row in other:
        if "change" in row:
            np.random.default_rng(0).shuffle(row["change"].steps)
    (said,) = differences(rows, other)
    assert "values that the attack changed differ" in said
