"""Recipes: every mistake at once, the nearest key named, overrides typed as YAML types them."""

import pytest

from crossguard.recipes import RecipeError, apply_overrides, find_recipe, parse_recipe, read_recipe, shipped_recipes

GOOD = {
    "verb": "evaluate",
    "run": "runs/x",
    "model": "emoji-clip",
    "data": {"name": "emoji"},
    "attack": {"name": "sga"},
    "threat": {"image": {"eps": "2/255"}, "text": {"words": 1}},
}


def test_fractions_are_numbers():
    recipe = parse_recipe(GOOD, source="x")
    (threat,) = recipe.threat.build()
    assert threat["image"].eps == pytest.approx(2 / 255, abs=1e-15)
    assert threat["text"].words == 1


@pytest.mark.parametrize(
    ("text", "value"), [("0.5/255", 0.5 / 255), ("4 / 255", 4 / 255), ("1e-3", 1e-3), ("1E+2", 100.0)]
)
def test_numbers_in_options_are_read_as_people_write_them(text, value):
    recipe = parse_recipe(apply_overrides(GOOD, [f"attack.options.step={text}"], source="x"), source="x")
    assert recipe.attack.options["step"] == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        (
            "threat.image.eps=2",
            "threat.image.eps: input should be less than or equal to 1, but got 2 (pixels are in [0, 1]",
        ),
        ("threat.image.eps=2/0", "but got '2/0'"),
        ("attack=sga", "attack: expected a mapping with name, options, but got 'sga'"),
        ("data=emoji", "data: expected a mapping with name, split, options, but got 'emoji'"),
        ("threat.image=2/255", "threat.image: expected a mapping with eps, l2, elements, patch, but got '2/255'"),
        ("seed=[1", "override 'seed=[1': expected YAML after '=', but got: while parsing a flow sequence"),
    ],
)
def test_values_that_do_not_fit_are_told(override, told):
    with pytest.raises(RecipeError) as error:
        parse_recipe(apply_overrides(GOOD, [override], source="x"), source="x")
    assert told in str(error.value)


def test_a_folder_is_no_recipe(tmp_path):
    with pytest.raises(ValueError, match="Expected a recipe file at .*, but there is a folder."):
        read_recipe(str(tmp_path))


def test_a_modality_left_out_is_not_attacked():
    recipe = parse_recipe({**GOOD, "threat": {"text": {"words": 2}}}, source="x")
    assert [set(threat) for threat in recipe.threat.build()] == [{"text"}]


def test_all_mistakes_are_told_at_once_with_the_nearest_key():
    wrong = {**GOOD, "sed": 1, "batch_size": 0, "threat": {"image": {"epss": 1}, "txt": {}}}
    del wrong["model"]
    with pytest.raises(RecipeError) as caught:
        parse_recipe(wrong, source="mine.yaml")
    text = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 5
    assert "sed: unknown key; did you mean 'seed'" in text
    assert "threat.image.epss: unknown key; did you mean 'eps'" in text
    assert "threat.txt: unknown key; did you mean 'text'" in text
    assert "model: missing" in text
    assert "batch_size: input should be greater than 0, but got 0" in text


def test_an_unknown_verb_names_the_nearest():
    with pytest.raises(RecipeError, match="did you mean 'train'"):
        parse_recipe({**GOOD, "verb": "trian"}, source="x")


def test_overrides_reach_into_sections_and_are_typed():
    values = apply_overrides(
        GOOD, ["data.split=val", "seed=7", "threat.image.eps=4/255", "attack.options.steps=3"], source="x"
    )
    recipe = parse_recipe(values, source="x")
    assert (recipe.data.split, recipe.seed, recipe.attack.options) == ("val", 7, {"steps": 3})
    assert recipe.threat.image[0].eps == pytest.approx(4 / 255)
    assert GOOD["data"] == {"name": "emoji"}


def test_overrides_reach_into_lists():
    values = {"sources": [{"name": "eda"}, {"name": "crops"}]}
    assert apply_overrides(values, ["sources.1.name=mine"], source="x") == {
        "sources": [{"name": "eda"}, {"name": "mine"}]
    }
    with pytest.raises(RecipeError, match="expected key.sub=value"):
        apply_overrides(values, ["sources.2.name=mine"], source="x")


@pytest.mark.parametrize("override", ["seed", "model.name=x", "=3", "a..b=1"])
def test_a_broken_override_is_refused(override):
    with pytest.raises(RecipeError, match="expected key.sub=value"):
        apply_overrides(GOOD, [override], source="x")


def test_a_file_that_is_not_yaml(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("verb: [")
    with pytest.raises(RecipeError, match="expected YAML"):
        read_recipe(str(path))
    path.write_text("- 1")
    with pytest.raises(RecipeError, match="mapping"):
        read_recipe(str(path))


def test_a_missing_recipe_is_named():
    with pytest.raises(ValueError, match=r"no-such\.yaml"):
        find_recipe("no-such.yaml")
    with pytest.raises(ValueError, match="Unknown recipe"):
        find_recipe("no-such")


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_every_shipped_recipe_is_valid_and_opens_with_its_launch_command(name):
    path = shipped_recipes()[name]
    recipe = read_recipe(name)
    assert path.read_text().startswith(f"# crossguard {recipe.verb} {name}")


def test_settings_keep_their_order():
    """The arms of a study are the rows of its tables, in the order of the recipe."""
    values = {"b": {"z": 1, "a": 2}, "a": 3}
    found = apply_overrides(values, ["c=1"], source="x")
    assert [*found] == ["b", "a", "c"]
    assert [*found["b"]] == ["z", "a"]
