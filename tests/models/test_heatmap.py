"""Maps for grounding against the same written a second time, with the attention as a variable of its own."""

import math

import pytest
import torch

from crossguard.models import GroundingModel, attention_maps, enlarge
from crossguard.models.heatmap import token_maps
from fusion_models import make_albef, make_blip, released_blip
from fusion_reference import bert, embed, gelu, linear, norm, sublayer, vit

TEXTS = ["a red disc", "the small blue square on the left side"]
PAIRS = torch.tensor([[0, 0], [1, 1], [2, 1], [0, 1]])


@pytest.fixture
def model(tmp_path):
    return make_albef(tmp_path, image_size=24, text_layers=5, fusion_start=2)


@pytest.fixture
def pixels():
    return torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(1))


def reference(state, image, x, layer, fusion, heads):
    """The map of one pair, heads and tokens in loops; `x` is what the first of the fusion layers reads."""
    size = x.shape[-1] // heads
    mask = torch.ones(1, x.shape[1])
    x = bert(state, x, mask, heads, range(fusion.start, layer), image=image)
    name = f"text_encoder.encoder.layer.{layer}."
    x = sublayer(state, f"{name}attention", x, x, heads, mask)
    q = linear(state, f"{name}crossattention.self.query", x)[0]
    k, v = (linear(state, f"{name}crossattention.self.{part}", image)[0] for part in ("key", "value"))
    cuts = [slice(h * size, (h + 1) * size) for h in range(heads)]
    attention = [(q[:, cut] @ k[:, cut].T / math.sqrt(size)).softmax(-1).detach().requires_grad_() for cut in cuts]
    mixed = torch.cat([weights @ v[:, cut] for cut, weights in zip(cuts, attention, strict=True)], -1).unsqueeze(0)
    out = f"{name}crossattention.output"
    x = norm(state, f"{out}.LayerNorm", linear(state, f"{out}.dense", mixed) + x, 1e-12)
    wide = gelu(linear(state, f"{name}intermediate.dense", x))
    x = norm(state, f"{name}output.LayerNorm", linear(state, f"{name}output.dense", wide) + x, 1e-12)
    x = bert(state, x, mask, heads, range(layer + 1, fusion.stop), image=image)
    gradients = torch.autograd.grad(linear(state, "itm_head", x[:, 0])[0, 1], attention)
    total = torch.zeros(9)
    for weights, gradient in zip(attention, gradients, strict=True):
        for token in range(x.shape[1]):
            for patch in range(9):
                total[patch] += weights[token, patch + 1] * max(gradient[token, patch + 1], 0.0)
    return (total / (heads * x.shape[1])).view(3, 3).detach()


@pytest.mark.parametrize("layer", [2, 3, 4])
def test_maps_equal_the_second_implementation_one_pair_at_a_time(model, pixels, layer):
    maps = attention_maps(model, model.encode_image_states(pixels), model.encode_text_states(TEXTS), PAIRS, layer=layer)
    state = {key: value.detach() for key, value in model.network.state_dict().items()}
    for found, (image, text) in zip(maps, PAIRS, strict=True):
        ids = model.tokenize([TEXTS[text]]).ids
        x = bert(state, embed(state, ids, "text_encoder."), torch.ones(1, ids.shape[1]), 2, (0, 1))
        expected = reference(state, vit(state, pixels[image : image + 1], 2), x, layer, range(2, 5), 2)
        torch.testing.assert_close(found, expected, atol=1e-7, rtol=1e-4)
        assert expected.max() > 0


@pytest.mark.parametrize("layer", [0, 1])
def test_maps_of_blip_equal_the_second_implementation(tmp_path, pixels, layer):
    blip = make_blip(tmp_path)
    assert isinstance(blip, GroundingModel)
    assert blip.patch_grid == (3, 3)
    maps = attention_maps(blip, blip.encode_image_states(pixels), blip.encode_text_states(TEXTS), PAIRS, layer=layer)
    state = released_blip(len((tmp_path / "vocab.txt").read_text().splitlines()))
    for found, (image, text) in zip(maps, PAIRS, strict=True):
        ids = blip.tokenize([TEXTS[text]]).ids
        ids[:, 0] = blip.encode_id
        x = embed(state, ids, "text_encoder.")
        expected = reference(state, vit(state, pixels[image : image + 1], 4), x, layer, range(2), 2)
        torch.testing.assert_close(found, expected, atol=1e-7, rtol=1e-4)
        assert expected.max() > 0
    assert not blip.network.text_encoder.encoder.layer[layer].crossattention.self._forward_hooks
    with pytest.raises(ValueError, match=r"a layer in \[0, 2\), but got 2"):
        attention_maps(blip, blip.encode_image_states(pixels), blip.encode_text_states(TEXTS), PAIRS, layer=2)


def test_frozen_weights_and_no_grad_around(model, pixels):
    expected = attention_maps(model, model.encode_image_states(pixels), model.encode_text_states(TEXTS), PAIRS, layer=3)
    model.requires_grad_(False)
    with torch.no_grad():
        images, texts = model.encode_image_states(pixels), model.encode_text_states(TEXTS)
        found = attention_maps(model, images, texts, PAIRS, layer=3)
    torch.testing.assert_close(found, expected)
    assert not found.requires_grad
    assert not images.hidden.requires_grad
    assert attention_maps(model, images, texts, PAIRS, layer=3, create_graph=True).requires_grad
    assert not images.hidden.requires_grad


def test_an_attack_can_differentiate_the_maps(model, pixels):
    pixels.requires_grad_()
    texts = model.encode_text_states(TEXTS)
    maps = attention_maps(model, model.encode_image_states(pixels), texts, PAIRS, layer=3, create_graph=True)
    (gradient,) = torch.autograd.grad(maps.sum(), pixels)
    assert gradient.abs().amax(dim=(1, 2, 3)).min() > 0
    step = 1e-3 * gradient / gradient.abs().max()
    moved = attention_maps(model, model.encode_image_states(pixels.detach() + step), texts, PAIRS, layer=3)
    assert moved.sum() > maps.sum()


def test_other_layers_and_left_out_patches_are_refused(model, pixels):
    texts = model.encode_text_states(TEXTS)
    with pytest.raises(ValueError, match=r"fusion layer in \[2, 5\), but got 1"):
        attention_maps(model, model.encode_image_states(pixels), texts, PAIRS, layer=1)
    kept = torch.ones(3, 9, dtype=torch.bool)
    kept[:, 0] = False
    with pytest.raises(ValueError, match="all 9 patches"):
        attention_maps(model, model.encode_image_states(pixels, kept), texts, PAIRS, layer=3)


def test_where_nothing_speaks_for_a_match_the_map_is_zero():
    attention = torch.full((1, 2, 3, 5), 0.2)
    real = torch.tensor([[True, True, False]])
    assert not token_maps(attention, -torch.ones(1, 2, 3, 5), real).any()
    gradient = torch.zeros(1, 2, 3, 5)
    gradient[0, 0, 1, 3], gradient[0, 1, 2, 4] = 4.0, 9.0  # the second on padding
    torch.testing.assert_close(token_maps(attention, gradient, real), torch.tensor([[0, 0, 0.2 * 4 / 2 / 2, 0]]))


def test_enlarging_keeps_constants_and_places():
    maps = torch.zeros(2, 3, 3)
    maps[0] = 0.5
    maps[1, 2, 0] = 1.0
    larger = enlarge(maps, height=30, width=60)
    torch.testing.assert_close(larger[0], torch.full((30, 60), 0.5))
    row, column = divmod(int(larger[1].argmax()), 60)
    assert row >= 20
    assert column < 20
