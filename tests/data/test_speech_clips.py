"""CREMA-D and GRID in their own layouts, clips with sound and sound in files of its own."""

import json

import numpy as np
import pytest
from PIL import Image

import crossguard as cg
from files import real, write_clip

SIZES = {"frames": 4, "frame_size": 8, "steps": 6, "coefficients": 5}


def needs_video():
    pytest.importorskip("av")
    pytest.importorskip("librosa")


def write_sound(path, pitch):
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        tone = (8000 * np.sin(2 * np.pi * pitch * np.arange(9600) / 16_000)).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


class TestCremaD:
    @pytest.fixture
    def home(self, tmp_path):
        needs_video()
        (tmp_path / "VideoFlash").mkdir()
        (tmp_path / "AudioWAV").mkdir()
        for actor, emotion, sound in (
            (1001, "ANG", True),
            (1005, "SAD", True),
            (1005, "HAP", False),
            (1004, "NEU", True),
        ):
            stem = f"{actor}_DFA_{emotion}_XX"
            write_clip(tmp_path / "VideoFlash" / f"{stem}.mp4", seconds=0.6, sound=sound)
            write_sound(tmp_path / "AudioWAV" / f"{stem}.wav", 900.0)
        return tmp_path

    def test_actors_and_emotions(self, home):
        test = cg.load_samples("crema-d", root=home, **SIZES)
        assert [test.classes[label] for label in test.labels] == ["happy", "sad"]
        assert test.groups.tolist() == [1005, 1005]
        assert test.modalities["video"].shape == (2, 4, 3 * 64)
        assert test.modalities["audio"].shape == (2, 6, 5)
        # The sound of the silent clip is that of its own file, of another pitch than the other's.
        assert not np.allclose(test.modalities["audio"][0], test.modalities["audio"][1], atol=1)
        assert [len(cg.load_samples("crema-d", root=home, split=s, **SIZES)) for s in ("train", "val", "all")] == [
            1,
            1,
            4,
        ]

    def test_a_clip_without_any_sound(self, home):
        (home / "AudioWAV" / "1005_DFA_HAP_XX.wav").unlink()
        with pytest.raises(
            ValueError, match="2 whole clips, but 1 could not be read: 1005_DFA_HAP_XX.mp4: Expected video and sound"
        ):
            cg.load_samples("crema-d", root=home, **SIZES)

    def test_refused(self, home):
        with pytest.raises(ValueError, match="did you mean 'test'"):
            cg.load_samples("crema-d", root=home, split="tests")
        (home / "VideoFlash" / "other.mp4").write_bytes(b"")
        with pytest.raises(ValueError, match=r"1 are not: other\.mp4"):
            cg.load_samples("crema-d", root=home)
        with pytest.raises(ValueError, match="`frames` to be a whole number >= 1"):
            cg.load_samples("crema-d", root=home, frames=0)


class TestGrid:
    def test_speakers_and_words(self, tmp_path):
        needs_video()
        for speaker in ("s1", "s2"):
            (tmp_path / "video" / speaker).mkdir(parents=True)
            (tmp_path / "audio" / speaker).mkdir(parents=True)
            for number, stem in enumerate(("bbaf2n", "lgbxzp", "pwia9s", "srwd1a", "bgaf3s")):
                write_clip(tmp_path / "video" / speaker / f"{stem}.mp4", seconds=0.6, sound=False)
                write_sound(tmp_path / "audio" / speaker / f"{stem}.wav", 300.0 + 400 * number + 60 * (speaker == "s2"))
        every = cg.load_samples("grid", root=tmp_path, split="all", word="digit", **SIZES)
        assert [every.classes[label] for label in every.labels] == ["two", "three", "zero", "nine", "one"] * 2
        assert every.groups.tolist() == [1] * 5 + [2] * 5
        # Each speaker has sound of his own.
        assert not np.allclose(every.modalities["audio"][0], every.modalities["audio"][5], atol=1)
        train, test = (cg.load_samples("grid", root=tmp_path, split=s, **SIZES) for s in ("train", "test"))
        assert (len(train), test.groups.tolist()) == (8, [1, 2])
        with pytest.raises(ValueError, match="did you mean 'colour'"):
            cg.load_samples("grid", root=tmp_path, word="color")

    @pytest.fixture
    def cut(self, tmp_path):
        ids = ["bbaf2n", "lgbxzp", "pwia9s", "srwd1a", "bgaf3s"]
        (tmp_path / "video").mkdir()
        generator = np.random.default_rng(0)
        for name in ids:
            strip = np.repeat(np.arange(4) * 60, 6)[None].repeat(4, 0).astype(np.uint8)
            Image.fromarray(strip).save(tmp_path / "video" / f"{name}.jpg", quality=100)
        np.savez(
            tmp_path / "audio_logmel.npz", logmel=generator.normal(size=(5, 7, 3)).astype(np.float16), ids=np.array(ids)
        )
        (tmp_path / "labels.json").write_text(json.dumps([{"id": name} for name in ids]))
        return tmp_path

    def test_what_was_cut_from_clips(self, cut):
        samples = cg.load_samples("grid", root=cut, split="all", word="colour")
        assert [samples.classes[label] for label in samples.labels] == ["blue", "green", "white", "red", "green"]
        assert samples.modalities["video"].shape == (5, 4, 24)
        assert np.allclose(samples.modalities["video"].mean(2) * 255, [0, 60, 120, 180], atol=2)
        assert samples.modalities["audio"].dtype == np.float32
        (cut / "video" / "bbaf2n.jpg").unlink()
        with pytest.raises(ValueError, match="those of 1 are missing: bbaf2n"):
            cg.load_samples("grid", root=cut)

    def test_real_clips(self):
        root = real("grid_av")
        parts = {
            split: cg.load_samples("grid", root=root, split=split, word="digit") for split in ("train", "val", "test")
        }
        assert [len(part) for part in parts.values()] == [560, 80, 160]
        told = {row["id"]: row["words"][4][2] for row in json.loads((root / "labels.json").read_text())}
        every = cg.load_samples("grid", root=root, split="all", word="digit")
        assert [every.classes[label] for label in every.labels] == list(told.values())
        assert every.modalities["video"].shape == (800, 38, 32 * 48)
        assert np.bincount(parts["test"].labels, minlength=10).min() > 0
