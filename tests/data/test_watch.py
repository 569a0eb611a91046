"""The watch data: shapes, splits without leakage, and no pickle opened but the one that is known."""

import subprocess
import sys

import numpy as np
import pytest

from crossguard.data import load_samples, watch
from crossguard.data.watch import CLASSES, PEOPLE, load_watch


@pytest.fixture(scope="module")
def splits():
    return {split: load_watch(split=split) for split in ("train", "val", "test")}


def test_windows_have_the_documented_form(splits):
    for split, samples in splits.items():
        assert tuple(samples.modalities) == ("accelerometer", "gyroscope")
        for values in samples.modalities.values():
            assert values.shape == (len(samples), 128, 3)
            assert values.dtype == np.float32
        assert samples.classes == CLASSES
        assert set(samples.labels.tolist()) == set(range(7))
        assert (samples.name, samples.split) == ("watch", split)
        whole = [len(signal) // 128 for signal, _, person in watch._recordings() if person in PEOPLE[split]]
        assert len(samples) == sum(whole) > 300
    # At rest a watch feels 1 g: the units are what they are said to be.
    still = np.linalg.norm(splits["train"].modalities["accelerometer"], axis=-1)
    assert np.median(still) == pytest.approx(1.0, abs=0.1)


def test_no_person_and_no_window_is_in_two_splits(splits):
    people = {split: set(samples.groups.tolist()) for split, samples in splits.items()}
    assert people == {split: set(PEOPLE[split]) for split in PEOPLE}
    assert set.union(*people.values()) == set(range(1, 11))
    seen = {}
    for split, samples in splits.items():
        seen[split] = {row.tobytes() for row in samples.modalities["accelerometer"]}
        assert len(seen[split]) == len(samples)
    assert not seen["train"] & seen["val"]
    assert not seen["train"] & seen["test"]
    assert not seen["val"] & seen["test"]


def test_windows_are_cut_from_the_recordings_in_order():
    signal, label, person = watch._recordings()[1]
    assert person in PEOPLE["test"]
    first = load_watch(split="test", window=50, stride=20)
    rows = (len(signal) - 50) // 20 + 1
    for i in (0, 1, rows - 1):
        both = np.concatenate([first.modalities["accelerometer"][i], first.modalities["gyroscope"][i]], axis=1)
        assert (both == signal[20 * i : 20 * i + 50].astype(np.float32)).all()
        assert (first.labels[i], first.groups[i]) == (label, person)
    assert len(load_samples("watch", split="val", window=128)) == 305


def test_another_file_is_not_unpickled(tmp_path, monkeypatch):
    other = tmp_path / "watch_dataset.npy"
    monkeypatch.setattr(watch, "_data_file", lambda: other)
    watch._recordings.cache_clear()
    with pytest.raises(ValueError, match="could not be read"):
        load_watch()

    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was opened",))

    np.save(other, np.array(Trap(), dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="no other file is opened"):
        load_watch()
    watch._recordings.cache_clear()


def test_a_missing_package_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(watch, "find_spec", lambda _: None)
    watch._recordings.cache_clear()
    with pytest.raises(ModuleNotFoundError, match=r"crossguard's extra 'demo'"):
        load_watch()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "tests"}, "did you mean 'test'"),
        ({"window": 0}, "window"),
        ({"window": 1.5}, "window"),
        ({"stride": 0}, "stride"),
        ({"window": 9999}, "longest recording"),
    ],
)
def test_wrong_arguments_are_refused(unchecked, changes, message):
    with pytest.raises(ValueError, match=message):
        load_watch(**changes)


def test_the_package_itself_is_not_imported():
    code = "import sys; from crossguard.data.watch import load_watch; load_watch(); assert 'sklearn' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
