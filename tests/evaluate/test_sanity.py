"""Models built to trip each warning, and models that must trip none."""

import pytest
import torch

import crossguard as cg
from crossguard.attacks import make_attack
from crossguard.evaluate import TASKS, Outcome
from crossguard.evaluate.sanity import unchanged_answers, warn_of_ignored, warn_of_masking, warn_of_weak_attacks
from crossguard.models import CLIP
from crossguard.runs import RunFolder
from shared import make_clip

THREAT = cg.ThreatModel(image=cg.LInf(8 / 255), text=cg.WordEdits(1))
QUICK = {"attack": "pgd", "attack_options": {"steps": 2}, "threat": THREAT.only("image"), "batch_size": 8}


def altered(**methods):
    """A tiny CLIP with methods of its own."""
    kind = type("Altered", (CLIP,), methods)
    model = make_clip(3)
    model.__class__ = kind
    return model


def blind_to_images():
    return altered(
        encode_image=lambda self, pixels: (
            CLIP.encode_image(self, pixels) * 1e-9 + CLIP.encode_text(self, ["a disc"]).detach()
        )
    )


def deaf_to_texts():
    return altered(
        encode_text=lambda self, texts: (
            0 * CLIP.encode_text(self, texts) + CLIP.encode_text(self, ["a red disc"]).detach()
        )
    )


def with_broken_backward(factor):
    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx, values):
            return values.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * factor

    return altered(encode_image=lambda self, pixels: CLIP.encode_image(self, Broken.apply(pixels)))


def test_a_model_that_does_not_look_is_told(toy_pairs):
    for model, modality in ((blind_to_images(), "image"), (deaf_to_texts(), "text")):
        result = cg.evaluate(model, toy_pairs, batch_size=8)
        assert [w for w in result.warnings if w.startswith(f"The model ignores the {modality}")]
        (summary,) = result.summary().values()
        assert summary["warnings"] == list(result.warnings)


def test_shuffling_counts_answers_that_stay():
    eye = torch.eye(10)
    assert unchanged_answers(eye, eye) == {"image": 0.0, "text": 0.0}
    assert unchanged_answers(torch.ones(10, 10), eye)["image"] == 1.0
    twins = torch.cat([torch.eye(2).repeat(5, 1), torch.zeros(10, 8)], dim=1)  # every second answer is the same
    assert 0.2 < unchanged_answers(twins, torch.eye(10))["image"] < 0.8
    assert warn_of_ignored(torch.ones(7, 4), torch.ones(7, 4)) == []  # too few to tell


@pytest.mark.parametrize(
    ("factor", "sign"), [(0.0, "are zero for 8 of 8"), (float("nan"), "are not finite for 8 of 8")]
)
def test_gradients_that_vanish_or_break_are_told(toy_pairs, factor, sign):
    result = cg.evaluate(with_broken_backward(factor), toy_pairs, **QUICK)
    assert any(f"Gradients to the pixels {sign}" in warning for warning in result.warnings)


def test_a_model_without_any_gradient_is_told(toy_batch):
    model = altered(encode_image=lambda self, pixels: CLIP.encode_image(self, pixels.detach()).detach())
    assert "are zero for 8 of 8" in warn_of_masking(model, toy_batch, modalities=["image"])[0]
    deaf = altered(encode_text=lambda self, texts: CLIP.encode_text(self, texts).detach())
    assert "Gradients to the words are zero" in warn_of_masking(deaf, toy_batch, modalities=["text"])[0]


def test_gradients_that_point_away_are_told(toy_batch):
    assert "point nowhere" in warn_of_masking(with_broken_backward(-1.0), toy_batch, modalities=["image"])[0]


def test_embeddings_that_are_not_finite_are_told(toy_batch):
    model = altered(encode_image=lambda self, pixels: CLIP.encode_image(self, pixels) * float("inf"))
    assert "not finite" in warn_of_masking(model, toy_batch, modalities=["image"])[0]


def test_a_random_clip_has_gradients(toy_batch):
    for seed in range(4):
        assert warn_of_masking(make_clip(seed), toy_batch, modalities=["image", "text"]) == []


@pytest.mark.slow
def test_emoji_clip_trips_nothing():
    pairs = cg.load_pairs("emoji", split="test").head(24)
    threat = cg.ThreatModel(image=cg.LInf(2 / 255), text=cg.WordEdits(1))
    results = {
        name: cg.evaluate(
            cg.load_model("emoji-clip"), pairs, attack=make_attack(name, steps=5), threat=threat, modalities=True
        )
        for name in ("sep", "adaptive")
    }
    for part in ("image", "text", "joint"):
        assert all(result.of(part).warnings == () for result in results.values())
        assert warn_of_weak_attacks({name: result.of(part).outcomes[0] for name, result in results.items()}) == {}


def a_result(before, after, queries=100):
    """A result with the given percent of first places before and after an attack, in both directions."""
    rows = [
        {"direction": d, "group": i, "clean_rank": 1 if i < before else 2}
        | dict.fromkeys(("robust_rank", "shared_rank"), 1 if i < after else 2)
        for d in ("tr", "ir")
        for i in range(queries)
    ]
    task, settings = TASKS["retrieval"](None, None, 1), {"attack": "some"}
    return Outcome(rows, settings, task.estimates(rows, settings), {"headline": task.headline})


def test_strong_under_one_attack_and_broken_by_another_is_told():
    found = warn_of_weak_attacks({"pgd": a_result(80, 70), "adaptive": a_result(80, 10)})
    assert list(found) == ["pgd"]
    assert found["pgd"] == [
        f"{metric} looks robust under pgd (70.0 %) and breaks under adaptive (10.0 %) of the same budget: "
        "judge by adaptive."
        for metric in ("TR@1", "IR@1")
    ]
    # Weak under both, strong under both, alone, clean, and too few to tell.
    for results in (
        {"pgd": a_result(80, 30), "adaptive": a_result(80, 5)},
        {"pgd": a_result(80, 70), "adaptive": a_result(80, 60)},
        {"pgd": a_result(80, 70)},
        {},
        {"pgd": a_result(4, 4, queries=5), "adaptive": a_result(4, 1, queries=5)},
    ):
        assert warn_of_weak_attacks(results) == {}


def test_warnings_stay_with_a_run_that_is_taken_up_again(tmp_path, toy_pairs):
    with RunFolder.open(tmp_path / "run", settings={}) as run:
        first = cg.evaluate(with_broken_backward(0.0), toy_pairs, **QUICK, run=run)
        again = cg.evaluate(with_broken_backward(0.0), toy_pairs, **QUICK, run=run)
    assert again.warnings == first.warnings != ()
