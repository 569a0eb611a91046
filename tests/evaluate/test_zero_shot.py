"""Zero-shot classification against cosines done by hand, under attack, and taken up after an interruption."""

import json

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

import crossguard as cg
from crossguard.checks import WrongKind
from crossguard.data import LabelledImages
from crossguard.evaluate.tasks.samples import NamedAttack
from crossguard.evaluate.tasks.zero_shot import ZeroShot
from crossguard.runs import RunFolder
from shared import fit_clip

THREAT = cg.ThreatModel(image=cg.LInf(8 / 255))


@pytest.fixture
def images(toy_pairs):
    names = ("disc", "square", "cross")
    labels = [next(i for i, name in enumerate(names) if name in picture.key) for picture in toy_pairs.images]
    return LabelledImages("shapes", "test", toy_pairs.images, np.array(labels), names, ("a {c}", "the red {c}"))


@pytest.fixture
def model(toy_pairs):
    return fit_clip(toy_pairs)


def by_hand(model, images, pixels):
    """Each picture's nearest class, one after the other."""
    classes = []
    for name in images.classes:
        prompts = [
            normalize(model.encode_text([template.replace("{c}", name)])[0], dim=0) for template in images.templates
        ]
        classes.append(normalize(torch.stack(prompts).mean(dim=0), dim=0))
    return [
        max(range(len(classes)), key=lambda c: float(normalize(model.encode_image(one[None])[0], dim=0) @ classes[c]))
        for one in pixels
    ]


@torch.no_grad()
def test_rows_are_the_nearest_classes_clean_and_under_attack(model, images, tmp_path):
    with RunFolder.open(tmp_path / "run", settings={}) as run:
        result = cg.evaluate(model, images, attack="pgd", threat=THREAT, batch_size=10, run=run, seed=3)
    assert result.task == "zero-shot"
    pixels = model.preprocess([images.image(i) for i in range(len(images))])
    stored = sorted((tmp_path / "run" / "adversarial").rglob("batch-*.npz"))
    moved = torch.from_numpy(np.concatenate([np.load(path)["values/image"] for path in stored]))
    assert 0 < float((moved - pixels).abs().max()) <= 8 / 255 + 1e-6
    for side, seen in (("clean", pixels), ("robust", moved)):
        found = [images.classes[c] for c in by_hand(model, images, seen)]
        assert [row[side] for row in result.rows] == found
        right = np.mean([name == images.classes[label] for name, label in zip(found, images.labels, strict=True)])
        assert getattr(result, side)["accuracy"] == pytest.approx(100 * right)
    assert [row["image"] for row in result.rows] == [picture.key for picture in images.images]
    assert result.robust["accuracy"] < result.clean["accuracy"]
    for example in result.examples:
        asked = example.asked[0]
        assert np.abs(asked.picture.astype(int) - asked.clean).max() <= 8
        assert example.answers["Without attack"][0].right


def test_every_attack_on_classifiers_is_one_on_pictures(model, images):
    few = images.spread(6)
    for name, options in (("apgd", {"steps": 2}), ("adaptive", {"steps": 5}), ("auto-attack", {})):
        result = cg.evaluate(model, few, attack=name, attack_options=options or None, threat=THREAT)
        assert result.robust["accuracy"] <= result.clean["accuracy"]
        assert all(row["linf"]["image"] <= 8 / 255 + 1e-6 for row in result.rows)


def test_several_attacks_are_taken_up_where_they_stopped(model, images, tmp_path, monkeypatch):
    attacks = {name: NamedAttack(name, {"steps": 3}) for name in ("pgd", "apgd")}
    given = {"attack": attacks, "threat": THREAT, "batch_size": 10, "seed": 1}
    whole = cg.evaluate(model, images, **given)
    attack, calls = ZeroShot.attack, []

    def stopping(self, *values):
        calls.append(values)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return attack(self, *values)

    monkeypatch.setattr(ZeroShot, "attack", stopping)
    with RunFolder.open(tmp_path / "run", settings={}) as run, pytest.raises(KeyboardInterrupt):
        cg.evaluate(model, images, run=run, **given)
    with RunFolder.open(tmp_path / "run", settings={}) as run:
        result = cg.evaluate(model, images, run=run, **given)
        assert len(calls) == 4 + 2 * 3 - 3
        again = cg.evaluate(model, images, run=run, **given)
        assert len(calls) == 7
    assert result.rows == again.rows == whole.rows
    assert result.figures == again.figures == whole.figures
    entries = json.loads((tmp_path / "run" / "summary.json").read_text())["results"]
    assert list(entries) == ["zero-shot/tiny, pgd/image", "zero-shot/tiny, apgd/image"]


def test_pictures_that_belong_together_are_one_group(model, images):
    together = LabelledImages(
        images.name, images.split, images.images, images.labels, images.classes, groups=np.arange(len(images)) // 2
    )
    figure = cg.evaluate(model, together).figure("clean", "accuracy")
    assert (figure.n, figure.groups) == (24, 12)


def test_the_emoji_have_subgroups():
    images = cg.load_images("emoji-classes", split="test")
    by = {name: sum(images.labels == place) for place, name in enumerate(images.classes)}
    assert len(by) > 30
    assert min(by.values()) >= 3
    assert "country flag" in by
    assert len(cg.load_images("emoji-classes", split="test", by="group").classes) == 9
    with pytest.raises(ValueError, match="'group', 'subgroup'"):
        cg.load_images("emoji-classes", by="subgroups")
    pairs = cg.load_pairs("emoji", split="test")
    assert len(images) + int(images.notes[-1].split()[0]) == len(pairs.images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attack": "pgd"}, "Expected a threat model"),
        ({"attack": "pgd", "threat": cg.ThreatModel(audio=cg.LInf(0.1))}, "modality in the threat model 'audio'"),
        ({"attack": "sga", "threat": THREAT}, "Expected an attack on samples"),
        ({"templates": ("{c}",)}, "Unknown option 'templates'"),
    ],
)
def test_mistakes_are_told_before_the_model_is_asked(model, images, options, message, monkeypatch):
    monkeypatch.setattr(type(model), "encode_image", lambda *_: pytest.fail("the model was asked"))
    with pytest.raises(ValueError, match=message):
        cg.evaluate(model, images, **options)


def test_other_models_and_data_are_refused(images, toy_pairs, model, unchecked):
    with pytest.raises(WrongKind, match="lacks: name"):
        cg.evaluate(torch.nn.Linear(2, 2), images)
    with pytest.raises(WrongKind, match="Expected LabelledImages"):
        cg.evaluate(model, toy_pairs, task="zero-shot")


class TestHalfPrecisionFirst:
    @pytest.mark.parametrize("name", ["pgd", "auto-attack"])
    def test_no_more_stands_than_under_single_precision_alone(self, model, images, name):
        given = {"attack": name, "threat": cg.ThreatModel(image=cg.LInf(2 / 255)), "batch_size": 10, "seed": 1}
        options = {"pgd": {"steps": 5}, "auto-attack": {"steps": 3, "queries": 20, "targets": 2}}
        given["attack_options"], images = options[name], images.spread(12)
        single = cg.evaluate(model, images, **given)
        both = cg.evaluate(model, images, half_first=True, **given)
        for alone, row in zip(single.rows, both.rows, strict=True):
            assert not (row["robust"] == row["label"] and alone["robust"] != alone["label"])
        assert any(row["half"] for row in both.rows)
        assert any("half precision first" in note for note in both.outcomes[0].notes)

    @torch.no_grad()
    def test_successes_are_those_of_single_precision(self, model, images, tmp_path):
        with RunFolder.open(tmp_path / "run", settings={}) as run:
            result = cg.evaluate(model, images, attack="pgd", threat=THREAT, batch_size=10, run=run, half_first=True)
        stored = sorted((tmp_path / "run" / "adversarial").rglob("batch-*.npz"))
        moved = torch.from_numpy(np.concatenate([np.load(path)["values/image"] for path in stored]))
        assert [row["robust"] for row in result.rows] == [images.classes[c] for c in by_hand(model, images, moved)]


class TestNamesUnderAttack:
    @pytest.fixture
    def named(self, images):
        return LabelledImages(
            images.name, images.split, images.images, images.labels, ("small disc", "large square", "cross"), ("a {}",)
        )

    def variants(self, name):
        """Every name one letter away in one word, none that another class has."""
        letters, words = "abcdefghijklmnopqrstuvwxyz", name.split()
        found = []
        for place, word in enumerate(words):
            edits = {word[:i] + c + word[i:] for i in range(len(word) + 1) for c in letters}
            edits |= {word[:i] + c + word[i + 1 :] for i in range(len(word)) for c in letters}
            edits |= {word[:i] + word[i + 1 :] for i in range(len(word))}
            found += [" ".join([*words[:place], edit, *words[place + 1 :]]) for edit in edits if edit and edit != word]
        return found

    @torch.no_grad()
    def test_the_worst_names_are_found(self, model, named):
        source = {"name": "characters", "limit": None}
        threat = cg.ThreatModel(text=cg.WordEdits(1))
        result = cg.evaluate(model, named, attack="pgd", threat=threat, source=source)
        pixels = model.preprocess([named.image(i) for i in range(len(named))])
        images = normalize(model.encode_image(pixels), dim=-1)
        scores = {}
        for name in named.classes:
            texts = [f"a {text}" for text in [name, *self.variants(name)]]
            scores[name] = images @ normalize(model.encode_text(texts), dim=-1).T
        for place, row in enumerate(result.rows):
            own = float(scores[row["label"]][place].min())
            others = {name: float(s[place].max()) for name, s in scores.items() if name != row["label"]}
            worst = max(others, key=others.get)
            if abs(others[worst] - own) > 1e-5:
                assert row["robust"] == (row["label"] if own > others[worst] else worst)
            assert row["edited"]["text"] <= 1
            assert row["linf"]["image"] == 0
        assert result.robust["accuracy"] < result.clean["accuracy"]

    def test_both_together_harm_at_least_as_much_as_each(self, model, named):
        given = {"attack": "pgd", "attack_options": {"steps": 2}, "objective": "margin", "batch_size": 4}
        threat = cg.ThreatModel(image=cg.LInf(1 / 255), text=cg.WordEdits(1))
        few = named.spread(8)
        result = cg.evaluate(model, few, threat=threat, source="characters", modalities=True, **given)
        right = {part: [row["robust"] == row["label"] for row in result.of(part).rows] for part in result.parts}
        assert set(right) == {"image", "text", "joint"}
        for image, text, joint in zip(*right.values(), strict=True):
            assert joint <= min(image, text)

    def test_other_budgets_are_refused(self, model, named):
        with pytest.raises(ValueError, match="Expected WordEdits as the budget of class names"):
            cg.evaluate(model, named, attack="pgd", threat=cg.ThreatModel(text=cg.Elements(1)))
        with pytest.raises(ValueError, match="Unknown candidate source"):
            cg.evaluate(model, named, attack="pgd", threat=cg.ThreatModel(text=cg.WordEdits(1)), source="dictionary")


class TestDrawing:
    def test_classes_keep_their_shares_and_every_picture_its_chance(self, images):
        uneven = images.select([*range(0, 24, 2), *range(0, 24, 2), *range(24)])
        counts = np.zeros(len(uneven))
        for seed in range(300):
            drawn = uneven.draw(16, seed=seed)
            assert len(drawn) == 16
            for label in range(3):
                share = 16 * np.mean(uneven.labels == label)
                assert abs(int((drawn.labels == label).sum()) - share) < 1
            keys = [picture.key for picture in drawn.images]
            for place, picture in enumerate(uneven.images):
                counts[place] += picture.key in keys
        assert uneven.draw(16, seed=3).images == uneven.draw(16, seed=3).images
        assert uneven.draw(16, seed=3).images != uneven.draw(16, seed=4).images
        assert uneven.draw(99, seed=0) is uneven
        alone = [p for p, picture in enumerate(uneven.images) if sum(o is picture for o in uneven.images) == 1]
        # 300 draws with chance 1/3: ten standard deviations would be 82.
        assert np.abs(counts[alone] - 100).max() < 45

    def test_templates_in_both_spellings(self, images):
        both = LabelledImages("x", "test", images.images, images.labels, images.classes, ("a {}, seen", "the {c}."))
        assert both.prompts("disc") == ("a disc, seen", "the disc.")
        with pytest.raises(ValueError, match="templates with {c} or {} in the place of a class name"):
            LabelledImages("x", "test", images.images, images.labels, images.classes, ("a photo",))


class TestTable:
    @pytest.fixture
    def recipe(self, toy_pairs, tmp_path):
        names = ("disc", "square", "cross")
        for name in names:
            (tmp_path / "shapes" / name).mkdir(parents=True)
        for picture in toy_pairs.images:
            own = next(name for name in names if name in picture.key)
            picture.load().save(tmp_path / "shapes" / own / f"{picture.key}.png")
        fit_clip(toy_pairs).save_pretrained(tmp_path / "fitted")
        fit_clip(toy_pairs, seed=1).save_pretrained(tmp_path / "other")
        for name in ("preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"):
            (tmp_path / "other" / name).unlink()
        shapes = {"name": "imagefolder", "options": {"root": str(tmp_path / "shapes")}}
        return {
            "verb": "table",
            "run": str(tmp_path / "run"),
            "models": {
                "fitted": str(tmp_path / "fitted"),
                "other": {"source": str(tmp_path / "other"), "base": str(tmp_path / "fitted")},
            },
            "sets": {
                "shapes": shapes,
                "things": {**shapes, "options": {**shapes["options"], "templates": ["a {c}", "the {c}"]}},
            },
            "attack": {"name": "pgd", "options": {"steps": 1}},
            "options": {"objective": "margin"},
            "eps": [4 / 255],
            "max_samples": 9,
        }

    def test_cells_are_evaluations_and_the_mean_is_theirs(self, recipe, tmp_path):
        from crossguard.progress import Silent
        from crossguard.recipes import open_run, parse_recipe
        from crossguard.recipes.table import as_grid, perform_table

        parsed = parse_recipe(recipe, source="test")
        with open_run(parsed) as run:
            cells = perform_table(parsed, run, progress=Silent())
            rows = len(run.rows)
            assert perform_table(parsed, run, progress=Silent()) == cells
            assert len(run.rows) == rows == 2 * 2 * 9
        found = {(c.model, c.data, c.budget): c for c in cells}
        assert len(found) == len(cells) == 2 * 3 * 2
        data = cg.load_images("imagefolder", root=tmp_path / "shapes").draw(9, seed=0)
        alone = cg.evaluate(
            cg.load_model(tmp_path / "other", base=str(tmp_path / "fitted")),
            data,
            attack="pgd",
            attack_options={"steps": 1},
            threat=cg.ThreatModel(image=cg.LInf(4 / 255)),
            objective="margin",
        )
        assert found["other", "shapes", "4/255"].value == alone.robust["accuracy"]
        assert found["other", "shapes", "clean"].value == alone.clean["accuracy"]
        for model in ("fitted", "other"):
            mean = found[model, "mean", "4/255"]
            parts = [found[model, name, "4/255"] for name in ("shapes", "things")]
            assert mean.value == pytest.approx(sum(part.value for part in parts) / 2)
            assert mean.low <= mean.value <= mean.high
        headings, lines = as_grid(cells)
        assert headings == ["clean / 4/255", "shapes", "things", "mean"]
        assert [line[0] for line in lines] == ["fitted", "other"]

    def test_mistakes_are_told_together(self, recipe):
        from crossguard.recipes import check_names, parse_recipe

        recipe |= {"models": {"a": "nowhere.pt"}, "attack": {"name": "sga"}, "sets": {"x": {"name": "emoji"}}}
        problems = check_names(parse_recipe(recipe, source="test"))
        assert len(problems) == 3
        assert "models.a: model: 'nowhere.pt' is no folder" in problems[1]
