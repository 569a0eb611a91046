"""RAVDESS: names, splits by actor, clips written here and read back, broken clips named; features from an archive."""

import os
from pathlib import Path

import numpy as np
import pytest

from crossguard.data import load_samples
from crossguard.data.ravdess import EMOTIONS, parse_name, split_of
from files import write_clip, write_features

av = pytest.importorskip("av", reason="PyAV is not installed (extra `video`)")
pytest.importorskip("librosa", reason="librosa is not installed (extra `video`)")

SMALL = {"frames": 6, "frame_size": 16, "steps": 10, "coefficients": 8}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    root = tmp_path_factory.mktemp("ravdess")
    for stem, pitch in (
        ("01-01-06-01-02-01-12", 300.0),
        ("01-01-03-02-01-02-07", 300.0),
        ("01-01-01-01-01-01-08", 2500.0),
        ("02-01-06-01-02-01-07", 300.0),  # video alone
        ("01-02-02-01-02-01-07", 300.0),  # song
    ):
        folder = root / f"Actor_{stem[-2:]}"
        folder.mkdir(exist_ok=True)
        write_clip(folder / f"{stem}.mp4", pitch=pitch)
    return root


def test_names_are_read_and_wrong_ones_explained():
    code = parse_name("03-01-06-01-02-01-12")
    assert (code.modality, code.emotion, code.statement, code.actor) == (3, 6, 2, 12)
    assert EMOTIONS[code.label] == "fearful"
    for wrong, message in (
        ("03-01-06", "seven two-digit codes"),
        ("03-01-09-01-03-01-25", r"emotion 9 \(1..8\), statement 3 \(1..2\), actor 25"),
        ("00-01-01-01-01-01-01", "modality 0"),
    ):
        with pytest.raises(ValueError, match=message):
            parse_name(wrong)


def test_no_actor_is_in_two_splits_and_each_has_as_many_men_as_women():
    where = {actor: split_of(actor) for actor in range(1, 25)}
    for split, size in (("train", 12), ("val", 6), ("test", 6)):
        actors = [actor for actor, found in where.items() if found == split]
        assert len(actors) == size
        assert sum(actor % 2 for actor in actors) == size // 2


def test_clips_give_frames_and_sound_by_actor(clips):
    test = load_samples("ravdess", root=clips, split="test", **SMALL)
    assert test.groups.tolist() == [8, 7]  # in order of the names
    assert test.labels.tolist() == [0, 2]
    assert test.modalities["video"].shape == (2, 6, 3 * 16 * 16)
    assert test.modalities["audio"].shape == (2, 10, 8)
    brightness = test.modalities["video"].mean(axis=2)
    expected = (20 + 200 * (np.array([2, 6, 10, 14, 18, 22]) + 0.3) / 25) / 255
    np.testing.assert_allclose(brightness[0], expected, atol=0.03)
    assert len(load_samples("ravdess", root=clips, split="train", **SMALL)) == 1
    assert load_samples("ravdess", root=clips, split="test", channel="song", **SMALL).labels.tolist() == [1]
    # A high tone and a low one have different coefficients; within one tone they stay.
    middle = test.modalities["audio"][:, 3:7]
    assert np.abs(middle[0] - middle[1]).max() > 20
    assert middle.std(axis=1).max() < 10


def test_more_elements_than_there_are_repeat(clips):
    samples = load_samples("ravdess", root=clips, split="train", **{**SMALL, "frames": 60, "steps": 400})
    assert samples.modalities["video"].shape[1] == 60
    assert samples.modalities["audio"].shape[1] == 400
    assert np.isfinite(samples.modalities["audio"]).all()


def test_broken_clips_are_counted_and_named(clips, tmp_path):
    whole = (clips / "Actor_12" / "01-01-06-01-02-01-12.mp4").read_bytes()
    (tmp_path / "01-01-01-01-01-01-01.mp4").write_bytes(whole)
    (tmp_path / "01-01-02-01-01-01-01.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "01-01-03-01-01-01-01.mp4").write_bytes(b"no video")
    write_clip(tmp_path / "01-01-04-01-01-01-01.mp4", sound=False)
    with pytest.raises(ValueError, match=r"4 whole clips, but 3 could not be read") as error:
        load_samples("ravdess", root=tmp_path, split="train", **SMALL)
    for part in ("01-01-02-01-01-01-01.mp4", "01-01-03-01-01-01-01.mp4", "one of them is missing"):
        assert part in str(error.value)
    assert "01-01-01-01-01-01-01" not in str(error.value)


def test_a_clip_that_ends_early_is_truncated(tmp_path):
    """Its index, at the front, still announces all frames."""
    path = tmp_path / "01-01-01-01-01-01-01.mp4"
    write_clip(path, seconds=2.0)
    front = tmp_path / "front.mp4"
    with av.open(str(path)) as source, av.open(str(front), "w", options={"movflags": "faststart"}) as target:
        streams = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
    content = front.read_bytes()
    front.unlink()
    path.write_bytes(content[: int(len(content) * 0.6)])
    with pytest.raises(ValueError, match=r"truncated|does not decode"):
        load_samples("ravdess", root=tmp_path, split="train", **SMALL)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "tests"}, "did you mean 'test'"),
        ({"channel": "poem"}, "Unknown channel"),
        ({"frames": 0}, "`frames` to be a whole number >= 1"),
        ({"split": "val"}, "of the split 'val'"),
    ],
)
def test_wrong_options_are_refused(clips, options, message):
    with pytest.raises(ValueError, match=message):
        load_samples("ravdess", root=clips, **{**SMALL, **options})


def test_other_names_are_refused(tmp_path):
    write_clip(tmp_path / "holiday.mp4")
    with pytest.raises(ValueError, match=r"1 are not\. .*'holiday'"):
        load_samples("ravdess", root=tmp_path, split="train")


def test_features_are_elements(tmp_path):
    file = write_features(tmp_path / "f.npz")
    test = load_samples("ravdess-features", file=file)
    assert test.modalities["video_au"][0, :, 0].tolist() == [4, 5, 6, 7]
    assert (test.modalities["audio_mfcc"].shape, test.labels.tolist(), test.groups.tolist()) == ((1, 5, 1), [7], [7])
    assert len(load_samples("ravdess-features", file=file, split="all")) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"actor": np.array([1, 7])}, "of one length"),
        ({"actor": np.array([1, 8, 5])}, "1 differ, such as 01-01-08"),
        ({"clip": np.array(["a", "b", "c"])}, "seven two-digit codes"),
        ({"clip": np.array([{}, {}, {}], dtype=object)}, "Expected a NumPy archive"),
    ],
)
def test_wrong_archives_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        load_samples("ravdess-features", file=write_features(tmp_path / "f.npz", **changes))


def test_files_that_are_no_archives_are_refused(tmp_path):
    (tmp_path / "f.npz").write_bytes(b"PK no archive")
    half = write_features(tmp_path / "half.npz").read_bytes()
    (tmp_path / "half.npz").write_bytes(half[: len(half) // 2])
    for name in ("f.npz", "half.npz", "missing.npz"):
        with pytest.raises(ValueError, match="Expected a NumPy archive"):
            load_samples("ravdess-features", file=tmp_path / name)


def test_real_features():
    file = Path(os.environ.get("CROSSGUARD_DATA", "no folder")) / "ravdess_features.npz"
    if not file.is_file():
        pytest.skip("CROSSGUARD_DATA names no folder with ravdess_features.npz")
    parts = {split: load_samples("ravdess-features", file=file, split=split) for split in ("train", "val", "test")}
    assert [len(part) for part in parts.values()] == [600, 240, 240]
    assert parts["train"].modalities["audio_mfcc"].shape == (600, 259, 1)


def test_a_change_of_sound_stays_in_its_window(tmp_path):
    """A shout at one moment leaves the coefficients of far windows as they are."""
    from crossguard.data import clips

    librosa = clips._need("librosa")
    generator = np.random.default_rng(0)
    quiet = (1e-4 * generator.normal(size=16_000)).astype(np.float32)
    loud = quiet.copy()
    loud[8_000:8_100] = 1.0

    def windows(sound):
        return clips.mfcc_windows(librosa, sound, steps=20, coefficients=8)

    changed = np.abs(windows(quiet) - windows(loud)).max(axis=1) > 1e-3
    assert 1 <= changed.sum() <= 2
