"""Certify recipes: every shipped one runs on small files in the real layout, resumes, and checks first."""

import functools
import json
from collections import Counter
from itertools import product

import numpy as np
import pytest
from PIL import Image

from crossguard.certify import Counts, certify_collective, certify_counts, preflight, segment
from crossguard.data.roads import write_roads
from crossguard.models import MODELS, load_model
from crossguard.progress import Silent
from crossguard.recipes import CertifyRecipe, RecipeError, open_run, perform_certify, read_recipe, shipped_recipes
from crossguard.recipes.choose_keep import try_keeps
from crossguard.report import certificate_table, report_runs
from crossguard.report.maps import ABSTAIN, label_map
from families import FAMILIES
from files import write_features, write_potholes, write_ravdess
from shared import write_annotations

ROADS = [
    "keep={rgb: 60, depth: 20}",
    "curve.steps=3",
    "maps.radii={rgb: 1, depth: 2}",
    "train.model={encoder: tiny}",
    "train.options.batch_size=2",
    "batch_size=70",
    "max_samples=2",
]


def watch(folder):
    pytest.importorskip("seglearn", reason="seglearn is not installed (extra `demo`)")
    return ["max_samples=4"]


def bounds(folder):
    return [*watch(folder), "attack.vectors=[{accelerometer: 1, gyroscope: 1}]", "attack.draws=5", "curve.steps=2"]


def roads(folder):
    return [*ROADS, "data.options={size: [32, 64], scenes: 9}"]


def kitti(folder):
    write_roads(folder / "kitti", size=(32, 64), scenes=15, progress=Silent())
    return [*ROADS, f"data.options={{root: {folder / 'kitti'}, size: [32, 64]}}"]


def pothole(folder):
    write_potholes(folder / "pothole", size=(32, 48))
    return [
        f"data.options={{root: {folder / 'pothole'}, size: null}}",
        "keep={rgb: 40, disparity: 40}",
        "curve.steps=3",
        "maps.radii={rgb: 1, disparity: 1}",
        "train.options.batch_size=2",
        "batch_size=70",
    ]


def ravdess(folder):
    for module in ("av", "librosa"):
        pytest.importorskip(module, reason="the extra `video` is not installed")
    write_ravdess(folder / "clips")
    small = "frames: 8, frame_size: 16, steps: 12"
    return [f"data.options={{root: {folder / 'clips'}, {small}}}", "keep={video: 2, audio: 2}", "curve.steps=1"]


def features(folder):
    file = write_features(folder / "features.npz")
    return [f"data.options={{file: {file}}}", "keep={video_au: 2, audio_mfcc: 2}", "curve.steps=1"]


def words(folder):
    rng = np.random.default_rng(0)
    labels = np.arange(80) % 2
    values = {m: rng.normal(size=(80, n, 3)) + 2.0 * labels[:, None, None] for m, n in (("video", 9), ("sound", 16))}
    split = np.where(np.arange(80) % 4 == 3, "test", "train")
    np.savez(folder / "words.npz", labels=labels, split=split, classes=np.array(["bin", "lay"]), **values)
    return [f"data.options={{file: {folder / 'words.npz'}}}", "keep={video: 1, sound: 2}", "train.model={}"]


def rgbd(folder):
    rng = np.random.default_rng(0)
    for part in ("rgb", "depth", "label"):
        (folder / "scenes" / part).mkdir(parents=True)
    for scene in range(10):
        label = np.zeros((32, 48), dtype=np.uint8)
        label[:, 8 + scene :], label[:8] = 1, 2
        colours = np.repeat(80 * label[..., None], 3, axis=2) + rng.integers(0, 40, (32, 48, 3), dtype=np.uint8)
        for part, values in (("rgb", colours), ("depth", 50 * label + 10), ("label", label)):
            Image.fromarray(values).save(folder / "scenes" / part / f"{scene}.png")
    (folder / "scenes" / "classes.json").write_text(json.dumps(["floor", "wall", "sky"]))
    return [
        f"data.options={{root: {folder / 'scenes'}}}",
        "keep={rgb: 40, depth: 40}",
        "curve.steps=1",
        "maps.radii={rgb: 1, depth: 1}",
        "train.options.batch_size=2",
        "batch_size=70",
    ]


SMALL = {
    "watch-certify": watch,
    "watch-bounds": bounds,
    "roads-certify": roads,
    "pothole-certify": pothole,
    "kitti-certify": kitti,
    "kitti-certify-better": kitti,
    "ravdess-certify": ravdess,
    "rgbd-certify": rgbd,
    "ravdess-certify-better": ravdess,
    "ravdess-features-certify": features,
    "words-certify": words,
}
TRAINED = [
    name
    for name in shipped_recipes()
    if isinstance(recipe := read_recipe(name), CertifyRecipe) and recipe.train is not None
]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("CROSSGUARD_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def small(name, folder, *more):
    overrides = [
        "train.steps=2",
        "draws=70",
        "draw_seed=0",
        f"run={folder / 'run'}",
        "device=cpu",
        *SMALL[name](folder),
        *more,
    ]
    return read_recipe(name, overrides)


def carry_out(recipe):
    with open_run(recipe, command=["test"]) as run:
        found = perform_certify(recipe, run, progress=Silent())
        run.finish()
    return found, run


@pytest.fixture(scope="module")
def carried_out(tmp_path_factory):
    """From a shipped recipe's name to (itself, small; what it found; its run), which no test may change."""

    @functools.cache
    def once(name):
        recipe = small(name, tmp_path_factory.mktemp(name))
        return recipe, *carry_out(recipe)

    return once


@pytest.mark.parametrize("name", TRAINED)
def test_every_shipped_recipe_runs_from_end_to_end(name, carried_out, tmp_path):
    recipe, found, run = carried_out(name)
    (row,) = certificate_table([run.path])
    assert row["model"] == recipe.model
    assert (row["keep"], row["draws"]) == (list(recipe.keep.values()), 70)
    assert row["units"] == [recipe.units.get(m, "pixel") for m in recipe.keep]
    assert (row["curve"]["baseline"] is not None) == (row["baseline"] is not None) == recipe.baseline
    images = found.samples.labels.ndim == 3
    metrics = {"accuracy", "recall", "precision", "f_score", "iou"} if images else {"accuracy"}
    metrics |= {"mean_iou"} if images and len(found.samples.classes) > 2 else set()
    assert set(row["curve"]["certified"]) == metrics
    lines = [json.loads(line) for line in (run.path / "rows.jsonl").read_text().splitlines()]
    sections = Counter(line["section"] for line in lines if line["section"].startswith("certificate/"))
    assert list(sections.values()) == [len(found.samples)] * (1 + recipe.baseline + len(recipe.beside))
    assert len(list((run.path / "maps").rglob("*.png"))) == (5 * len(found.samples) if images else 0)
    assert report_runs([run.path], tmp_path / "page.html").stat().st_size > 5_000


def test_a_finished_certification_is_taken_up_without_drawing(carried_out, monkeypatch):
    recipe, first, run = carried_out("roads-certify")
    files = ("rows.jsonl", "summary.json", "maps/road-net/image-00001-certified.png")
    before = [(run.path / name).read_bytes() for name in files]
    monkeypatch.setattr(segment, "pixel_votes", lambda *_, **__: pytest.fail("a sub-sample was drawn again"))
    again, _ = carry_out(recipe)
    assert [(run.path / name).read_bytes() for name in files] == before
    for one, other in zip(first.certificate.counts, again.certificate.counts, strict=True):
        assert (one.votes == other.votes).all()


@pytest.mark.parametrize("correction", ["holm", "bonferroni"])
def test_figures_of_a_segmentation_follow_from_counts_and_truth(correction, tmp_path):
    recipe = small("roads-certify", tmp_path, f"correction={correction}", "train.steps=12")
    found, run = carry_out(recipe)
    (row,) = certificate_table([run.path])
    assert ("alone" in row["scope"]) == (correction == "holm")
    samples, vectors = found.samples, [(step, 2 * step) for step in range(4)]

    def certified(index, radii):
        counts, level = found.certificate.counts[index], found.certificate.level(index)  # kept counts: the first look
        return certify_counts(counts.votes, n=(2048, 2048), k=(60, 20), radii=radii, alpha=level, correction=correction)

    right = hits = alarms = 0
    for index, truth in enumerate(samples.labels):
        c = certified(index, vectors)
        right = right + (c.certified & (c.label == truth)).sum(axis=(1, 2))
        hits = hits + (c.certified & (c.label == 1) & (truth == 1)).sum(axis=(1, 2))
        alarms = alarms + ((truth == 0) & ~(c.certified & (c.label == 0))).sum(axis=(1, 2))
    positives = (samples.labels == 1).sum()
    along = row["curve"]["certified"]
    np.testing.assert_allclose(along["accuracy"], right / (samples.labels >= 0).sum())
    np.testing.assert_allclose(along["recall"], hits / positives)
    np.testing.assert_allclose(along["iou"], hits / (positives + alarms))
    np.testing.assert_allclose(along["f_score"], 2 * hits / (hits + positives + alarms))
    # The grid holds the curve on its diagonal, as the radii are those of the curve.
    assert row["radii"] == [[0, 1, 2, 3], [0, 2, 4, 6]]
    np.testing.assert_allclose(np.diag(row["accuracy"]), along["accuracy"])
    # Maps show the same labels, abstention in its own colour.
    c = certified(0, [(1, 2)])
    shown = np.asarray(Image.open(run.path / "maps/road-net/image-00000-certified.png"))
    assert (shown == label_map(c.label, certified=c.certified[0])).all()
    assert ((shown == ABSTAIN).all(axis=2) == ~c.certified[0]).all()


def test_rows_add_up_to_the_curve(carried_out):
    _, _, run = carried_out("pothole-certify")
    (row,) = certificate_table([run.path])
    for section, figures in (
        ("certificate/road-net", row["curve"]["certified"]),
        ("certificate/road-net/joint sub-sampling", row["curve"]["baseline"]),
    ):
        lines = [line for line in run.read_rows() if line["section"] == section]
        assert [line["sample"] for line in lines] == [0, 1]
        for step, share in enumerate(figures["accuracy"]):
            bounds = [line["bounds"][step] for line in lines]
            assert share == pytest.approx(sum(b["right"] for b in bounds) / sum(b["judged"] for b in bounds))


@pytest.mark.parametrize("apart", [True, False])
def test_the_baseline_draws_for_itself_and_may_have_a_model_of_its_own(apart, tmp_path):
    found, run = carry_out(small("pothole-certify", tmp_path, "train.steps=4", f"train.for_baseline={apart}"))
    assert (run.path / "model-joint").is_dir() == apart
    if apart:
        one, two = (load_model(run.path / name).state_dict() for name in ("model", "model-joint"))
        assert any((one[name] != two[name]).any() for name in one)
    own, joint = found.certificate.counts[0], found.baseline.counts[0]
    assert (own.votes != joint.votes).any()
    kept = {path.name for path in (run.path / "counts").iterdir()}
    assert len(kept) == 4
    assert {Counts.load(run.path / "counts" / name).draws for name in kept} == {70}


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("roads-certify", "keep={rgb: 4000, depth: 20}", r"`keep\['rgb'\]` <= 2048"),
        ("roads-certify", "keep={rgb: 4, deph: 20}", "curve: unknown modality 'depth'; did you mean 'deph'"),
        ("roads-certify", "keep={rgb: 4}", "curve: unknown modality 'depth'; known: rgb"),
        ("roads-certify", "curve.direction={rgb: 1, depht: 2}", "did you mean 'depth'"),
        ("roads-certify", "curve.steps=1500", "r <= n in modality 1"),
        ("roads-certify", "draws=20", "20 can only abstain .* shared by 2048 elements"),
        ("roads-certify", "positive=raod", "did you mean 'road'"),
        ("roads-certify", "bound=gap", "bound: expected 'majority' for masks"),
        ("roads-certify", "model=watch-net", "maps: expected it for masks alone, but 'watch-net' labels whole samples"),
        ("roads-certify", "data.options.size=[32]", "32 x 32 or more"),
        ("ravdess-features-certify", "correction=holm", "no correction in the recipe"),
        ("ravdess-features-certify", "positive=happy", "positive: expected it for masks alone"),
        ("ravdess-features-certify", "data.options={file: none.npz}", "NumPy archive"),
        ("ravdess-features-certify", "data.options={}", "expected the option 'file' of data set 'ravdess-features'"),
        ("pothole-certify", "data.options.root=nowhere", "Expected images such as 1_01.jpg in nowhere/rgb"),
    ],
)
def test_what_cannot_be_certified_is_refused_before_any_training(name, change, message, tmp_path, monkeypatch):
    def fresh(*_, **__):
        pytest.fail("the model was made before the check")

    for family in ("road-net", "emotion-net", "watch-net"):
        monkeypatch.setitem(MODELS, family, type(MODELS[family])(**{**vars(MODELS[family]), "fresh": fresh}))
    recipe = small(name, tmp_path, change)
    with pytest.raises(ValueError, match=message):
        carry_out(recipe)
    assert not (tmp_path / "run" / "counts").exists()


@pytest.mark.parametrize(
    ("name", "file", "change", "message"),
    [
        ("kitti-certify", "kitti/training/depth_u16/um_000000.png", None, "1 files are missing: depth_u16/um_000000"),
        ("kitti-certify", "kitti/training/calib/um_000004.txt", lambda b: b"P2: 1 2 3", "12 finite numbers"),
        ("pothole-certify", "pothole/disp/1_01.png", None, "1 are missing: disp/1_01.png"),
        (
            "ravdess-certify",
            "clips/Actor_07/01-01-03-01-01-01-07.mp4",
            lambda b: b[: len(b) // 2],
            "1 could not be read",
        ),
    ],
)
def test_missing_and_broken_files_are_told_before_any_training(name, file, change, message, tmp_path):
    recipe = small(name, tmp_path)
    path = tmp_path / file
    if change is None:
        path.unlink()
    else:
        path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=message):
        carry_out(recipe)
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["curve={}"], "curve: expected `direction` and `steps`, or `vectors`"),
        (["curve=null", "radii=null"], "recipe: expected `radii`, `curve`, or both, or `early`"),
        (["correction=hom"], "correction: .*'holm' or 'bonferroni'"),
        (["train.augment=flip"], "train.augment"),
    ],
)
def test_sections_that_do_not_fit_are_told_as_others_are(changes, message):
    with pytest.raises(RecipeError, match=message):
        read_recipe("roads-certify", changes)


def test_augmentations_of_other_kinds_of_samples_are_refused(tmp_path):
    with pytest.raises(ValueError, match="'flip-and-tint' or none for a segmenter"):
        carry_out(small("roads-certify", tmp_path, "train.augment=turn-sensors"))
    (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match="'turn-sensors' or none for a classifier"):
        carry_out(small("ravdess-features-certify", tmp_path / "other", "train.augment=flip-and-tint"))


def test_vectors_and_a_grid_may_be_given_as_lists(tmp_path):
    curve = "curve={vectors: [{video_au: 0}, {audio_mfcc: 1}]}"
    _, run = carry_out(small("ravdess-features-certify", tmp_path, curve, "radii={video_au: 1}", "baseline=false"))
    (row,) = certificate_table([run.path])
    assert row["curve"]["radii"] == ((0, 0), (0, 1))
    assert row["radii"] == [[0, 1], [0]]
    assert row["baseline"] is row["curve"]["baseline"] is None


@pytest.mark.parametrize("name", ["pothole-certify", "ravdess-features-certify"])
def test_published_designs_are_drawn_into_the_same_curve(name, tmp_path):
    large = [] if name == "ravdess-features-certify" else ["keep={rgb: 400, disparity: 400}"]  # so that tuples are few
    found, run = carry_out(small(name, tmp_path, "beside=[fixed, product]", "draws=90", *large))
    (row,) = certificate_table([run.path])
    assert [name.partition(", N")[0] for name in row["curve"]["designs"]] == [
        "published, balanced",
        "published, product",
    ]
    for label, own in zip(row["curve"]["designs"], found.others.values(), strict=True):
        draws = own.counts[0].draws if isinstance(own.counts, tuple) else own.counts.draws
        assert label.endswith(f", N = {draws}")
        assert own.deterministic
        curve = [dict(zip(row["modalities"], vector, strict=True)) for vector in row["curve"]["radii"]]
        if found.samples.labels.ndim == 3:
            expected = [bounds.accuracy for bounds in own.bounds(curve)]
        else:
            expected = [own.accuracy(vector) for vector in curve]
        assert list(row["curve"]["designs"][label]["accuracy"]) == expected
    page = report_runs([run.path], tmp_path / "page.html").read_text()
    assert 'class="curve design-1"' in page
    assert "published, product, N = " in page
    (tmp_path / "other").mkdir()
    alone = carry_out(small(name, tmp_path / "other", "design=product", "beside=[]", *large))[0].certificate
    assert alone.deterministic


def test_a_modality_under_noise_is_certified_in_l2(tmp_path):
    changes = ["keep={video_au: 4}", "noise={audio_mfcc: 0.5}", "baseline=false", "bound=both"]
    changes.append("radii={video_au: 1, audio_mfcc: 0.4}")
    curve = "curve={direction: {video_au: 1, audio_mfcc: 0.1}, steps: 2}"
    found, run = carry_out(small("ravdess-features-certify", tmp_path, *changes, curve))
    (row,) = certificate_table([run.path])
    assert row["noise"] == {"audio_mfcc": 0.5}
    assert row["kinds"] == ["substitution", "l2"]
    assert row["radii"][1] == pytest.approx([0.04 * i for i in range(11)])
    assert row["curve"]["radii"][2] == (2, 0.2)
    assert row["curve"]["certified"]["accuracy"][1] == found.certificate.accuracy({"video_au": 1, "audio_mfcc": 0.1})
    assert "sigma = 0.5 (moved in L2)" in report_runs([run.path], tmp_path / "page.html").read_text()


def test_a_two_tower_model_is_certified_over_patches_and_words_by_recipe(tiny_clip, toy_pairs, tmp_path):
    tiny_clip.save_pretrained(tmp_path / "model")
    data = write_annotations(toy_pairs, tmp_path / "toy.json")
    changes = [
        f"model={tmp_path / 'model'}",
        "data.name=json",
        f"data.options={json.dumps(data['options'])}",
        "gallery.classes=6",
        "keep={image: 2, text: 1}",
        "draws=60",
        "alpha=0.01",
        "curve={vectors: [{image: 0}, {image: 1, text: 1}]}",
        "attack.draws=2",
        "attack.options={rounds: 1, steps: 1}",
        f"run={tmp_path / 'run'}",
        "device=cpu",
    ]
    found, run = carry_out(read_recipe("emoji-gallery-certify", changes))
    (row,) = certificate_table([run.path])
    assert row["kinds"] == ["substitution", "edit"]
    assert row["samples"] == len(found.samples) <= 6
    certified, attacked = row["curve"]["certified"]["accuracy"], row["curve"]["attacked"]["accuracy"]
    assert all(low <= high for low, high in zip(certified, attacked, strict=True))
    with pytest.raises(RecipeError, match="no `train` with `gallery`"):
        read_recipe("emoji-gallery-certify", ["train={data: {name: watch}, steps: 1}"])


@pytest.fixture(scope="module", params=("clip", "siglip", "albef", "blip"))
def family(request, tmp_path_factory):
    """The folder of a tiny two-tower model."""
    folder = tmp_path_factory.mktemp(request.param)
    FAMILIES[request.param](folder / "files").save_pretrained(folder / "model")
    return folder / "model"


@pytest.mark.parametrize("name", ["emoji-zero-shot-certify", "emoji-retrieval-certify"])
def test_every_family_is_certified_in_zero_shot_and_in_retrieval_by_the_same_recipes(family, name, toy_pairs, tmp_path):
    changes = [f"model={family}", f"run={tmp_path / 'run'}", "device=cpu", "draws=40", "alpha=0.05", "max_samples=4"]
    changes += ["draw_seed=0"]  # the draws of the attack's votes
    if name == "emoji-zero-shot-certify":
        for place, image in enumerate(toy_pairs.images[:6]):
            folder = tmp_path / "images" / "test" / ("red", "blue")[place % 2]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{place}.png").write_bytes(image.path.read_bytes())
        data = {"name": "imagefolder", "options": {"root": str(tmp_path / "images")}}
        changes += ["keep={image: 2}", "curve={direction: {image: 1}, steps: 1}"]
    else:
        data = write_annotations(toy_pairs, tmp_path / "toy.json")
        changes += ["keep={text: 2}", "gallery.most=2", "curve={direction: {text: 1}, steps: 1}"]
    changes += ["attack.vectors=[]", "attack.draws=2", "attack.options={rounds: 1, steps: 1}"]
    changes += [f"data={json.dumps(data)}"]
    found, run = carry_out(read_recipe(name, changes))
    (row,) = certificate_table([run.path])
    retrieves = name == "emoji-retrieval-certify"
    metric = "recall@2" if retrieves else "accuracy"
    assert row["metric"] == metric
    assert row["units"] == [{"image": "patch", "text": "word"}[m] for m in row["modalities"]]
    assert row["kinds"] == ["edit" if retrieves else "substitution"]
    certified, attacked = (row["curve"][line][metric] for line in ("certified", "attacked"))
    assert certified == tuple(found.certificate.accuracy({row["modalities"][0]: r}) for r in range(2))
    assert all(low <= high for low, high in zip(certified, attacked, strict=True))
    assert 0 <= row["whole_accuracy"] <= 1
    assert row["samples"] == 4
    page = report_runs([run.path], tmp_path / "page.html").read_text()
    assert f"edited {'words' if retrieves else 'patches'}" in page
    assert ("Certified R@2" in page) == retrieves


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["gallery={of: concepts, most: 2}", "attack=null"], "`most` with retrieval alone"),
        (["gallery={of: texts, classes: 3}"], "with of: concepts alone"),
        (["curve=null", "attack=null", "early={text: 1}"], "without gallery of images or texts"),
        (["data.name=emoji-classes"], "holds images, but this verb takes pairs"),
    ],
)
def test_galleries_that_do_not_fit_are_refused(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        carry_out(read_recipe("emoji-retrieval-certify", [f"run={tmp_path / 'run'}", *changes]))


def test_samples_of_different_lengths_are_certified_by_recipe(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.arange(80) % 2
    lengths = rng.integers(6, 17, 80)
    values = {m: rng.normal(size=(80, n, 3)) + 2.0 * labels[:, None, None] for m, n in (("video", 9), ("sound", 16))}
    values["sound"][np.arange(16) >= lengths[:, None]] = -50.0  # padding that would speak for the other label
    split = np.where(np.arange(80) % 4 == 3, "test", "train")
    told = {"labels": labels, "split": split, "sound_length": lengths[:, None]}
    np.savez(tmp_path / "words.npz", classes=np.array(["bin", "lay"]), **told, **values)
    changes = [
        f"data.options={{file: {tmp_path / 'words.npz'}}}",
        "lengths={sound: sound_length}",
        "keep={video: 1, sound: 2}",
        "train.model={}",
        "train.steps=60",
        "baseline=false",
        "beside=[]",
        "draws=300",
        "alpha=0.01",
        "curve.steps=2",
        f"run={tmp_path / 'run'}",
        "device=cpu",
    ]
    found, run = carry_out(read_recipe("words-certify", changes))
    (row,) = certificate_table([run.path])
    own = [line for line in run.read_rows() if line["section"] == "certificate/emotion-net"]
    assert [line["n"]["sound"] for line in own] == lengths[split == "test"].tolist()
    curve = row["curve"]["certified"]["accuracy"]
    assert curve == tuple(found.certificate.accuracy({"video": r, "sound": r}) for r in range(3))
    assert curve[0] > 0.8
    assert row["accuracy"][1][2] == found.certificate.accuracy({"video": 1, "sound": 2})
    assert row["whole_accuracy"] is None
    assert "differ in length" in row["note"]
    with pytest.raises(ValueError, match="did you mean 'sound_length'"):
        carry_out(read_recipe("words-certify", [*changes, "lengths={sound: sound_lengths}", f"run={tmp_path / 'b'}"]))
    with pytest.raises(RecipeError, match="no `baseline`, `attack` or published design with `lengths`"):
        read_recipe("words-certify", ["lengths={sound: sound_length}"])


def test_one_attack_on_all_pixels_is_bounded_by_recipe_and_taken_up(tmp_path, monkeypatch):
    changes = ["keep={rgb: 400, disparity: 400}", "design=fixed", "draws=30", "collective=true", "baseline=false"]
    recipe = small("pothole-certify", tmp_path, *changes)
    found, run = carry_out(recipe)
    (row,) = certificate_table([run.path])
    alone, together = (row["curve"]["certified"][metric] for metric in ("accuracy", "collective"))
    assert all(low <= high + 1e-12 for low, high in zip(alone, together, strict=True))
    model, vectors = load_model(run.path / "model"), [{"rgb": r, "disparity": r} for r in range(4)]
    bounds = [certify_collective(model, found.certificate, index, vectors) for index in range(len(found.samples))]
    judged = sum(image[0].pixels for image in bounds)
    assert together == tuple(sum(image[r].together for image in bounds) / judged for r in range(4))
    monkeypatch.setattr("crossguard.recipes.certify.certify_collective", lambda *_: pytest.fail("bounded again"))
    carry_out(recipe)
    (again,) = certificate_table([run.path])
    assert again["curve"]["certified"]["collective"] == together
    assert "Certified pixel accuracy of all together" in report_runs([run.path], tmp_path / "page.html").read_text()
    with pytest.raises(RecipeError, match="published `design` with `collective`"):
        read_recipe("pothole-certify", ["collective=true"])


def test_other_numbers_of_kept_elements_are_tried_without_looking_at_the_judged_data(tmp_path):
    recipe = small("words-certify", tmp_path, "train.steps=200", "draws=400", "alpha=0.01")
    trials = try_keeps(recipe)
    assert [trial.keep for trial in trials][:3] == [
        {"video": 1, "sound": 1},
        {"video": 1, "sound": 2},
        {"video": 2, "sound": 4},
    ]
    for trial in trials:
        assert trial.reach == preflight(n=(9, 16), k=tuple(trial.keep.values()), draws=400, alpha=0.01).reach
        assert 0.4 < trial.right <= 1
        shares = list(trial.certified.values())
        assert shares == sorted(shares, reverse=True)
    assert trials[-1].right > trials[0].right
    assert not (tmp_path / "run").exists()
    scenes = try_keeps(small("pothole-certify", tmp_path))
    assert all(trial.right is None for trial in scenes)


@pytest.mark.parametrize("name", ["pothole-certify", "words-certify"])
def test_early_stopping_decides_at_one_radius_vector(name, tmp_path):
    modality = {"pothole-certify": "rgb", "words-certify": "video"}[name]
    more = ["curve=null", "baseline=false", "maps=null", "beside=[]", "draws=400", "train.steps=20", "alpha=0.01"]
    recipe = small(name, tmp_path, *more, f"early={{{modality}: 1}}")
    found, run = carry_out(recipe)
    (row,) = certificate_table([run.path])
    early = found.certificate
    assert early.draws.max() <= 400
    assert row["curve"]["radii"] == ((1, 0),)
    right = (early.labels == found.samples.labels) & early.certified
    assert row["curve"]["certified"]["accuracy"][0] == pytest.approx(right.sum() / (found.samples.labels >= 0).sum())
    assert row["draws"] == 400
    assert f"{early.draws.mean():.0f} draws" in row["note"]
    assert f"{100 * early.saved:.0f} % saved" in row["note"]
    assert row["note"] in report_runs([run.path], tmp_path / "page.html").read_text()
    again, _ = carry_out(recipe)
    assert (again.certificate.draws == early.draws).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["early={video_au: 1}"], "`early` without curve, baseline"),
        (["noise={audio_mfcc: 0.5}", "bound=both"], "got it in both"),
        (["noise={audio_mfcc: -1}"], "greater than 0"),
        (["keep={video_au: 2}", "noise={audio_mfcc: 0.5}", "beside=[fixed]"], "needs random draws"),
        (["keep={video_au: 2}", "noise={audio_mfcc: 0.5}", "bound=gap"], "not proven"),
        (["beside=[random]"], "each design once"),
        (["keep={}"], "expected `keep`, `noise`, or both"),
        (["radii={video_au: 0.5}"], "whole number of elements"),
    ],
)
def test_noise_and_designs_that_do_not_fit_are_refused(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        carry_out(small("ravdess-features-certify", tmp_path, *changes))


def test_a_trained_folder_is_certified_as_it_is(carried_out, tmp_path):
    _, _, run = carried_out("roads-certify")
    again = small("roads-certify", tmp_path, "train=null", f"model={run.path / 'model'}", f"run={tmp_path / 'again'}")
    _, other = carry_out(again)
    assert not (other.path / "model").exists()
    (one,), (two,) = certificate_table([run.path]), certificate_table([other.path])
    assert one["accuracy"] == two["accuracy"]


def test_products_of_axes_are_all_on_the_grid(tmp_path):
    found, run = carry_out(small("roads-certify", tmp_path, "radii={rgb: 2, depth: 1}", "baseline=false"))
    (row,) = certificate_table([run.path])
    assert row["radii"] == [[0, 1, 2], [0, 1]]
    for i, j in product(range(3), range(2)):
        (bound,) = found.certificate.bounds([{"rgb": i, "depth": j}], correction="bonferroni")
        assert row["accuracy"][i][j] == pytest.approx(bound.accuracy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("train.model={encodr: tiny}", "train.model: unknown option 'encodr' of `train.model`: did you mean 'encoder'"),
        ("train.options={lrr: 1}", "train.options: unknown option 'lrr' of `train.options`: did you mean 'lr'"),
        ("train.options={lr: fast}", "train.options: expected option `lr` to be float, but got 'fast'"),
        ("train.options={steps: 3}", "train.options: unknown option 'steps' of `train.options`"),
    ],
)
def test_settings_of_the_training_are_told_with_the_nearest(change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        carry_out(small("roads-certify", tmp_path, change))
    assert not (tmp_path / "run" / "model").exists()


def test_a_model_of_images_and_texts_is_no_classifier(tmp_path):
    said = "model: expected a classifier or segmenter model, but 'emoji-clip' is a vision-language model"
    with pytest.raises(ValueError, match=said):
        carry_out(small("ravdess-features-certify", tmp_path, "train=null", "model=emoji-clip"))
