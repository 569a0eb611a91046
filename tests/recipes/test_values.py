"""What the values of a recipe may be: YAML 1.2 of limited size, strict types, and mistakes that need no data."""

import pytest

from crossguard.recipes import RecipeError, check_names, find_recipe, parse_recipe, read_recipe, shipped_recipes
from crossguard.recipes.load import apply_overrides
from crossguard.recipes.values import DEEPEST, LARGEST, MOST, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"),
        ("on", "on"),
        ("No", "No"),
        ("true", True),
        ("010", 10),
        ("0o17", 15),
        ("0x1F", 31),
        ("0b11", "0b11"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2001-01-01", "2001-01-01"),
        ("1e-4", 1e-4),
        ("+.5E3", 500.0),
        ("-3", -3),
        ("~", None),
        ("", None),
        ("'1'", "1"),
        ("<<: 1", {"<<": 1}),
        ("a: &x [1]\nb: *x", {"a": [1], "b": [1]}),
    ],
)
def test_yaml_has_the_meaning_of_its_version_1_2(text, value):
    assert read_yaml(text) == value
    assert type(read_yaml(text)) is type(value)


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\na: 2", "the key 'a' twice in line 2"),
        ("{a: {b: 1, b: 2}}", "the key 'b' twice"),
        (".inf", "no finite number"),
        ("[-.inf]", "no finite number"),
        (".nan", "no finite number"),
        ("1e999", "no finite number"),
        ("9" * 5000, "expected YAML, but got"),
        ("[" * 1500, f"at most {DEEPEST} mappings and lists"),
        ("- " * 1500, f"at most {DEEPEST} mappings and lists"),
        (BOMB, f"at most {MOST:,} values"),
        ("&a [*a]", "one stands within its own"),
        ("#" * (LARGEST + 1), "characters of YAML"),
        ("? [1]\n: 2", "no plain value"),
        ("--- 1\n--- 2", "single document"),
        ("!!map 3", "expected YAML, but got"),
        ("!!binary aGk=", "expected YAML, but got"),
        ("!!python/object/apply:os.system [ls]", "expected YAML, but got"),
        ("\x00", "expected YAML, but got"),
    ],
)
def test_what_yaml_may_not_say(text, said):
    with pytest.raises(ValueError, match=said) as caught:
        read_yaml(text)
    assert str(caught.value).startswith("expected ")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("seed=true", "seed: input should be a valid integer, but got True"),
        ("seed=1.0", "valid integer, but got 1.0"),
        ("seed=99999999999999999999", "should be less than"),
        ("max_samples=yes", "valid integer, but got 'yes'"),
        ("threat.image.eps=yes", "valid number, but got 'yes'"),
        ("threat.image.eps=true", "valid number, but got True"),
        ("threat.image.eps=.nan", "no finite number"),
        ("batch_size=-1", "greater than 0"),
        ("batch_size=10000000000", "less than or equal to"),
        ("model=3", "valid string, but got 3"),
        ("run=", "valid string, but got None"),
        ("run=''", "expected a path"),
        ("verb=[]", r"verb: \[\]: known: augment"),
        ("verb=on", "verb: 'on': known"),
        ("data.options={1: 2}", "valid string, but got 1"),
    ],
)
def test_types_and_ranges_are_strict(override, said):
    with pytest.raises(RecipeError, match=said):
        read_recipe("emoji-sga", [override])


def test_long_values_are_cut_in_messages():
    with pytest.raises(RecipeError) as caught:
        read_recipe("emoji-sga", [f"seed={'x' * 10_000}"])
    assert len(str(caught.value)) < 1000


def test_the_home_folder_is_meant_by_its_sign(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    recipe = read_recipe("emoji-sga", ["run=~/runs/a", "save_to=~/set", "model=~/clip"])
    assert (recipe.run, recipe.save_to, recipe.model) == tuple(str(tmp_path / n) for n in ("runs/a", "set", "clip"))


def test_the_home_of_nobody_is_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for act in (lambda: read_recipe("~nobody-at-all"), lambda: read_recipe("~nobody-at-all/x.yaml")):
        with pytest.raises(ValueError, match="recipe"):
            act()
    (tmp_path / "~nobody-at-all").mkdir()
    assert read_recipe("emoji-sga", ["run=~nobody-at-all/x"]).run == "~nobody-at-all/x"


def test_a_run_cannot_be_where_a_file_is(tmp_path):
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file", tmp_path / "file" / "run"):
        assert check_names(read_recipe("emoji-sga", [f"run={place}"])) == [
            f"run: expected a folder, but {tmp_path / 'file'} is a file"
        ]
    assert not check_names(read_recipe("emoji-sga", [f"run={tmp_path / 'new' / 'run'}"]))


def test_the_split_is_that_of_the_use():
    given = {"name": "json", "options": {"annotations": "a.json", "root": "."}}
    train = read_recipe("emoji-mat", ["data={name: emoji}", "validation={name: emoji, split: null}"])
    assert (train.data.split, train.validation.split) == ("train", "val")
    assert read_recipe("emoji-mat", ["data={name: emoji, split: test}"]).data.split == "test"
    certify = read_recipe("watch-certify", ["train.data={name: watch}", "data={name: watch}"])
    assert (certify.train.data.split, certify.data.split) == ("train", None)
    judged = {"verb": "evaluate", "run": "x", "model": "emoji-clip", "data": given}
    assert parse_recipe(judged, source="x").data.split is None  # the file's name tells


def test_a_folder_may_be_called_as_a_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "emoji-sga").mkdir()
    assert find_recipe("emoji-sga") == shipped_recipes()["emoji-sga"]
    with pytest.raises(ValueError, match="there is a folder"):
        find_recipe("./emoji-sga")


@pytest.mark.parametrize(
    ("recipe", "overrides", "said"),
    [
        ("emoji-sga", ["attack.options.steps=-1"], "attack.options: expected `steps` >= 1"),
        ("emoji-sga", ["attack=null"], "threat: expected an attack"),
        ("emoji-sga", ["threat={}"], "threat: expected a threat model"),
        ("emoji-sga", ["attack={name: sparse}", "threat={image: {eps: 0.1}}"], "expected Elements or Patch"),
        ("emoji-sga", ["device=gpu"], "device: expected a device of PyTorch"),
        ("emoji-sga", ["task=captioning"], "model: expected a captioner model"),
        ("emoji-sga", ["attack.options.source=thesauru"], "did you mean 'thesaurus'"),
        ("emoji-sga", ["attack.options.source=3"], "attack.options.source: unknown name 3"),
        ("emoji-sga", ["attack.options.source={name: masked-lm}"], "expected the option 'model'"),
        ("emoji-sga", ["attack={name: saved, options: {folder: /nowhere}}"], "expected an adversarial set"),
        ("emoji-mat", ["options.keep=best", "validation=null"], "options.keep: expected `validation`"),
        ("emoji-mat", ["options.warmup=2.0"], r"expected `warmup` in \[0, 1\)"),
        ("emoji-mat", ["options.lora={rank: 0}"], "options.lora: expected `lora.rank`"),
        ("emoji-mat", ["options.lora={layers: 3}"], "options.lora: expected option `layers`"),
        ("emoji-mat", ["options.links=new-originals"], "new_originals: expected it together"),
        ("emoji-mat", ["options.links=abc"], "unknown `links`"),
        ("emoji-mat", ["options.precision=fp8"], "unknown `precision`"),
        ("emoji-mat", ["options.tracker=x"], "unknown `tracker`"),
        ("emoji-mat", ["threat={}"], "threat: expected an image budget"),
        ("emoji-mat", ["options.positives=drawn"], "options.positives: expected 'summed'"),
        ("emoji-augment", ["sources.0.options.alpha=-1"], "expected `alpha` in"),
        ("emoji-augment", ["sources.0.options.alphaa=1"], "did you mean 'alpha'"),
        ("emoji-augment", ["sources=[{name: eda}, {name: eda}]"], "expected every source once"),
        ("emoji-augment", ["model=null", "min_alignment=0.5"], "min_alignment: expected a `model`"),
        ("watch-certify", ["curve={direction: {accel: 1}, steps: 2}"], "did you mean 'accelerometer'"),
        ("watch-certify", ["train.model={foo: 1}"], "unknown option 'foo'"),
        ("watch-certify", ["train.options={lr: x}"], "expected option `lr`"),
        ("watch-certify", ["train.augment=flip-and-tint"], "train.augment: expected 'turn-sensors'"),
        ("watch-certify", ["positive=a"], "positive: expected it for masks alone"),
        ("roads-certify", ["bound=gap"], "bound: expected 'majority' for masks"),
    ],
)
def test_validate_knows_what_the_verb_would_refuse(recipe, overrides, said):
    (problem,) = check_names(read_recipe(recipe, overrides))
    with pytest.raises(ValueError, match=said):
        raise ValueError(problem)


def test_an_override_says_what_is_wrong_with_it():
    with pytest.raises(RecipeError, match=r"override 'a=\[': expected YAML after '='"):
        apply_overrides({}, ["a=["], source="x")
