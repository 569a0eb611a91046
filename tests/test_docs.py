"""The documentation names every row of every table and every setting, and its links and names lead somewhere."""

import importlib
import inspect
import re
from dataclasses import fields
from pathlib import Path

import pytest

from crossguard.attacks import ATTACKS, SOURCES
from crossguard.augment import AUGMENTATIONS
from crossguard.data import DATASETS
from crossguard.models import MODELS
from crossguard.recipes import VERBS, shipped_recipes
from crossguard.training import DEFENCES, TrainOptions, train

ROOT = Path(__file__).parents[1]
PAGES = {path.name: path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]}
# Given by the command line or by Python alone, never by name in a recipe.
HANDED_OVER = {"model", "pairs", "progress", "reporter", "split", "samples"}
BATCHES = {"patches_per_forward", "texts_per_forward"}


# Shown in the examples at a page's top.
PLAIN = {"defence", "threat", "steps", "seed", "batch_size", "learning_rate"}


def unnamed(page, names):
    """Return the names that a page does not set in code."""
    return sorted(name for name in names if not re.search(rf"`{re.escape(name)}[`=]", PAGES[page]))


@pytest.mark.parametrize(
    ("page", "table"),
    [
        ("attacks.md", ATTACKS),
        ("attacks.md", SOURCES),
        ("sparse.md", {name: row for name, row in ATTACKS.items() if row.samples}),
        ("training.md", DEFENCES),
        ("models.md", MODELS),
        ("your-own-data.md", DATASETS),
        ("augmentation.md", AUGMENTATIONS),
        ("recipes.md", shipped_recipes()),
        ("recipes.md", VERBS),
    ],
)
def test_every_row_of_a_table_is_named(page, table):
    assert unnamed(page, table) == []


@pytest.mark.parametrize(
    ("page", "table"),
    [
        ("attacks.md", {name: row for name, row in ATTACKS.items() if name != "sparse"}),  # on its own page
        ("sparse.md", {"sparse": ATTACKS["sparse"]}),
        ("attacks.md", SOURCES),
        ("augmentation.md", AUGMENTATIONS),
        ("your-own-data.md", DATASETS),
    ],
)
def test_every_option_of_a_row_is_named(page, table):
    for row in table.values():
        parameters = inspect.signature(row.build if hasattr(row, "build") else row.load).parameters
        assert unnamed(page, set(parameters) - HANDED_OVER - BATCHES - {"name"}) == [], row.name


def test_every_option_of_the_trainer_is_named():
    given = set(inspect.signature(train).parameters) - {"options"}
    options = {field.name for field in fields(TrainOptions)}
    assert unnamed("training.md", (given | options) - HANDED_OVER - PLAIN) == []


@pytest.mark.parametrize("verb", VERBS)
def test_every_setting_of_a_verb_is_named(verb):
    assert unnamed("recipes.md", VERBS[verb].model_fields) == []


@pytest.mark.parametrize("page", sorted(PAGES))
def test_links_between_pages_lead_somewhere(page):
    folder = ROOT if page == "README.md" else ROOT / "docs"
    prose = re.sub(r"```.*?```", "", PAGES[page], flags=re.S)
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", prose):
        place = folder / (target or page)
        assert place.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", place.read_text(encoding="utf-8"), re.M)
            assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_names_of_the_package_are_there():
    named = {name for text in PAGES.values() for name in re.findall(r"crossguard(?:\.[a-z_]+)+(?:\.[A-Za-z_]+)?", text)}
    for name in named:
        parts = name.split(".")
        for cut in range(len(parts), 0, -1):
            try:
                place = importlib.import_module(".".join(parts[:cut]))
            except ModuleNotFoundError:
                continue
            break
        for part in parts[cut:]:
            assert hasattr(place, part), name
            place = getattr(place, part)
