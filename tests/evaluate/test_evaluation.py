"""Evaluation against a slow one, its invariants, and taking it up after an interruption."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from crossguard.attacks.base import Attack
from crossguard.data import OneToManyPairs, Picture
from crossguard.evaluate import clustered_interval, evaluate
from crossguard.evaluate.features import check_model
from crossguard.runs import RunFolder
from crossguard.threat import LInf, ThreatModel, WordEdits
from families import FAMILIES
from shared import make_clip

THREAT = ThreatModel(image=LInf(eps=8 / 255), text=WordEdits(words=1))
BATCH = {"batch_size": 5, "seed": 3}


class Noise(Attack):
    """Random signs and one random word, so that batches, seeds and budgets matter but gradients do not."""

    name = "noise"
    uses = frozenset({"image", "text"})

    def __init__(self, *, stop_at: int | None = None) -> None:
        self._stop_at = stop_at
        self._calls = 0

    def run(self, model, batch, *, budget, seed):
        if self._calls == self._stop_at:
            raise KeyboardInterrupt
        self._calls += 1
        generator = torch.Generator().manual_seed(seed)
        signs = torch.randint(0, 2, batch.pixels.shape, generator=generator) * 2 - 1
        pixels = (batch.pixels + budget.eps * signs).clamp(0, 1)
        texts = []
        for text in batch.texts:
            words = text.split()
            if budget.words:
                spot = int(torch.randint(len(words), (1,), generator=generator))
                words[spot] = "plain"
            texts.append(" ".join(words))
        return pixels, tuple(texts)


def slow_ranks(model, pairs, pixels, texts):
    """One query at a time, embeddings one at a time."""
    with torch.no_grad():
        images = [torch.nn.functional.normalize(model.encode_image(p[None]), dim=-1)[0] for p in pixels]
        words = [torch.nn.functional.normalize(model.encode_text([t]), dim=-1)[0] for t in texts]
    scores = np.array([[float(i @ t) for t in words] for i in images])
    own = {(int(i), int(t)) for i, t in pairs.links}
    ranks = {"tr": [], "ir": []}
    for i in range(len(images)):
        best = max(scores[i, t] for t in pairs.texts_of(i))
        ranks["tr"].append(1 + sum(scores[i, t] >= best for t in range(len(words)) if (i, t) not in own))
    for t in range(len(words)):
        best = max(scores[i, t] for i in pairs.images_of(t))
        ranks["ir"].append(1 + sum(scores[i, t] >= best for i in range(len(images)) if (i, t) not in own))
    return ranks


def ranks_of(result, field):
    return {d: [row[field] for row in result.rows if row["direction"] == d] for d in ("tr", "ir")}


def test_clean_ranks_are_the_slow_ones(tiny_clip, toy_pairs):
    result = evaluate(tiny_clip, toy_pairs, batch_size=5)
    pixels = tiny_clip.preprocess([toy_pairs.image(i) for i in range(len(toy_pairs.images))])
    assert ranks_of(result, "clean_rank") == slow_ranks(tiny_clip, toy_pairs, pixels, toy_pairs.texts)
    assert result.robust is None
    assert result.success is None
    assert set(result.intervals) == {"clean"}
    assert result.examples == ()


def test_robust_ranks_are_the_slow_ones(tiny_clip, toy_pairs, tmp_path):
    run = RunFolder.open(tmp_path / "run", settings={})
    result = evaluate(tiny_clip, toy_pairs, attack=Noise(), threat=THREAT, run=run, **BATCH)
    pixels, texts = torch.zeros(24, 3, 16, 16), [""] * len(toy_pairs.texts)
    for path in sorted((tmp_path / "run" / "adversarial").rglob("batch-*.npz")):
        with np.load(path) as batch:
            pixels[batch["image_ids"]] = torch.from_numpy(batch["grey"]).float() / 255
            for index, text in zip(batch["text_ids"], json.loads(batch["texts"].tobytes()), strict=True):
                assert texts[index] == ""  # attacked once
                texts[index] = text
    assert ranks_of(result, "robust_rank") == slow_ranks(tiny_clip, toy_pairs, pixels, texts)
    clean = tiny_clip.preprocess([toy_pairs.image(i) for i in range(24)])
    assert 0 < (pixels - clean).abs().max() <= 8 / 255 + 1e-6
    said = [row["adversarial_text"] for row in result.rows if row["direction"] == "ir"]
    assert said == texts
    for row in result.rows:
        if row["direction"] == "tr":
            assert row["linf"] == pytest.approx(float((pixels - clean)[row["index"]].abs().max()))
            assert row["words"] is None
        else:
            changed = sum(a != b for a, b in zip(row["query"].split(), row["adversarial_text"].split(), strict=True))
            assert row["words"] == changed
            assert row["linf"] is None


@pytest.mark.parametrize("target", ["query", "gallery"])
def test_only_one_side_is_attacked(tiny_clip, toy_pairs, target):
    both = evaluate(tiny_clip, toy_pairs, attack=Noise(), threat=THREAT, **BATCH)
    threat = ThreatModel(target=target, image=THREAT["image"], text=THREAT["text"])
    one = evaluate(tiny_clip, toy_pairs, attack=Noise(), threat=threat, **BATCH)
    texts = [row["adversarial_text"] for row in both.rows if row["direction"] == "ir"]
    assert one.robust != both.robust
    # Text retrieval asks images of texts. Only texts attacked: what "gallery" gives; only images: what "query" gives.
    alone = evaluate(tiny_clip, toy_pairs, attack=Noise(), threat=THREAT, modalities=True, **BATCH)
    assert texts == [row["adversarial_text"] for row in alone.of("joint").rows if row["direction"] == "ir"]
    asked = [row["adversarial_text"] for row in one.rows if row["direction"] == "ir"]
    assert asked == (texts if target == "query" else list(toy_pairs.texts))
    same_images = ranks_of(alone.of("image"), "robust_rank")
    if target == "query":  # the images are the same as in the image-only attack: same seeds, same draws
        assert ranks_of(one, "robust_rank")["tr"] == same_images["tr"]
    else:
        assert ranks_of(one, "robust_rank")["ir"] == same_images["ir"]


def test_no_budget_changes_nothing(tiny_clip, toy_pairs):
    threat = ThreatModel(image=LInf(eps=0.0), text=WordEdits(words=0))
    result = evaluate(tiny_clip, toy_pairs, attack=Noise(), threat=threat, **BATCH)
    assert result.robust == result.clean
    assert ranks_of(result, "robust_rank") == ranks_of(result, "clean_rank")
    assert set(result.success["drop"].values()) == {0.0}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_measured_under_a_joint_attack(toy_pairs, tmp_path, family):
    few = toy_pairs.head(6)
    options = {"attack_options": {"steps": 1}, "batch_size": 6, "examples": 1}
    result = evaluate(FAMILIES[family](tmp_path), few, attack="sga", threat=THREAT, **options)
    assert len(result.rows) == len(few.images) + len(few.texts)
    assert not [warning for warning in result.warnings if "words" in warning]


def test_success_and_intervals_follow_the_rows(tiny_clip, toy_pairs):
    result = evaluate(tiny_clip, toy_pairs, attack=Noise(), threat=THREAT, **BATCH)
    for direction in ("tr", "ir"):
        rows = [row for row in result.rows if row["direction"] == direction]
        for cut in (1, 5, 10):
            name = f"{direction}@{cut}"
            right = [row for row in rows if row["clean_rank"] <= cut]
            lost = [row for row in right if row["robust_rank"] > cut]
            kept = sum(row["robust_rank"] <= cut for row in rows)
            assert result.clean[name] == pytest.approx(100 * len(right) / len(rows))
            assert result.robust[name] == pytest.approx(100 * kept / len(rows))
            expected = pytest.approx(100 * len(lost) / len(right)) if right else None
            assert result.success["conditional"][name] == expected
            assert result.success["drop"][name] == pytest.approx(100 * (len(right) - kept) / len(rows))
            low, high = result.intervals["robust"][name]
            assert low <= result.robust[name] <= high
            figure = result.figure("robust", name)
            hits = [row["robust_rank"] <= cut for row in rows]
            assert figure.interval == clustered_interval(hits, [row["group"] for row in rows])
            assert (figure.n, figure.groups) == (len(rows), len({row["group"] for row in rows}))
    summary = json.loads(json.dumps(result.summary(), allow_nan=False))["retrieval/tiny/joint"]
    assert {m: figure["value"] for m, figure in summary["estimates"]["clean"].items()} == result.clean
    assert summary["about"]["samples"] == f"24 images and {len(toy_pairs.texts)} texts"
    named = {(f.what, f.metric, f.part, f.attack): f.value for f in result.figures}
    assert named["clean", "tr@1", "clean", None] == result.clean["tr@1"]
    assert named["robust", "ir@5", "joint", "noise"] == result.robust["ir@5"]
    assert "tiny on toy (test), tr@1" in str(result)


def test_modalities_share_the_clean_figures(tiny_clip, toy_pairs, monkeypatch):
    calls = []
    original = type(tiny_clip).encode_text
    monkeypatch.setattr(
        type(tiny_clip), "encode_text", lambda self, texts: (calls.append(len(texts)), original(self, texts))[1]
    )
    result = evaluate(tiny_clip, toy_pairs, attack=Noise(), threat=THREAT, modalities=True, **BATCH)
    assert result.parts == ("image", "text", "joint")
    parts = {part: result.of(part) for part in result.parts}
    assert parts["image"].clean == parts["text"].clean == parts["joint"].clean
    assert result.robust == parts["joint"].robust
    assert {row["words"] for row in parts["image"].rows if row["direction"] == "ir"} == {0}
    assert {row["linf"] for row in parts["text"].rows if row["direction"] == "tr"} == {0.0}
    monkeypatch.undo()
    alone = evaluate(tiny_clip, toy_pairs, attack=Noise(), threat=THREAT.only("text"), **BATCH)
    assert parts["text"].rows == alone.rows


def test_an_interrupted_evaluation_goes_on_where_it_stopped(tiny_clip, toy_pairs, tmp_path):
    whole = RunFolder.open(tmp_path / "whole", settings={})
    expected = evaluate(tiny_clip, toy_pairs, attack=Noise(), threat=THREAT, run=whole, **BATCH)

    run = RunFolder.open(tmp_path / "cut", settings={})
    with pytest.raises(KeyboardInterrupt):
        evaluate(tiny_clip, toy_pairs, attack=Noise(stop_at=3), threat=THREAT, run=run, **BATCH)
    run.close()
    assert len(list((tmp_path / "cut").rglob("batch-*.npz"))) == 3

    again = RunFolder.open(tmp_path / "cut", settings={})
    attack = Noise()
    resumed = evaluate(tiny_clip, toy_pairs, attack=attack, threat=THREAT, run=again, **BATCH)
    batches = len(list((tmp_path / "whole").rglob("batch-*.npz")))
    assert attack._calls == batches - 3
    assert resumed.rows == expected.rows
    lines = (tmp_path / "cut" / "rows.jsonl").read_text()
    assert lines == (tmp_path / "whole" / "rows.jsonl").read_text()
    assert again.summary == whole.summary

    third = Noise(stop_at=0)
    assert evaluate(tiny_clip, toy_pairs, attack=third, threat=THREAT, run=again, **BATCH).rows == expected.rows
    assert (tmp_path / "cut" / "rows.jsonl").read_text() == lines


def test_a_stored_batch_of_other_images_is_attacked_again(tiny_clip, toy_pairs, tmp_path):
    expected = evaluate(tiny_clip, toy_pairs, attack=Noise(), threat=THREAT, **BATCH)
    run = RunFolder.open(tmp_path / "run", settings={})
    with pytest.raises(KeyboardInterrupt):
        evaluate(tiny_clip, toy_pairs, attack=Noise(stop_at=2), threat=THREAT, run=run, **BATCH)
    first, second = sorted((tmp_path / "run").rglob("batch-*.npz"))
    shutil.copy(first, second)
    assert evaluate(tiny_clip, toy_pairs, attack=Noise(), threat=THREAT, run=run, **BATCH).rows == expected.rows


@pytest.mark.parametrize("kept", [0, 1, 17])
def test_rows_cut_off_by_a_kill_are_completed(tiny_clip, toy_pairs, tmp_path, kept):
    run = RunFolder.open(tmp_path / "run", settings={})
    expected = evaluate(tiny_clip, toy_pairs, attack=Noise(), threat=THREAT, run=run, **BATCH)
    run.close()
    rows = tmp_path / "run" / "rows.jsonl"
    whole = rows.read_bytes()
    lines = whole.split(b"\n")
    rows.write_bytes(b"".join(line + b"\n" for line in lines[:kept]) + lines[kept][:20])
    (tmp_path / "run" / "summary.json").unlink()
    again = RunFolder.open(tmp_path / "run", settings={})
    assert evaluate(tiny_clip, toy_pairs, attack=Noise(stop_at=0), threat=THREAT, run=again, **BATCH).rows == (
        expected.rows
    )
    assert rows.read_bytes() == whole


def test_a_damaged_batch_is_attacked_again(tiny_clip, toy_pairs, tmp_path):
    run = RunFolder.open(tmp_path / "run", settings={})
    with pytest.raises(KeyboardInterrupt):
        evaluate(tiny_clip, toy_pairs, attack=Noise(stop_at=2), threat=THREAT, run=run, **BATCH)
    first = next((tmp_path / "run").rglob("batch-00000.npz"))
    first.write_bytes(first.read_bytes()[:200])
    result = evaluate(tiny_clip, toy_pairs, attack=Noise(), threat=THREAT, run=run, **BATCH)
    assert result.rows == evaluate(tiny_clip, toy_pairs, attack=Noise(), threat=THREAT, **BATCH).rows


def test_other_settings_are_refused_by_name(tiny_clip, toy_pairs, tmp_path):
    run = RunFolder.open(tmp_path / "run", settings={})
    given = {"attack": Noise(), "threat": THREAT, "run": run, "label": "victim", **BATCH}
    evaluate(tiny_clip, toy_pairs, **given)

    class Other(Noise):
        name = "other"

    stronger = ThreatModel(image=LInf(eps=16 / 255), text=WordEdits(words=1))
    for change, named in (
        ({"seed": 4}, r"`seed` is 3 there and 4 now"),
        ({"threat": stronger}, r"`threat.image.eps`"),
        ({"attack": Other()}, r"`attack` is 'noise' there and 'other' now"),
        ({"batch_size": 6}, r"`batch_size`"),
    ):
        with pytest.raises(ValueError, match=named):
            evaluate(tiny_clip, toy_pairs, **{**given, **change})
    with pytest.raises(ValueError, match="`content`"):
        evaluate(tiny_clip, toy_pairs.head(20), **given)
    with torch.no_grad():
        next(tiny_clip.parameters()).add_(1e-3)
    with pytest.raises(ValueError, match="`weights`"):
        evaluate(tiny_clip, toy_pairs, **given)


@pytest.mark.parametrize("gone", [("adversarial",), ("adversarial", "summary.json")])
def test_other_settings_are_refused_when_the_adversarial_pictures_are_deleted(tiny_clip, toy_pairs, tmp_path, gone):
    given = {"attack": Noise(), "threat": THREAT, "label": "victim", **BATCH}
    with RunFolder.open(tmp_path / "run", settings={}) as run:
        expected = evaluate(tiny_clip, toy_pairs, run=run, **given)
    for name in gone:
        path = tmp_path / "run" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    weaker = ThreatModel(image=LInf(eps=1 / 255), text=WordEdits(words=1))
    with RunFolder.open(tmp_path / "run", settings={}) as run:
        for change, named in (({"seed": 4}, "`seed` is 3 there and 4 now"), ({"threat": weaker}, "`threat.image.eps`")):
            with pytest.raises(ValueError, match=named):
                evaluate(tiny_clip, toy_pairs, run=run, **{**given, **change})
        if "summary.json" not in gone:
            with pytest.raises(ValueError, match="`weights`"):
                evaluate(make_clip(1), toy_pairs, run=run, **given)
        assert evaluate(tiny_clip, toy_pairs, run=run, **given).rows == expected.rows


def test_several_labels_share_a_run(tiny_clip, toy_pairs, tmp_path):
    run = RunFolder.open(tmp_path / "run", settings={})
    given = {"attack": Noise(), "threat": THREAT, **BATCH}
    first = evaluate(tiny_clip, toy_pairs, modalities=True, run=run, label="one", **given)
    second = evaluate(tiny_clip, toy_pairs, run=run, label="two", **BATCH)
    assert sorted(run.summary["results"]) == [
        f"retrieval/{name}" for name in ("one/image", "one/joint", "one/text", "two/clean")
    ]
    assert len(run.rows) == 4 * len(second.rows)
    alone = evaluate(tiny_clip, toy_pairs, **given)
    assert [row["robust_rank"] for row in first.of("joint").rows] == [row["robust_rank"] for row in alone.rows]


def test_examples_show_what_was_ranked(tiny_clip, toy_pairs, tmp_path):
    run = RunFolder.open(tmp_path / "run", settings={})
    given = {"threat": THREAT, "run": run, "examples": 3, **BATCH}
    result = evaluate(tiny_clip, toy_pairs, attack=Noise(), **given)
    right = {d: [r for r in result.rows if r["direction"] == d and r["clean_rank"] == 1] for d in ("tr", "ir")}
    assert len(result.examples) == sum(min(3, len(rows)) for rows in right.values()) > 0
    sources = {
        (tiny_clip.preprocess([toy_pairs.image(i)])[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy().tobytes()
        for i in range(len(toy_pairs.images))
    }
    texts = {row["query"]: row for row in right["ir"]}
    for example in result.examples:
        before, after = example.answers["Found without attack"], example.answers["Found under attack"]
        assert before[0].right
        asked = example.asked[0]
        if asked.text is None:  # a picture asks for texts
            assert asked.clean.tobytes() in sources
            assert 0 < np.abs(asked.clean.astype(int) - asked.picture.astype(int)).max() <= 8
            assert all(item.source in toy_pairs.texts for item in after)
        else:
            row = texts[asked.text]
            assert (example.asked[1].text, example.asked[1].source) == (row["adversarial_text"], row["query"])
            places = [place for place, item in enumerate(after, start=1) if item.right]
            assert row["robust_rank"] == places[0] if places else row["robust_rank"] > 5
            assert all(item.picture.tobytes() in sources for item in before)
            assert any(item.picture.tobytes() not in sources for item in after)
    again = evaluate(tiny_clip, toy_pairs, attack=Noise(stop_at=0), **given)
    assert [example.to_dict() for example in again.examples] == [example.to_dict() for example in result.examples]
    for one, other in zip(again.examples, result.examples, strict=True):
        assert all(
            one_item.picture is None or np.array_equal(one_item.picture, item.picture)
            for one_item, item in zip(one.items, other.items, strict=True)
        )


def test_the_model_is_left_as_it_was(tiny_clip, toy_pairs):
    tiny_clip.train()
    before = {name: value.clone() for name, value in tiny_clip.state_dict().items()}
    evaluate(tiny_clip, toy_pairs, attack=Noise(), threat=THREAT, **BATCH)
    assert tiny_clip.training
    assert all(parameter.requires_grad for parameter in tiny_clip.parameters())
    assert all(torch.equal(value, before[name]) for name, value in tiny_clip.state_dict().items())


def test_bad_calls_are_refused_before_any_work(tiny_clip, toy_pairs, tmp_path):
    class ImagesOnly(Noise):
        uses = frozenset({"image"})

    empty = OneToManyPairs("none", "test", (), (), np.zeros((0, 2), np.int64))
    gone = replace(toy_pairs, images=(*toy_pairs.images[:-1], Picture("gone", tmp_path / "gone.png")))
    for call, said in (
        (lambda: evaluate(tiny_clip, empty), "has 0 images and 0 texts"),
        (lambda: evaluate(tiny_clip, gone), "1 are missing: .*gone.png"),
        (lambda: evaluate(tiny_clip, toy_pairs, attack=Noise()), "Expected a threat model .* 'noise'"),
        (lambda: evaluate(tiny_clip, toy_pairs, attack=Noise(), threat=ThreatModel()), "Expected a threat model"),
        (lambda: evaluate(tiny_clip, toy_pairs, threat=THREAT), "Expected an attack for the threat"),
        (lambda: evaluate(tiny_clip, toy_pairs, attack=ImagesOnly(), threat=THREAT), r"can use \(image\).*text"),
        (lambda: evaluate(tiny_clip, toy_pairs, batch_size=0), "`batch_size` to be a whole number >= 1"),
        (lambda: evaluate(tiny_clip, toy_pairs, reranc=3), "did you mean 'rerank'"),
        (lambda: evaluate(tiny_clip, toy_pairs, task="retreival"), "did you mean 'retrieval'"),
        (
            lambda: evaluate(tiny_clip, toy_pairs, attack=Noise(), threat=THREAT, attack_options={"steps": 1}),
            "only with one attack given by its name",
        ),
        (
            lambda: evaluate(tiny_clip, toy_pairs, attack=Noise(), threat=ThreatModel(), modalities=True),
            "Expected a threat model",
        ),
    ):
        with pytest.raises(ValueError, match=said):
            call()


def test_a_model_without_the_protocol_is_refused():
    class Half(torch.nn.Module):
        name = "half"

        def encode_image(self, pixels):
            return pixels

    with pytest.raises(TypeError, match=r"Half lacks: image_size, .*encode_text, logit_scale"):
        check_model(Half())
    with pytest.raises(TypeError, match=r"object lacks: torch.nn.Module as a base class"):
        check_model(object())


def test_pixels_off_the_grid_are_refused(tiny_clip, toy_pairs, monkeypatch):
    original = type(tiny_clip).preprocess
    monkeypatch.setattr(type(tiny_clip), "preprocess", lambda self, images: original(self, images) * 0.97)
    with pytest.raises(ValueError, match="whole multiples of 1/255"):
        evaluate(tiny_clip, toy_pairs)


def test_towers_of_different_width_are_refused(tiny_clip, toy_pairs, monkeypatch):
    original = type(tiny_clip).encode_image
    monkeypatch.setattr(type(tiny_clip), "encode_image", lambda self, pixels: original(self, pixels)[:, :7])
    with pytest.raises(ValueError, match="gives 7 and 16"):
        evaluate(tiny_clip, toy_pairs)


def test_broken_weights_are_refused(tiny_clip, toy_pairs):
    with torch.no_grad():
        tiny_clip.network.visual_projection.weight.fill_(torch.nan)
    with pytest.raises(ValueError, match="NaN"):
        evaluate(tiny_clip, toy_pairs)


def test_an_attack_is_found_by_its_name(tiny_clip, toy_pairs):
    from crossguard.attacks.pgd import PGD

    threat = THREAT.only("image")
    named = evaluate(tiny_clip, toy_pairs, attack="pgd", attack_options={"steps": 2}, threat=threat, **BATCH)
    given = evaluate(tiny_clip, toy_pairs, attack=PGD(steps=2), threat=threat, **BATCH)
    assert named.rows == given.rows
    assert named.settings["attack_options"]["steps"] == 2
    with pytest.raises(ValueError, match="Unknown attack 'pdg': did you mean 'pgd'"):
        evaluate(tiny_clip, toy_pairs, attack="pdg", threat=threat)
    with pytest.raises(ValueError, match="did you mean 'steps'"):
        evaluate(tiny_clip, toy_pairs, attack="pgd", attack_options={"stepps": 2}, threat=threat)


def test_other_options_of_an_attack_are_refused_by_name(tiny_clip, toy_pairs, tmp_path):
    run = RunFolder.open(tmp_path / "run", settings={})
    given = {"attack": "pgd", "threat": THREAT.only("image"), "run": run, **BATCH}
    evaluate(tiny_clip, toy_pairs, attack_options={"steps": 1}, **given)
    with pytest.raises(ValueError, match=r"`attack_options\.steps` is 1 there and 2 now"):
        evaluate(tiny_clip, toy_pairs, attack_options={"steps": 2}, **given)


def test_a_device_is_used_and_left(tiny_clip, toy_pairs):
    seen = []
    tiny_clip.network.vision_model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["pixel_values"].device), with_kwargs=True
    )
    evaluate(tiny_clip, toy_pairs, device="cpu")
    assert set(seen) == {torch.device("cpu")}
    assert next(tiny_clip.parameters()).device == torch.device("cpu")


def test_pixels_outside_the_range_are_refused(tiny_clip, toy_pairs, monkeypatch):
    original = type(tiny_clip).preprocess
    monkeypatch.setattr(type(tiny_clip), "preprocess", lambda self, images: original(self, images) * 2)
    with pytest.raises(ValueError, match=r"in \[0, 1\], before normalisation, but got .*2"):
        evaluate(tiny_clip, toy_pairs)


def test_a_lost_embedding_is_noticed(tiny_clip, toy_pairs, monkeypatch):
    original = type(tiny_clip).encode_text
    monkeypatch.setattr(type(tiny_clip), "encode_text", lambda self, texts: original(self, texts)[1:])
    with pytest.raises(ValueError, match=r"`encode_text` to give \[\d+, dim\]"):
        evaluate(tiny_clip, toy_pairs)


def test_lost_example_pictures_are_made_again(tiny_clip, toy_pairs, tmp_path):
    run = RunFolder.open(tmp_path / "run", settings={})
    given = {"attack": Noise(), "threat": THREAT, "run": run, **BATCH}
    first = evaluate(tiny_clip, toy_pairs, **given)
    pictures = next((tmp_path / "run" / "examples").rglob("*.npz"))
    whole = pictures.read_bytes()
    pictures.write_bytes(whole[:100])
    again = evaluate(tiny_clip, toy_pairs, **{**given, "attack": Noise(stop_at=0)})
    assert again.rows == first.rows
    assert pictures.read_bytes() == whole
    assert len(run.rows) == len(first.rows)
