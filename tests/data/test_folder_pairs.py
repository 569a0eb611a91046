"""Image folders with metadata, and parquet files: the right split, every row accounted for."""

import io
import json

import numpy as np
import pytest
from PIL import Image

import crossguard as cg


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSGUARD_CACHE", str(tmp_path / "cache"))


def picture(seed):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8))


def png(seed):
    file = io.BytesIO()
    picture(seed).save(file, "PNG")
    return file.getvalue()


def linked(pairs):
    return {(pairs.images[i].key, pairs.texts[j]) for i, j in pairs.links}


class TestFolder:
    @pytest.fixture
    def home(self, tmp_path):
        root = tmp_path / "birds"
        for number, split in enumerate(("train", "validation")):
            (root / split).mkdir(parents=True)
            picture(number).save(root / split / "a.png")
            (root / split / "metadata.jsonl").write_text(
                json.dumps({"file_name": "a.png", "text": f"text {number}"}) + "\n"
            )
        return root

    def test_splits(self, home):
        pairs = cg.load_pairs("folder", root=home, split="val")
        assert (linked(pairs), pairs.split, pairs.name) == ({("a.png", "text 1")}, "val", "birds")
        assert cg.load_pairs("folder", root=home, split="train").texts == ("text 0",)
        with pytest.raises(ValueError, match=r"its folder of split 'test', but got train, val\."):
            cg.load_pairs("folder", root=home)

    def test_a_table(self, home):
        (home / "train" / "metadata.jsonl").unlink()
        (home / "train" / "metadata.csv").write_text('file_name,said\na.png,"one, two"\n')
        assert linked(cg.load_pairs("folder", root=home / "train", caption_key="said")) == {("a.png", "one, two")}
        (home / "train" / "metadata.jsonl").write_text("{}\n")
        with pytest.raises(ValueError, match=r"one of metadata\.jsonl, metadata\.csv in .*, but got all"):
            cg.load_pairs("folder", root=home / "train")

    def test_parquet(self, home):
        pandas = pytest.importorskip("pandas")
        pytest.importorskip("pyarrow")
        (home / "train" / "metadata.jsonl").unlink()
        rows = {"file_name": ["a.png", "a.png"], "text": ["one", "two"], "split": ["train", "test"]}
        pandas.DataFrame(rows).to_parquet(home / "train" / "metadata.parquet")
        pairs = cg.load_pairs("folder", root=home, split="train")
        assert (linked(pairs), pairs.split, pairs.name) == ({("a.png", "one")}, "train", "birds")

    def test_paths_that_lead_out(self, home):
        (home / "train" / "metadata.jsonl").write_text(json.dumps({"file_name": "../validation/a.png", "text": "x"}))
        with pytest.raises(ValueError, match="1 paths lead out of it"):
            cg.load_pairs("folder", root=home, split="train")
        assert len(cg.load_pairs("folder", root=home, split="train", outside_root=True).images) == 1

    def test_refused(self, tmp_path):
        with pytest.raises(ValueError, match="folder of images at `root`"):
            cg.load_pairs("folder", root=tmp_path / "none")
        with pytest.raises(ValueError, match=r"metadata\.jsonl, metadata\.csv, metadata\.parquet in .* but got none"):
            cg.load_pairs("folder", root=tmp_path)


class TestParquet:
    @pytest.fixture
    def write(self, tmp_path):
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")

        def write(name, rows):
            path = tmp_path / "data" / name
            path.parent.mkdir(exist_ok=True)
            parquet.write_table(pyarrow.Table.from_pylist(rows), path)
            return path

        return write

    def test_the_hubs_layout(self, write):
        """As `nlphuji/flickr30k`: pictures inside, lists of captions, a column of splits."""
        rows = [
            {"image": {"bytes": png(n), "path": f"{n}.jpg"}, "caption": [f"a {n}", f"b {n}"], "split": split}
            for n, split in enumerate(("train", "test", "test"))
        ]
        path = write("flickr.parquet", rows)
        pairs = cg.load_pairs("parquet", files=path, split="test")
        assert pairs.texts == ("a 1", "b 1", "a 2", "b 2")
        assert [picture.read() for picture in pairs.images] == [png(1), png(2)]
        assert pairs.notes[0].startswith("2 of 3 rows")
        with pytest.raises(ValueError, match=r"rows of one split, but got \['test', 'train'\]: choose one"):
            cg.load_pairs("parquet", files=path)
        with pytest.raises(ValueError, match=r"splits are \['test', 'train'\]"):
            cg.load_pairs("parquet", files=path, split="val")

    def test_files_that_tell_their_split(self, write):
        for n, name in enumerate(
            ("train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "test-00000-of-00001.parquet")
        ):
            path = write(name, [{"img": png(n), "text": f"text {n}"}])
        assert cg.load_pairs("parquet", files=path.parent).texts == ("text 2",)
        train = cg.load_pairs("parquet", files=path.parent, split="train")
        assert (train.texts, train.split, train.name) == (("text 0", "text 1"), "train", "data")
        with pytest.raises(ValueError, match=r"of split 'val', but got those of \['test', 'train'\]"):
            cg.load_pairs("parquet", files=path.parent, split="val")

    def test_paths(self, write, tmp_path):
        picture(0).save(tmp_path / "a.png")
        path = write("mine.parquet", [{"image": "a.png", "caption": "x", "number": 4}])
        assert linked(cg.load_pairs("parquet", files=path, root=tmp_path)) == {("a.png", "x")}
        other = write("other.parquet", [{"image": "a.png", "words of": "x"}])
        with pytest.raises(ValueError, match="Expected a column 'words', but got 'image', 'words of'"):
            cg.load_pairs("parquet", files=other, text="words", root=tmp_path)

    def test_no_parquet(self, tmp_path):
        pytest.importorskip("pyarrow")
        (tmp_path / "x.parquet").write_text("<html>")
        with pytest.raises(ValueError, match=r"a parquet file of pictures at .*x\.parquet"):
            cg.load_pairs("parquet", files=tmp_path / "x.parquet")
        with pytest.raises(ValueError, match="1 of 1 are missing"):
            cg.load_pairs("parquet", files=tmp_path / "none.parquet")
