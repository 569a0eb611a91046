"""Recipes with budgets of elements, and with attacks beside a certificate."""

import pytest

from crossguard.recipes import RecipeError, parse_recipe
from crossguard.threat import L2, Elements, LInf, Patch

EVALUATE = {"verb": "evaluate", "run": "r", "model": "emoji-clip", "data": {"name": "emoji"}}
CERTIFY = {
    "verb": "certify",
    "run": "r",
    "model": "watch-net",
    "data": {"name": "watch"},
    "keep": {"accelerometer": 5, "gyroscope": 5},
    "curve": {"direction": {"accelerometer": 1, "gyroscope": 2}, "steps": 3},
}


def test_an_image_has_a_budget_of_pixels_or_of_patches():
    def budget(**image):
        return parse_recipe({**EVALUATE, "threat": {"image": image}}, source="x").threat.build()[0]["image"]

    assert budget() == LInf(2 / 255)
    assert budget(eps="4/255") == LInf(4 / 255)
    assert budget(elements=3) == Elements(3)
    assert budget(l2="3/2") == L2(1.5)
    assert budget(patch=[4, 8]) == Patch(4, 8)
    with pytest.raises(RecipeError, match="threat.image.patch"):
        budget(patch=[4])
    with pytest.raises(RecipeError, match="expected one of eps, l2, elements, patch, but got eps, elements"):
        budget(eps="4/255", elements=3)
    with pytest.raises(RecipeError, match="threat.image.elements"):
        budget(elements=-1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attack": {"vectors": [{"accelerometer": 2, "gyroscope": 2}]}}, "of that curve's radii"),
        ({"attack": {}, "curve": None, "radii": {"accelerometer": 1}}, "expected a `curve` with `attack`"),
        ({"attack": {}, "kind": "insertion"}, "expected kind 'substitution' or 'edit'"),
        ({"attack": {"draw": 3}}, "did you mean 'draws'"),
    ],
)
def test_attacks_that_do_not_fit_the_certificate_are_refused(change, message):
    with pytest.raises(RecipeError, match=message):
        parse_recipe({**CERTIFY, **change}, source="x")


def test_attacks_on_the_curve_are_accepted():
    recipe = parse_recipe(
        {**CERTIFY, "attack": {"vectors": [{"accelerometer": 2, "gyroscope": 4}], "draws": 10}}, source="x"
    )
    assert recipe.attack.draws == 10
    assert recipe.attack.vectors[0] in recipe.curve.build()
