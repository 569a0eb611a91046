"""`crossguard augment` and its recipes."""

import json

import pytest
import typer
from typer.testing import CliRunner

from crossguard.augment import load_augmented
from crossguard.cli.augment import register
from crossguard.recipes import AugmentRecipe, RecipeError, check_names, parse_recipe, read_recipe, shipped_recipes


@pytest.fixture
def app():
    app = typer.Typer(pretty_exceptions_enable=False)
    register(app)
    app.callback()(lambda: None)  # a second verb would do: the name of the verb must be given
    return app


@pytest.fixture
def recipe(tmp_path, toy_pairs):
    """A recipe over the toy pictures with a tiny reference model."""
    from shared import make_clip

    make_clip().save_pretrained(tmp_path / "model")
    rows = [
        {"image": picture.path.name, "caption": [toy_pairs.texts[j] for j in toy_pairs.texts_of(i)]}
        for i, picture in enumerate(toy_pairs.images)
    ]
    (tmp_path / "toy.json").write_text(json.dumps(rows))
    path = tmp_path / "toy.yaml"
    path.write_text(
        f"""
        verb: augment
        run: {tmp_path / "run"}
        data:
          name: json
          split: train
          options: {{annotations: {tmp_path / "toy.json"}, root: {toy_pairs.images[0].path.parent}}}
        originals: {{texts_per_image: 1}}
        sources:
          - name: own-texts
          - name: eda
            options: {{alpha: 0.2}}
          - name: randaugment
            options: {{magnitude: 5}}
        per_sample: 2
        model: {tmp_path / "model"}
        device: cpu
        """
    )
    return path


def run(app, *arguments):
    return CliRunner().invoke(app, ["augment", *map(str, arguments)])


def test_the_table_and_the_folder(app, recipe, tmp_path):
    result = run(app, recipe)
    assert result.exit_code == 0, result.output
    for word in ("originals", "own-texts", "eda", "randaugment", "alignment", "diversity", "gap", "filtered"):
        assert word in result.stdout
    assert "Augment: eda" in result.stderr
    augmented = load_augmented(tmp_path / "run", split="train")
    assert f"{len(augmented.links)} links" in result.stdout
    assert augmented.text_kinds.count("own-texts") > 0


def test_json_is_all_that_is_printed_and_options_win(app, recipe, tmp_path):
    result = run(
        app, recipe, "min_alignment=0.99", "--json", "-q", "--max-samples", 5, "--seed", 3, "--run", tmp_path / "b"
    )
    assert "Augment" not in result.stderr
    told = json.loads(result.stdout)
    assert (told["original_images"], told["run"]) == (5, str(tmp_path / "b"))
    made = {row["source"]: row for row in told["sources"][2:]}
    assert made.keys() == {"own-texts", "eda", "randaugment"}
    assert made["randaugment"]["made"] == 10 == made["randaugment"]["filtered"]
    assert told["images"] == 5
    assert json.loads((tmp_path / "b" / "run.json").read_text())["seed"] == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("sources=[{name: edda}]", "did you mean 'eda'"),
        ("sources=[{name: eda, optoins: {}}]", "did you mean 'options'"),
        ("sources=[]", "at least 1 item"),
        ("sources=[{name: eda, options: {alfa: 1}}]", "did you mean 'alpha'"),
        ("data.name=watch", "holds samples, but this verb takes pairs"),
        ("min_alignment=3", "less than or equal to 1"),
        ("verb=certify", "mistake"),
    ],
)
def test_mistakes_are_told(app, recipe, change, message):
    result = run(app, recipe, change)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_other_settings_in_the_same_folder(app, recipe):
    assert run(app, recipe, "-q").exit_code == 0
    result = run(app, recipe, "per_sample=3")
    assert result.exit_code == 2
    assert "`per_sample` is 2 there and 3 now" in result.stderr


SHIPPED = [name for name, path in shipped_recipes().items() if "verb: augment" in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_recipes(name):
    settings = read_recipe(name)
    assert isinstance(settings, AugmentRecipe)
    assert not [problem for problem in check_names(settings) if "model" not in problem]
    first, second, *lines = shipped_recipes()[name].read_text(encoding="utf-8").splitlines()
    assert first == f"# crossguard augment {name}"
    assert second.startswith("# ")
    bare = [line for line in lines if "#" not in line and not line.rstrip().endswith(":") and "seed" not in line]
    assert bare == ["verb: augment"]


def test_there_are_shipped_recipes():
    assert "emoji-augment" in SHIPPED


def test_an_unknown_key_below_a_list_names_the_nearest():
    values = {"verb": "augment", "run": "r", "data": {"name": "emoji"}, "sources": [{"name": "eda", "opions": {}}]}
    with pytest.raises(RecipeError, match=r"sources\.0\.opions: unknown key; did you mean 'options'"):
        parse_recipe(values, source="x")
