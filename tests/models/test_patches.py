"""Left-out patches, for every family that can leave them out: they play no part, and the others do."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_siglip import siglip  # noqa: F401  (a fixture)

from crossguard.models import CLIP, PatchModel
from crossguard.models.patches import additive, keep_tokens
from fusion_models import make_albef, make_blip
from shared import word_tokenizer


@pytest.fixture
def clip():
    return CLIP.from_sizes(
        word_tokenizer(),
        image_size=24,
        patch_size=8,
        vision_width=32,
        vision_layers=2,
        text_width=32,
        text_layers=1,
        context_length=16,
        embed_dim=16,
        seed=0,
    )


@pytest.fixture
def albef(tmp_path):
    return make_albef(tmp_path, image_size=24, vision_layers=2)


@pytest.fixture
def blip(tmp_path):
    return make_blip(tmp_path, image_size=24)


@pytest.fixture(params=["clip", "siglip", "albef", "blip"])
def model(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def pixels():
    return torch.rand(4, 3, 24, 24, generator=torch.Generator().manual_seed(1))


def some_kept(counts, seed=0):
    generator = torch.Generator().manual_seed(seed)
    kept = torch.zeros(len(counts), 9, dtype=torch.bool)
    for row, count in enumerate(counts):
        kept[row, torch.randperm(9, generator=generator)[:count]] = True
    return kept


def paint(pixels, kept, value):
    """Set every pixel of the patches that are not kept."""
    rows = kept.view(-1, 1, 3, 3).repeat_interleave(8, 2).repeat_interleave(8, 3)
    return torch.where(rows, pixels, torch.tensor(value))


@torch.no_grad()
def test_keeping_all_equals_the_plain_forward(model, pixels):
    assert isinstance(model, PatchModel)
    assert model.patch_grid == (3, 3)
    every = torch.ones(4, 9, dtype=torch.bool)
    torch.testing.assert_close(model.encode_image(pixels, every), model.encode_image(pixels), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("counts", [(3, 3, 3, 3), (1, 4, 9, 2)])
@torch.no_grad()
def test_what_is_left_out_does_not_matter_and_what_is_kept_does(model, pixels, counts):
    kept = some_kept(counts)
    ours = model.encode_image(pixels, kept)
    assert torch.equal(model.encode_image(paint(pixels, kept, 0.7), kept), ours)
    assert torch.equal(model.encode_image(paint(pixels, kept, torch.nan), kept), ours)
    assert (model.encode_image(paint(pixels, ~kept, 0.7), kept) - ours).abs().amax(1).min() > 1e-4
    assert (model.encode_image(pixels) - ours)[torch.tensor(counts) < 9].abs().amax(1).min() > 1e-4


@torch.no_grad()
def test_other_images_of_the_batch_do_not_matter(model, pixels):
    kept = some_kept((1, 4, 9, 2))
    alone = torch.cat([model.encode_image(pixels[i : i + 1], kept[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(model.encode_image(pixels, kept), alone, atol=1e-5, rtol=1e-5)


def test_gradients_reach_kept_patches_alone(model, pixels):
    kept = some_kept((3, 1, 9, 2))
    pixels.requires_grad_()
    model.encode_image(pixels, kept).square().sum().backward()
    assert not paint(pixels.grad, ~kept, 0.0).any()
    by_patch = pixels.grad.abs().unfold(2, 8, 8).unfold(3, 8, 8).amax(dim=(1, 4, 5)).flatten(1)
    assert torch.equal(by_patch > 0, kept)


@torch.no_grad()
def test_an_image_can_lose_all_its_patches_where_there_is_a_class_token(clip, albef, pixels):
    none = torch.zeros(4, 9, dtype=torch.bool)
    for model in (clip, albef):
        embedding = model.encode_image(pixels, none)
        assert torch.equal(embedding[0], embedding[1])
        assert torch.isfinite(embedding).all()


def test_masks_of_another_size_are_refused(model, pixels, unchecked):
    with pytest.raises(ValueError, match=r"\[4, 9\], but got \[4, 8\]"):
        model.encode_image(pixels, torch.ones(4, 8, dtype=torch.bool))


@given(st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=4))
def test_kept_tokens_in_their_order(rows):
    kept = torch.tensor(rows)
    tokens = torch.arange(kept.numel()).float().view(len(rows), 5, 1) + 1
    chosen, mask = keep_tokens(tokens, kept)
    assert chosen.shape[1] == max(map(sum, rows))
    for row, wanted in enumerate(rows):
        real = slice(None) if mask is None else mask[row]
        assert chosen[row, real, 0].tolist() == [row * 5 + i + 1 for i, keep in enumerate(wanted) if keep]
        assert mask is None or not chosen[row, ~mask[row]].any()


def test_masks_as_scores():
    assert additive(None, torch.float32) is None
    scores = additive(torch.tensor([[True, False]]), torch.float16)
    assert scores.shape == (1, 1, 1, 2)
    assert scores.flatten().tolist() == [0, torch.finfo(torch.float16).min]
