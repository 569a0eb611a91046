"""Parts of one's own by name: files and modules that register them, what a run keeps of it, and what is refused."""

import json
import os
import re
import sys
from pathlib import Path

import pytest

from command_line import invoke, said
from crossguard import imports
from crossguard.attacks import ATTACKS, PGD, make_attack, register_attack
from crossguard.attacks.base import Attack
from crossguard.augment import AUGMENTATIONS, augment, register_augmentation
from crossguard.data import DATASETS, load_pairs, register_data
from crossguard.models import MODELS, load_model, register_model
from crossguard.training import DEFENCES, Contrast, register_defence
from shared import write_annotations

PAGE = Path(__file__).parents[1] / "docs" / "own-parts.md"
MINE = """
from crossguard.attacks import PGD, register_attack

class Mine(PGD):
    name = "mine"

register_attack("mine", Mine, summary="PGD under a name of my own")
"""


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """Take out again what a test registers and imports."""
    monkeypatch.delenv(imports.VARIABLE, raising=False)
    tables = (ATTACKS, DEFENCES, MODELS, DATASETS, AUGMENTATIONS)
    held, loaded = [dict(table) for table in tables], set(sys.modules)
    monkeypatch.setattr(imports, "_imported", {})
    yield
    for table, rows in zip(tables, held, strict=True):
        table.clear()
        table.update(rows)
    for name in set(sys.modules) - loaded:
        if "crossguard" not in name and name in ("mine", "broken", "mymodule"):
            del sys.modules[name]


@pytest.fixture
def mine(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    return file


@pytest.fixture
def recipe(tmp_path, toy_pairs):
    file = tmp_path / "mine.yaml"
    settings = {
        "verb": "evaluate",
        "run": str(tmp_path / "run"),
        "model": "emoji-clip",
        "data": write_annotations(toy_pairs.head(6), tmp_path / "test.json"),
        "attack": {"name": "mine"},
        "threat": {"image": {"eps": "2/255"}},
    }
    file.write_text(json.dumps(settings))
    return file


def test_five_lines_in_a_file_are_an_attack_for_a_recipe_that_resumes(recipe, mine, tmp_path):
    text = said("evaluate", recipe, code=2)
    assert "unknown name 'mine'" in text
    assert "--import" in text

    first = json.loads(invoke("evaluate", recipe, "--import", mine, "--json", "-q").stdout)
    assert first[0]["attack"] == "mine"
    kept = json.loads((tmp_path / "run" / "run.json").read_text())["imports"]
    assert list(kept) == [str(mine)]
    assert re.fullmatch("[0-9a-f]{64}", kept[str(mine)])
    again = json.loads(invoke("evaluate", recipe, "--import", mine, "--json", "-q").stdout)
    assert again == first
    assert "mine" in (tmp_path / "run" / "report.html").read_text()


def test_a_run_goes_on_only_with_the_same_code(recipe, mine, monkeypatch):
    invoke("evaluate", recipe, "--import", mine, "-q")
    mine.write_text(MINE + "\n# changed\n")
    monkeypatch.setattr(imports, "_imported", {})
    assert "`imports." in said("evaluate", recipe, "--import", mine, code=2)


def test_a_listing_and_validate_know_what_was_imported(recipe, mine):
    assert "mine" not in {row["name"] for row in json.loads(invoke("list", "attacks", "--json").stdout)}
    assert "mine" in {row["name"] for row in json.loads(invoke("list", "attacks", "--json", "--import", mine).stdout)}
    assert "valid" in said("validate", recipe, "--import", mine)


def test_the_environment_and_modules_name_parts_too(recipe, mine, monkeypatch):
    mine.rename(mine.with_name("mymodule.py"))
    monkeypatch.chdir(mine.parent)
    monkeypatch.setenv(imports.VARIABLE, os.pathsep.join(["mymodule", ""]))
    assert "valid" in said("validate", recipe)
    assert list(imports.imported()) == ["mymodule"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, r"there is no file .*broken\.py"),
        ("x = 1\nraise KeyError('here')", r"failed in broken\.py, line 2: KeyError: 'here'"),
        ("def f(:\n", r"line 1 is no Python"),
        ("import not_a_module_at_all", r"failed in broken\.py, line 1: ModuleNotFoundError"),
        (MINE.replace('"mine"', '"pgd"'), r"'pgd' is one of crossguard's own"),
    ],
)
def test_what_cannot_be_imported_is_told_with_its_line(content, told, recipe, tmp_path):
    file = tmp_path / "broken.py"
    if content is not None:
        file.write_text(content)
    assert re.search(told, said("validate", recipe, "--import", file, code=2).replace("\n", " "))
    assert "broken" not in sys.modules


def test_an_empty_name_is_told(recipe):
    assert "but got an empty name" in said("validate", recipe, "--import", "", code=2)


def test_a_module_that_is_not_there_is_told(recipe):
    assert "no_such_module" in said("validate", recipe, "--import", "no_such_module", code=2)


def test_the_page_s_parts_work(toy_pairs, tmp_path):
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S):
        exec(compile(block, "own-parts.md", "exec"), {})
    assert make_attack("mine", steps=8).steps == 8
    assert load_model("mine-clip").name == "mine-clip"
    assert DEFENCES["half-and-half"].attacks == {"image", "text"}
    made = augment(toy_pairs, sources=[{"name": "prefixed", "options": {"words": "see"}}], folder=tmp_path / "made")
    assert set(made.texts) == {*toy_pairs.texts, *(f"see {text}" for text in toy_pairs.texts)}
    found = load_pairs("emoji-faces", split="val", group="cat")
    assert found.texts
    assert all("cat" in text for text in found.texts)


@pytest.mark.usefixtures("unchecked")
def test_parts_that_are_none_are_refused():
    class NoRun(Attack):
        name, uses = "no-run", frozenset({"image"})

    class Renamed(PGD):
        name = "renamed"

    with pytest.raises(ValueError, match="with a `run`"):
        register_attack("no-run", NoRun, summary="")
    with pytest.raises(ValueError, match="Expected `name = 'other'` in Renamed, but it is 'renamed'"):
        register_attack("other", Renamed, summary="")
    with pytest.raises(ValueError, match="at least one `Term`"):
        register_defence("mine", [], summary="")
    with pytest.raises(ValueError, match="one of crossguard's own"):
        register_defence("mat", [Contrast("clean", "clean")], summary="")
    with pytest.raises(ValueError, match="one of crossguard's own"):
        register_data("emoji", load_pairs, summary="")
    with pytest.raises(ValueError, match="one of crossguard's own"):
        register_augmentation("eda", make_attack, summary="")
    with pytest.raises(ValueError, match=r"'clip' has \['clip'\]"):
        register_model("mine", load_model, summary="", model_types=["clip"])


def test_a_part_may_be_registered_again():
    class Mine(PGD):
        name = "mine"

    for summary in ("first", "second"):
        register_attack("mine", Mine, summary=summary)
    assert ATTACKS["mine"].summary == "second"
