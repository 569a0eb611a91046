"""A two-tower model as a classifier over patches and words: certified, attacked, and what lies between."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from crossguard.attacks import attack_samples
from crossguard.certify import Smoothed, certify
from crossguard.certify.stickers import largest_sticker, sticker_patches
from crossguard.data import LabelledImages, OneToManyPairs, Picture
from crossguard.evaluate.envelope import sparse_envelope
from crossguard.evaluate.gallery_task import gallery_task, retrieval_task, zero_shot_task
from crossguard.models import Tokens
from crossguard.models.gallery_choice import GalleryChoice
from crossguard.models.patches import from_patches, to_patches
from crossguard.threat import Elements, LInf, ThreatModel
from shared import make_clip

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 50, 220), "white": (240, 240, 240)}
WORDS = ("", *COLOURS, "a", "plain", "bright", "field", "picture")


class MeanColour(torch.nn.Module):
    """Embeds an image by the mean colour of its kept patches, and a text by the colours it names."""

    name, image_size, context_length, mask_token, patch_grid = "mean-colour", (16, 16), 16, "a", (4, 4)

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(20.0))
        table = torch.full((len(WORDS), 3), 0.5)
        for i, word in enumerate(WORDS):
            if word in COLOURS:
                table[i] = torch.tensor(COLOURS[word]) / 255
        self.register_buffer("table", table - 0.45)

    def preprocess(self, images):
        arrays = [np.asarray(image.convert("RGB").resize((16, 16), Image.Resampling.NEAREST)) for image in images]
        return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 255

    def tokenize(self, texts):
        rows = [[WORDS.index(word) for word in text.split()] or [0] for text in texts]
        most = max(map(len, rows))
        ids = torch.tensor([row + [0] * (most - len(row)) for row in rows])
        return Tokens(ids, torch.tensor([[i < len(row) for i in range(most)] for row in rows]))

    def encode_image(self, pixels, kept=None):
        patches = to_patches(pixels, self.patch_grid).mean(dim=(3, 4))
        kept = torch.ones(patches.shape[:2], dtype=torch.bool) if kept is None else kept
        whole = torch.where(kept[:, :, None], patches, torch.zeros_like(patches)).sum(dim=1)
        return whole / kept.sum(dim=1, keepdim=True) - 0.45

    def encode_text(self, texts):
        tokens = texts if isinstance(texts, Tokens) else self.tokenize(texts)
        return (self.table[tokens.ids] * tokens.mask[:, :, None]).sum(dim=1) + 1e-3

    @property
    def logit_scale(self):
        return self.scale

    def tower(self, which):
        return iter(())

    def save_pretrained(self, folder):
        raise NotImplementedError


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Two pictures and two texts of each of four colours; pictures are noisy."""
    folder: Path = tmp_path_factory.mktemp("colours")
    generator = np.random.default_rng(0)
    pictures, texts, links = [], [], []
    for c, (colour, value) in enumerate(COLOURS.items()):
        for i in range(2):
            pixels = (np.array(value) + generator.normal(scale=20, size=(16, 16, 3))).clip(0, 255)
            path = folder / f"{colour}-{i}.png"
            Image.fromarray(pixels.round().astype(np.uint8)).save(path)
            pictures.append(Picture(path.stem, path, style=str(i)))
        texts += [f"a plain {colour} {colour} field", f"bright {colour} {colour} picture"]
        links += [(2 * c + i, 2 * c + j) for i in range(2) for j in range(2)]
    return OneToManyPairs("colours", "test", tuple(pictures), tuple(texts), np.array(links), ("caption",) * len(texts))


KEEP = {"image": 2, "text": 2}


def test_pairs_become_patches_words_and_a_gallery(pairs):
    task = gallery_task(MeanColour().eval(), pairs)
    assert task.samples.modalities["image"].shape == (4, 16, 3, 4, 4)
    assert task.samples.modalities["text"].shape == (4, 5, 1)
    assert task.patch == 4
    codes = torch.from_numpy(task.samples.modalities["text"][..., 0]).long()
    assert task.model.spell(codes) == [f"a plain {colour} {colour} field" for colour in COLOURS]
    inputs = {m: torch.from_numpy(values).float() for m, values in task.samples.modalities.items()}
    logits = task.model(inputs)
    assert logits.argmax(dim=1).tolist() == [0, 1, 2, 3]
    # Of both modalities: the mean of what each says alone.
    alone = [gallery_task(MeanColour().eval(), pairs, modalities=(m,)).model({m: inputs[m]}) for m in ("image", "text")]
    assert torch.allclose(logits, (alone[0] + alone[1]) / 2, atol=1e-5)


def test_labelled_pictures_choose_among_the_names_of_their_classes(pairs):
    colours = tuple(COLOURS)
    images = LabelledImages("colours", "test", pairs.images, np.arange(8) // 2, colours, ("a plain {c} field",))
    task = zero_shot_task(MeanColour().eval(), images)
    assert (task.model.modalities, task.model.classes) == (("image",), colours)
    assert task.samples.modalities["image"].shape == (8, 16, 3, 4, 4)
    logits = task.model({"image": torch.from_numpy(task.samples.modalities["image"])})
    assert logits.argmax(dim=1).tolist() == task.samples.labels.tolist() == images.labels.tolist()
    assert (task.truth.argmax(axis=1) == images.labels).all()


@pytest.mark.parametrize("ask", ["text", "image"])
def test_pairs_ask_a_gallery_of_all_pictures_or_texts(pairs, ask):
    task = retrieval_task(MeanColour().eval(), pairs, ask=ask)
    assert task.model.modalities == (ask,)
    assert task.truth.shape == (8, 8)
    assert (task.truth == np.kron(np.eye(4), np.ones((2, 2)))).all()
    inputs = {ask: torch.from_numpy(task.samples.modalities[ask]).float()}
    first = task.model(inputs).argmax(dim=1).numpy()
    assert task.truth[np.arange(8), first].all()
    assert len(set(task.samples.groups.tolist())) == (4 if ask == "text" else 8)
    few = retrieval_task(MeanColour().eval(), pairs, ask=ask, queries=3)
    assert few.truth.shape == (3, 8)
    assert (few.samples.modalities[ask] == task.samples.modalities[ask][:3]).all()


def test_packed_and_masked_agree_on_a_real_network(toy_pairs):
    task = gallery_task(make_clip().eval(), toy_pairs, classes=6)
    inputs = {m: torch.from_numpy(values).float() for m, values in task.samples.modalities.items()}
    kept = {"image": torch.rand(6, 4) < 0.5, "text": torch.rand(6, inputs["text"].shape[1]) < 0.5}
    kept["image"][:, 0] = True
    with torch.no_grad():
        masked = task.model(inputs, kept)
        pixels = from_patches(inputs["image"], (2, 2))
        image = torch.nn.functional.normalize(task.model.model.encode_image(pixels, kept["image"]), dim=-1)
        texts = task.model.spell(torch.where(kept["text"], inputs["text"][..., 0].long(), 0))
        text = torch.nn.functional.normalize(task.model.model.encode_text(texts), dim=-1)
        by_hand = task.model.model.logit_scale * (image + text) @ task.model.gallery.T / 2
    assert torch.allclose(masked, by_hand, atol=1e-4)
    changed = {m: values.clone() for m, values in inputs.items()}
    changed["image"][~kept["image"]] = float("nan")
    changed["text"][~kept["text"]] = 3
    with torch.no_grad():
        assert torch.allclose(task.model(changed, kept), masked, atol=1e-5)


def test_certified_is_never_above_attacked(pairs):
    task = gallery_task(MeanColour().eval(), pairs)
    vectors = [{"image": r, "text": w} for r, w in ((0, 0), (1, 0), (0, 1), (2, 0), (8, 2), (16, 5))]
    certificate = certify(task.model, task.samples, keep=KEEP, draws=800, alpha=0.01, bound="gap", seed=0)
    found = sparse_envelope(
        Smoothed(task.model, keep=KEEP, draws=800, attack_draws=16),
        task.samples,
        vectors,
        attack_options={"steps": 5, "rounds": 2},
        storage=task.storage,
    )
    certified = [certificate.accuracy(vector) for vector in vectors]
    assert all(low <= high for low, high in zip(certified, found.accuracy, strict=True))
    for vector, answers in zip(vectors, found.answers, strict=True):
        assert (answers == certificate.labels)[certificate.certified(vector)].all()
    assert certified[1] > 0
    assert certified[2] > 0
    assert found.accuracy[0] == 1
    assert found.accuracy[-1] < 0.5


def test_words_are_exchanged_for_words(pairs):
    task = gallery_task(MeanColour().eval(), pairs, modalities=("text",))
    found = attack_samples(
        task.model,
        task.samples,
        threat=ThreatModel(text=Elements(2)),
        attack="sparse",
        storage=task.storage,
    )
    assert found.edited["text"].max() <= 2
    codes = found.samples.modalities["text"]
    assert codes.dtype == np.int32
    assert codes.min() >= 0
    assert codes.max() < len(task.model.vocabulary)
    assert found.robust_accuracy < found.clean_accuracy
    with pytest.raises(ValueError, match="whose values are words"):
        attack_samples(task.model, task.samples, threat=ThreatModel(text=LInf(0.1)), attack="pgd", storage=task.storage)


@given(side=st.integers(0, 30), patch=st.integers(1, 9))
def test_stickers_touch_as_many_patches_as_said(side, patch):
    most = max(len({(x // patch) for x in range(offset, offset + side)}) ** 2 for offset in range(patch))
    assert sticker_patches(side, patch) == most


@given(patches=st.integers(0, 500), patch=st.integers(1, 20))
def test_the_largest_sticker_fits_and_no_larger_one_does(patches, patch):
    side = largest_sticker(patches, patch)
    assert sticker_patches(side, patch) <= patches
    assert sticker_patches(side + 1, patch) > patches


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ("a",)}, "Expected two names or more"),
        ({"modalities": ("text", "image")}, "Expected `modalities`"),
        ({"vocabulary": ()}, "Expected a vocabulary"),
    ],
)
def test_wrong_galleries_are_refused(change, message):
    arguments = {"classes": ("a", "b"), "vocabulary": ("red",), "modalities": ("image", "text")} | change
    with pytest.raises(ValueError, match=message):
        GalleryChoice(MeanColour(), torch.ones(2, 3), **arguments)


def test_unknown_words_and_long_texts_are_refused(pairs):
    model = gallery_task(MeanColour().eval(), pairs).model
    for texts in (["a pink field"], ["a a a a a a"]):
        with pytest.raises(ValueError, match="at most 5 words of the vocabulary"):
            model.codes(texts, slots=5)
