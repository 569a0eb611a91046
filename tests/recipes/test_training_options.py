"""Options of a training recipe are checked before any work."""

import pytest

from crossguard.recipes import check_names, read_recipe, shipped_recipes


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("options.pgd_step=1e-3", None),
        ("options.lora={rank: 4}", None),
        ("options.pgd_stps=3", "options.pgd_stps: unknown option; did you mean 'pgd_steps'?"),
        ("options.seed=3", "options.seed: belongs at the top of the recipe, as seed"),
        ("options.run=here", "options.run: belongs at the top of the recipe, as run"),
    ],
)
def test_unknown_options_of_the_trainer_are_named(option, message):
    problems = check_names(read_recipe("emoji-mat", [option]))
    assert len(problems) == (message is not None)
    assert all(problem.startswith(message) for problem in problems)


@pytest.mark.parametrize("name", [name for name in shipped_recipes() if "-mat" in name or "tecoa" in name])
def test_shipped_training_recipes_name_what_is_there(name):
    assert check_names(read_recipe(name)) == []
