"""The whole of `augment`: originals first, every true link, resuming, filtering, loading."""

import json
import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn.functional import normalize

from crossguard.augment import (
    AUGMENTATIONS,
    Made,
    PixelSource,
    augment,
    frechet_distance,
    load_augmented,
    make_augmentation,
    read_manifest,
    read_measures,
    thin,
)
from crossguard.augment.links import place
from crossguard.augment.offline import VERSION
from crossguard.augment.samples import Sample
from crossguard.data import OneToManyPairs, Picture
from crossguard.models import cosine
from shared import make_clip

pytest_plugins = ("augment_models",)

MODEL_BACKED = {"rewrite", "captioner", "img2img", "text2img"}
PLAIN = sorted(AUGMENTATIONS.keys() - MODEL_BACKED)


@pytest.fixture
def build(request):
    """Builds every source of the table, model-backed ones on tiny models."""

    def make(name):
        options = {}
        if name == "rewrite":
            options = {"model": str(request.getfixturevalue("language_model_folder")), "max_new_tokens": 5}
        elif name == "captioner":
            options = {"model": str(request.getfixturevalue("blip_folder")), "max_new_tokens": 5}
        elif name in ("img2img", "text2img"):
            options = {"model": str(request.getfixturevalue("diffusion_folder")), "steps": 2}
        return make_augmentation({"name": name, "options": options})

    return make


def as_sets(pairs):
    """Links by key and text, so that the order plays no part."""
    return {(pairs.images[i].key, pairs.texts[j]) for i, j in pairs.links}


def check_originals(pairs, augmented):
    assert augmented.images[: len(pairs.images)] == pairs.images
    assert augmented.texts[: len(pairs.texts)] == pairs.texts
    before = augmented.originals()
    assert np.array_equal(before.links, pairs.links)
    assert (before.name, before.split, before.text_kinds) == (pairs.name, pairs.split, pairs.text_kinds)


@pytest.mark.parametrize("name", AUGMENTATIONS)
class TestEverySource:
    def test_what_it_makes(self, build, toy_pairs, tmp_path, name):
        row, source = AUGMENTATIONS[name], build(name)
        assert source.name == name
        part = toy_pairs.head(6)
        if name.startswith("own-"):
            part = thin(part, texts_per_image=1, images_per_text=1, seed=0)
        augmented = augment(part, sources=[source], per_sample=2, folder=tmp_path / "a", pool=toy_pairs)
        check_originals(part, augmented)
        new_texts = augmented.text_kinds[augmented.original_texts :]
        new_styles = [picture.style for picture in augmented.images[augmented.original_images :]]
        assert set(new_texts) <= {name}
        assert set(new_styles) <= {name}
        assert bool(new_texts) == (row.gives == "texts")
        assert bool(new_styles) == (row.gives == "images")
        [measured] = read_measures(tmp_path / "a")
        assert (measured.source, measured.gives) == (name, row.gives)
        assert measured.added == len(new_texts) + len(new_styles)
        assert all(text.strip() for text in augmented.texts)
        assert augmented.image(len(augmented.images) - 1).mode == "RGB"

    def test_seed_batch_size_and_number_of_samples(self, build, toy_pairs, tmp_path, name):
        source, part = build(name), toy_pairs.head(4)

        def made(folder, **options):
            augment(part, sources=[source], folder=tmp_path / folder, pool=toy_pairs, **options)
            rows = read_manifest(tmp_path / folder)
            return {
                (row["item"], row["draw"]): row.get("text")
                or np.asarray(Picture("", _file(tmp_path / folder, row, toy_pairs)).load()).astype(int)
                for row in rows
            }

        a = made("a", per_sample=3, batch_size=5)
        b = made("b", per_sample=3, batch_size=2)
        assert a.keys() == b.keys()
        assert all(_near(a[key], b[key]) for key in a)
        fewer = made("c", per_sample=2, batch_size=64)
        assert all(_near(fewer[key], a[key]) for key in fewer if name not in ("rewrite", "captioner"))
        other = made("d", per_sample=3, batch_size=5, seed=1)
        assert a.keys() != other.keys() or not all(_near(a[key], other[key]) for key in a)


def _file(folder, row, pool):
    own = [p for p in load_augmented(folder).images if p.key == row["key"]]
    return own[0].path if own else next(p.path for p in pool.images if p.key == row["key"])


def _near(a, b):
    """Equal texts; pictures up to a grey level where a model drew them (matrix products of other sizes round)."""
    return a == b if isinstance(a, str) else a.shape == b.shape and np.abs(a - b).max() <= 1


class TestLinks:
    def test_by_hand(self, tmp_path):
        pictures = tuple(Picture(key, tmp_path / key) for key in "abc")
        pairs = OneToManyPairs("toy", "train", pictures, ("t0", "t1", "t2"), np.array([[0, 0], [0, 1], [1, 1], [2, 2]]))
        samples = [
            Sample("eda", 1, 0, (), (1,), text="t1'"),  # a paraphrase of t1: true of a and b and what shows them
            Sample("captioner", 0, 0, (0,), (), text="of a"),  # true of a and its variations
            Sample("crops", 0, 0, (0,), (), picture=Picture("a'", tmp_path / "x", "crops")),  # all that is true of a
            Sample("text2img", 1, 0, (), (1,), picture=Picture("t1*", tmp_path / "y", "text2img")),  # t1, paraphrases
            Sample("eda", 2, 0, (), (2,), text="t0"),  # an original: adds nothing
            Sample("rewrite", 2, 0, (), (2,), text="t1'"),  # made before: now also true of c
        ]
        placed = place(pairs, samples, name="more")
        assert placed.index.tolist() == [3, 4, 3, 4, 0, 3]
        assert placed.pairs.text_kinds == ("original",) * 3 + ("eda", "captioner")
        assert as_sets(placed.pairs) - as_sets(pairs) == {
            *((key, "t1'") for key in ("a", "b", "c", "a'", "t1*")),
            *((key, "of a") for key in ("a", "a'")),
            ("a'", "t0"),
            ("a'", "t1"),
            ("t1*", "t1"),
        }
        assert as_sets(pairs) <= as_sets(placed.pairs)
        check_originals(
            OneToManyPairs("toy", "train", pictures, pairs.texts, pairs.links, ("original",) * 3), placed.pairs
        )

    @settings(deadline=None, max_examples=40)
    @given(data=st.data())
    def test_against_the_definition_one_pair_at_a_time(self, data):
        n_images, n_texts = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5))
        true = {(i, i % n_texts) for i in range(n_images)} | {(j % n_images, j) for j in range(n_texts)}
        true |= data.draw(st.sets(st.tuples(st.integers(0, n_images - 1), st.integers(0, n_texts - 1))))
        pairs = OneToManyPairs(
            "p",
            "train",
            tuple(Picture(f"i{i}", Path(f"i{i}.png")) for i in range(n_images)),
            tuple(f"t{j}" for j in range(n_texts)),
            np.array(sorted(true)),
        )
        parents = st.tuples(
            st.frozensets(st.integers(0, n_images - 1), max_size=2),
            st.frozensets(st.integers(0, n_texts - 1), max_size=2),
        ).filter(any)
        samples = []
        for n in range(data.draw(st.integers(0, 6))):
            images, texts = map(tuple, data.draw(parents))
            if data.draw(st.booleans()):
                samples.append(Sample("s", 0, n, images, texts, text=f"new{data.draw(st.integers(0, 2))}"))
            else:
                samples.append(Sample("s", 0, n, images, texts, picture=Picture(f"new{n}", Path("n.png"), "s")))
        of_pairs = {(f"i{i}", f"t{j}") for i in range(n_images) for j in range(n_texts)}
        of = {f"i{i}": ({i}, set()) for i in range(n_images)} | {f"t{j}": (set(), {j}) for j in range(n_texts)}
        pictures = {f"i{i}": ({i}, set()) for i in range(n_images)}
        texts = {f"t{j}": (set(), {j}) for j in range(n_texts)}
        for sample in samples:
            table = pictures if sample.picture else texts
            own = table.setdefault(sample.picture.key if sample.picture else sample.text, (set(), set()))
            own[0].update(sample.images)
            own[1].update(sample.texts)
        expected = {
            (key, text)
            for key, (p_images, p_texts) in pictures.items()
            for text, (t_images, t_texts) in texts.items()
            if p_images & t_images or p_texts & t_texts or any((i, j) in true for i in p_images for j in t_texts)
        }
        assert as_sets(place(pairs, samples, name="x").pairs) == expected
        # What the data hold besides is true as the data say, except among originals, which stay as they are.
        keys, words = sorted(pictures.keys() | {"other"}), sorted(texts.keys() | {"else"})
        known = data.draw(st.sets(st.tuples(st.sampled_from(keys), st.sampled_from(words))))
        known |= {(keys[n % len(keys)], words[n % len(words)]) for n in range(max(len(keys), len(words)))}
        pool = OneToManyPairs(
            "pool",
            "train",
            tuple(Picture(key, Path("n.png")) for key in keys),
            tuple(words),
            np.array([(keys.index(key), words.index(text)) for key, text in sorted(known)]),
        )
        here = {(key, text) for key, text in known if key in pictures and text in texts and (key, text) not in of_pairs}
        assert as_sets(place(pairs, samples, name="x", pool=pool).pairs) == expected | here
        assert of.keys() == {p.key for p in pairs.images} | set(pairs.texts)


class TestMeasuring:
    def test_alignment_and_filter(self, toy_pairs, tmp_path):
        model = make_clip()
        options = {"sources": ["eda", "crops", "shuffled"], "per_sample": 2, "model": model}
        everything = augment(toy_pairs, **options, folder=tmp_path / "a")
        rows = read_manifest(tmp_path / "a")
        with torch.no_grad():
            for row in [r for r in rows if r["outcome"] == "added"][::17]:
                if row["gives"] == "texts":
                    images = row["images"] or [int(i) for j in row["texts"] for i in toy_pairs.images_of(j)]
                    pixels = model.preprocess([toy_pairs.image(i) for i in images])
                    expected = cosine(model.encode_image(pixels), model.encode_text([row["text"]])).mean()
                else:
                    texts = [toy_pairs.texts[int(j)] for i in row["images"] for j in toy_pairs.texts_of(i)]
                    pixels = model.preprocess([everything.image(row["index"])])
                    expected = cosine(model.encode_image(pixels), model.encode_text(texts)).mean()
                assert row["alignment"] == pytest.approx(float(expected), abs=1e-5)
        threshold = float(np.median([row["alignment"] for row in rows]))
        fewer = augment(toy_pairs, **options, folder=tmp_path / "a", min_alignment=threshold)
        kept = read_manifest(tmp_path / "a")
        assert {(r["source"], r["item"], r["draw"]) for r in kept if r["outcome"] != "filtered"} == {
            (r["source"], r["item"], r["draw"]) for r in rows if r["alignment"] >= threshold
        }
        assert len(fewer.texts) + len(fewer.images) < len(everything.texts) + len(everything.images)
        check_originals(toy_pairs, fewer)
        measured = {row.source: row for row in read_measures(tmp_path / "a") if row.source != "originals"}
        assert measured["eda"].filtered == sum(r["outcome"] == "filtered" for r in kept if r["source"] == "eda") > 0

    def test_measures_of_every_source_and_of_the_originals(self, toy_pairs, tmp_path):
        model, sources = make_clip(), ["eda", "distorted"]
        augmented = augment(toy_pairs, sources=sources, per_sample=2, model=model, folder=tmp_path / "a")
        rows = read_measures(tmp_path / "a")
        assert [row.source for row in rows] == ["originals", "originals", "eda", "distorted"]
        assert all(-1 <= row.alignment <= 1 and 0 <= row.diversity <= 2 and row.gap >= 0 for row in rows)
        with torch.no_grad():
            clean, distorted = (
                normalize(model.encode_image(model.preprocess([augmented.image(i) for i in ids])), dim=1).double()
                for ids in (range(24), range(24, 72))
            )
        assert rows[3].gap == pytest.approx(frechet_distance(distorted.numpy(), clean.numpy()), rel=1e-3)
        spread = 1 - (distorted[0::2] * distorted[1::2]).sum(dim=1).mean()
        assert rows[3].diversity == pytest.approx(float(spread), abs=1e-5)

    def test_the_model_is_left_as_it_was(self, toy_pairs, tmp_path):
        model = make_clip().train()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        augment(toy_pairs.head(3), sources=["eda"], model=model, folder=tmp_path / "a")
        assert model.training
        assert all(p.requires_grad for p in model.parameters())
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Breaking:
    """Variations that fail when they come to a certain item, and count what they made."""

    name, per, block, options = "breaking", "images", 2, {}

    def __init__(self, at=None):
        self.at, self.made = at, []

    def make_images(self, pairs, items, request):
        if self.at in items:
            raise RuntimeError("out of memory")
        self.made += items
        return [[Made(pairs.image(i).rotate(90 * k), images=(i,)) for k in range(request.count)] for i in items]


class TestResuming:
    def test_a_crash_in_the_middle_loses_nothing_and_repeats_nothing(self, toy_pairs, tmp_path):
        folder, part = tmp_path / "a", toy_pairs.head(9)
        first, second = Breaking(at=5), Breaking()
        with pytest.raises(RuntimeError, match="out of memory"):
            augment(part, sources=[first], per_sample=2, folder=folder)
        with pytest.raises(ValueError, match="finished augmentation"):
            load_augmented(folder)
        resumed = augment(part, sources=[second], per_sample=2, folder=folder)
        assert (first.made, second.made) == ([0, 1, 2, 3], [4, 5, 6, 7, 8])
        whole = augment(part, sources=[Breaking()], per_sample=2, folder=tmp_path / "b")
        assert as_sets(resumed) == as_sets(whole)
        assert len(resumed.images) == 27
        for i in range(27):
            assert resumed.image(i).tobytes() == whole.image(i).tobytes()

    def test_a_finished_run_is_loaded_and_not_made_again(self, toy_pairs, tmp_path):
        model, again = make_clip(), Breaking()
        first = augment(toy_pairs, sources=[Breaking()], folder=tmp_path / "a", model=model)
        stamp = (tmp_path / "a" / "manifest.jsonl").stat().st_mtime_ns
        second = augment(toy_pairs, sources=[again], folder=tmp_path / "a", model=model)
        assert again.made == []
        assert (tmp_path / "a" / "manifest.jsonl").stat().st_mtime_ns == stamp
        assert as_sets(first) == as_sets(second)

    def test_a_damaged_block_is_made_again(self, toy_pairs, tmp_path):
        source, again = Breaking(), Breaking()
        whole = augment(toy_pairs.head(6), sources=[source], per_sample=2, folder=tmp_path / "a")
        file = whole.images[-1].path
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])
        augment(toy_pairs.head(6), sources=[again], per_sample=2, folder=tmp_path / "a")
        assert again.made == [4, 5]
        assert file.read_bytes() == content

    def test_a_full_disk_leaves_whole_blocks_only(self, toy_pairs, tmp_path, monkeypatch):
        folder, saved = tmp_path / "a", []
        save = Image.Image.save

        def full(self, path, *args, **kwargs):
            if len(saved) == 7:
                raise OSError(28, "No space left on device")
            saved.append(path)
            save(self, path, *args, **kwargs)

        monkeypatch.setattr(Image.Image, "save", full)
        with pytest.raises(OSError, match="No space"):
            augment(toy_pairs.head(6), sources=[Breaking()], per_sample=2, folder=folder)
        assert [p.name for p in (folder / "blocks" / "breaking").iterdir()] == ["0000000-0000001"]
        monkeypatch.undo()
        augmented = augment(toy_pairs.head(6), sources=[Breaking()], per_sample=2, folder=folder)
        assert all(picture.load() for picture in augmented.images)

    @pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
    def test_a_killed_process_is_taken_up(self, toy_pairs, tmp_path, monkeypatch):
        part = toy_pairs.head(8)
        save, saved = Image.Image.save, []

        def killed(self, path, *args, **kwargs):
            saved.append(path)
            if len(saved) == 9:
                path.write_bytes(b"half a picture")
                os.kill(os.getpid(), signal.SIGKILL)
            save(self, path, *args, **kwargs)

        def work():
            Image.Image.save, PixelSource.block = killed, 2
            augment(part, sources=["crops"], per_sample=2, folder=tmp_path / "a")

        process = multiprocessing.get_context("fork").Process(target=work)
        process.start()
        process.join(120)
        assert process.exitcode == -signal.SIGKILL
        left = [p.name for p in (tmp_path / "a" / "blocks" / "crops").iterdir()]
        assert {name for name in left if not name.startswith(".")} == {"0000000-0000001", "0000002-0000003"}
        monkeypatch.setattr(PixelSource, "block", 2)
        stamps = [p.stat().st_mtime_ns for p in sorted((tmp_path / "a/blocks/crops").glob("0*/*.png"))]
        resumed = augment(part, sources=["crops"], per_sample=2, folder=tmp_path / "a")
        assert [p.stat().st_mtime_ns for p in sorted((tmp_path / "a/blocks/crops").glob("0*/*.png"))][:8] == stamps
        monkeypatch.setattr(PixelSource, "block", 64)
        whole = augment(part, sources=["crops"], per_sample=2, folder=tmp_path / "b")
        assert [resumed.image(i).tobytes() for i in range(24)] == [whole.image(i).tobytes() for i in range(24)]
        assert not list((tmp_path / "a").rglob("*.partial"))


class TestFolders:
    def test_other_settings_are_refused_and_named(self, toy_pairs, tmp_path):
        augment(toy_pairs, sources=["eda"], folder=tmp_path / "a")
        with pytest.raises(ValueError, match="`per_sample` is 4 there and 5 now"):
            augment(toy_pairs, sources=["eda"], per_sample=5, folder=tmp_path / "a")
        with pytest.raises(ValueError, match=r"`pairs\.fingerprint`"):
            augment(toy_pairs.head(5), sources=["eda"], folder=tmp_path / "a")

    def test_the_default_folder_belongs_to_the_settings(self, toy_pairs, tmp_path, monkeypatch):
        monkeypatch.setenv("CROSSGUARD_CACHE", str(tmp_path))
        a = augment(toy_pairs, sources=["eda"])
        b = augment(toy_pairs, sources=["eda"], seed=1)
        assert a.folder.parent == b.folder.parent == (tmp_path / f"augmented-v{VERSION}").resolve()
        assert a.folder != b.folder
        assert augment(toy_pairs, sources=["eda"]).folder == a.folder

    def test_a_moved_folder_can_be_loaded(self, toy_pairs, tmp_path):
        first = augment(toy_pairs.head(4), sources=["crops", "eda"], folder=tmp_path / "a")
        (tmp_path / "a").rename(tmp_path / "b")
        second = load_augmented(tmp_path / "b", split="test")
        assert as_sets(first) == as_sets(second)
        assert second.image(7).tobytes()
        assert second.name == "toy+crops+eda"
        assert second.images[5].path.is_relative_to(tmp_path / "b")

    def test_broken_files_are_named(self, toy_pairs, tmp_path):
        augmented = augment(toy_pairs.head(4), sources=["crops"], folder=tmp_path / "a")
        with pytest.raises(ValueError, match="split 'train'"):
            load_augmented(tmp_path / "a", split="train")
        content = (tmp_path / "a/pairs/pairs.json").read_text()
        augmented.images[-1].path.unlink()
        with pytest.raises(ValueError, match="1 are missing"):
            load_augmented(tmp_path / "a")
        (tmp_path / "a/pairs/pairs.json").write_text(content.replace('"schema": 1', '"schema": 99'))
        with pytest.raises(ValueError, match="schema 1 or older"):
            load_augmented(tmp_path / "a")
        (tmp_path / "a/pairs/pairs.json").write_text("{" + content[5:])
        with pytest.raises(ValueError, match="pairs of an augmentation"):
            load_augmented(tmp_path / "a")
        (tmp_path / "a/pairs/pairs.json").write_text(content)
        (tmp_path / "a/pairs/links.npy").write_bytes(b"\x93NUMPY")
        with pytest.raises(ValueError, match="pairs of an augmentation"):
            load_augmented(tmp_path / "a")

    def test_run_json_tells_the_settings(self, toy_pairs, tmp_path):
        augment(toy_pairs, sources=[{"name": "eda", "options": {"alpha": 0.3}}], seed=7, folder=tmp_path / "a")
        run = json.loads((tmp_path / "a/run.json").read_text())
        assert run["seed"] == 7
        assert run["settings"]["sources"] == {
            "eda": {"alpha": 0.3, "edits": ["replace", "insert", "swap", "delete"], "broader": "never"}
        }
        assert run["finished"]


class Blank:
    name, per, block, options = "blank", "texts", 8, {}

    def make_texts(self, pairs, items, request):
        return [[Made(" ", texts=(item,))] for item in items]


class TooMany(Blank):
    def make_texts(self, pairs, items, request):
        return [[Made(f"{item} {k}", texts=(item,)) for k in range(request.count + 1)] for item in items]


class Elsewhere(Blank):
    def make_texts(self, pairs, items, request):
        return [[Made(f"new {item}", texts=(10_000,))] for item in items]


class TestBadInput:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"sources": []}, "at least one of `sources`"),
            ({"sources": ["edda"]}, "did you mean 'eda'"),
            ({"sources": ["eda", "eda"]}, "every source once"),
            ({"sources": ["eda"], "per_sample": 0}, "`per_sample` to be a whole number >= 1"),
            ({"sources": ["eda"], "batch_size": 0}, "`batch_size` to be a whole number >= 1"),
            ({"sources": ["eda"], "min_alignment": 0.5}, "a `model` to measure"),
            ({"sources": ["eda"], "min_alignment": 2.0}, r"in \[-1, 1\]"),
            ({"sources": [{"name": "eda", "options": {"alfa": 1}}]}, "did you mean 'alpha'"),
            ({"sources": [{"name": "eda", "option": {}}]}, "did you mean 'options'"),
            ({"sources": ["rewrite"]}, "'model' of augmentation source 'rewrite'"),
            ({"sources": [Blank()]}, "not blank from source 'blank'"),
            ({"sources": [TooMany()]}, "at most 4 samples"),
            ({"sources": [Elsewhere()]}, r"text indices in \[0, 60\) from source 'blank'"),
        ],
    )
    def test_settings(self, toy_pairs, tmp_path, options, message):
        with pytest.raises(ValueError, match=message):
            augment(toy_pairs, folder=tmp_path / "a", **options)

    def test_a_sample_needs_a_parent(self):
        with pytest.raises(ValueError, match="original image or text"):
            Made("text")

    def test_neither_name_nor_source(self, unchecked):
        with pytest.raises(TypeError, match="a source's name"):
            make_augmentation(7)

    def test_a_pool_that_lacks_the_originals(self, toy_pairs, tmp_path):
        with pytest.raises(ValueError, match="`pool` to hold all"):
            augment(toy_pairs, sources=["own-texts"], pool=toy_pairs.head(3), folder=tmp_path / "a")

    def test_missing_and_repeated_pictures(self, toy_pairs, tmp_path):
        gone = OneToManyPairs("x", "test", (Picture("a", tmp_path / "a.png"),), ("t",), np.array([[0, 0]]))
        with pytest.raises(ValueError, match="1 are missing"):
            augment(gone, sources=["eda"], folder=tmp_path / "a")
        twice = OneToManyPairs("x", "test", (toy_pairs.images[0],) * 2, ("t",), np.array([[0, 0], [1, 0]]))
        with pytest.raises(ValueError, match="different keys"):
            augment(twice, sources=["eda"], folder=tmp_path / "a")


def test_a_reference_without_towers_is_refused_before_anything_is_made(toy_pairs, tmp_path, unchecked):
    with pytest.raises(TypeError, match="Linear lacks: preprocess, encode_image, encode_text"):
        augment(toy_pairs, sources=["eda"], model=torch.nn.Linear(1, 1), folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()
