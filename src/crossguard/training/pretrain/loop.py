"""Contrastive pre-training of a small CLIP with an image teacher to imitate; stops and resumes at any checkpoint."""

import io
import math
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from crossguard.data import OneToManyPairs, load_pairs
from crossguard.models.base import Tokens, cosine
from crossguard.models.clip import CLIP
from crossguard.models.losses import contrastive
from crossguard.progress import Reporter
from crossguard.runs import write_atomically
from crossguard.training.pretrain.material import (
    Texts,
    View,
    load_pictures,
    load_views,
    look_alikes,
    positives,
)
from crossguard.training.pretrain.settings import Settings
from crossguard.training.pretrain.teacher import whitening, word_vectors
from crossguard.training.pretrain.views import light_views
from crossguard.training.pretrain.word_pieces import SPECIAL, build_tokenizer
from crossguard.training.seeds import step_seed

_LOOK_ALIKES = 12

_Parts: TypeAlias = dict[str, nn.Module | torch.optim.Optimizer]


@dataclass(frozen=True)
class _Material:
    pairs: OneToManyPairs
    views: list[View]
    targets: list[Float[Tensor, "images teacher_dim"]]
    neighbours: Tensor
    texts: Texts


def pretrain(settings: Settings, folder: Path | str, *, progress: Reporter) -> CLIP:
    """Train a CLIP from scratch and write it to `folder/model`, in half precision.

    Every step's randomness comes from (seed, step), so a run that was stopped goes on exactly where its last
    checkpoint (`folder/checkpoint.pt`) was written.

    Returns:
        The model with averaged weights, in single precision.

    Raises:
        ImportError: a teacher package or a package of the data is missing.
    """
    folder = Path(folder)
    train, val = load_pairs(settings.data, split="train"), load_pairs(settings.data, split="val")
    model = _new_model(train, settings)
    material = _gather(train, model, settings, folder, progress)
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        imitate = nn.Linear(settings.sizes.vision_width, settings.teacher_dim)
    average = deepcopy(model)
    optimizer = torch.optim.AdamW(_groups([model, imitate], settings.weight_decay), lr=settings.learning_rate)
    parts: _Parts = {"model": model, "imitate": imitate, "average": average, "optimizer": optimizer}
    done = _resume(folder / "checkpoint.pt", parts)
    val_pixels = model.preprocess([picture.load() for picture in val.images])
    note = ""
    with progress.task("Pre-training", total=settings.steps, done=done) as task:
        for step in range(done, settings.steps):
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * _schedule(step, settings)
            loss = _loss(model, imitate, material, settings, step)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            _follow(average, model, min(settings.average, (1 + step) / (10 + step)))
            if (step + 1) % settings.check_every == 0 or step + 1 == settings.steps:
                note = "val TR@1 {:.1f} IR@1 {:.1f}".format(*recall_at_1(average, val, val_pixels))
                _save(folder, parts, step + 1)
                _write_half(average, folder / "model")
            task.advance(note=f"loss {loss.item():.3f} {note}")
    return average


def _new_model(train: OneToManyPairs, settings: Settings) -> CLIP:
    words = {word for text in train.texts for word in text.replace(",", " ").split()}
    tokenizer = build_tokenizer(words, context_length=settings.sizes.context_length)
    model = CLIP.from_sizes(tokenizer, **settings.sizes.model_dump(), seed=settings.seed, name=settings.data)
    known = [(index, word) for word, index in tokenizer.get_vocab().items() if word in words and word not in SPECIAL]
    known.sort()
    table = model.network.text_model.embeddings.token_embedding.weight
    vectors = word_vectors([word for _, word in known], dim=table.shape[1])
    with torch.no_grad():
        table[[index for index, _ in known]] = vectors * (0.03 / vectors.std())
    return model.train()


def _gather(train: OneToManyPairs, model: CLIP, settings: Settings, folder: Path, progress: Reporter) -> _Material:
    pictures = load_pictures(train)
    views = load_views(pictures, folder / "views", rounds=settings.rounds, seed=settings.seed, progress=progress)
    plain = views[0].features.float()
    scale = plain.std(0) + 1e-3
    mean, matrix = whitening(plain / scale, dim=settings.teacher_dim)
    targets = [F.normalize((view.features.float() / scale - mean) @ matrix, dim=1) for view in views]
    neighbours = look_alikes(targets[0], count=_LOOK_ALIKES)
    return _Material(train, views, targets, neighbours, Texts.of(train, model.tokenizer))


def _loss(model: CLIP, imitate: nn.Module, material: _Material, settings: Settings, step: int) -> Float[Tensor, ""]:
    rng = np.random.default_rng((settings.seed, step))
    generator = torch.Generator().manual_seed(step_seed(settings.seed, step))
    images = _choose_images(material, settings, rng)
    texts = _choose_texts(material.texts, images, settings.caption_share, rng)
    rounds = rng.integers(0, len(material.views), len(images))
    pixels = torch.stack([material.views[r].pixels[i] for r, i in zip(rounds, images, strict=True)]).float() / 255
    target = torch.stack([material.targets[r][i] for r, i in zip(rounds, images, strict=True)])
    pixels = light_views(pixels, generator, size=settings.sizes.image_size)
    tokens = _disturb(material.texts, texts, model, settings, generator)

    keep = settings.keep_patches if step < settings.full_from * settings.steps else 1.0
    pooled = _read_some_patches(model, pixels, keep, generator)
    image_embeddings = model.network.visual_projection(pooled)
    logits = model.logit_scale * cosine(image_embeddings, model.encode_text(tokens))
    loss = contrastive(logits, positives(material.pairs, images, texts))
    likeness = F.cosine_similarity(imitate(pooled), target, dim=1)
    return loss + settings.teacher_weight * (1 - likeness).mean()


def _read_some_patches(
    model: CLIP, pixels: Float[Tensor, "images 3 height width"], keep: float, generator: torch.Generator
) -> Float[Tensor, "images channels"]:
    """Return the image tower's pooled output from a random share of the patches of each picture."""
    tower = model.network.vision_model
    states = tower.embeddings((pixels - model._mean) / model._std)
    patches = states.shape[1] - 1
    kept = round(keep * patches)
    if kept < patches:
        order = torch.rand(len(states), patches, generator=generator).argsort(1)[:, :kept] + 1
        chosen = torch.cat([torch.zeros(len(states), 1, dtype=torch.int64), order], dim=1)
        states = states.gather(1, chosen[..., None].expand(-1, -1, states.shape[2]))
    states = tower.encoder(inputs_embeds=tower.pre_layrnorm(states)).last_hidden_state
    pooled: Tensor = tower.post_layernorm(states[:, 0])
    return pooled


def _choose_images(material: _Material, settings: Settings, rng: np.random.Generator) -> np.ndarray:
    close = round(settings.batch * settings.neighbours)
    seeds = rng.choice(len(material.pairs.images), settings.batch - close, replace=False)
    columns = rng.integers(0, material.neighbours.shape[1], close)
    alike = material.neighbours[rng.choice(seeds, close), columns].numpy()
    return np.unique(np.concatenate([seeds, alike]))


def _choose_texts(texts: Texts, images: np.ndarray, caption_share: float, rng: np.random.Generator) -> np.ndarray:
    chosen = []
    for image in images:
        captions, others = texts.captions[image], texts.others[image]
        chosen.append(rng.choice(captions if len(captions) and rng.random() < caption_share else others))
    return np.array(chosen)


def _disturb(texts: Texts, chosen: np.ndarray, model: CLIP, settings: Settings, generator: torch.Generator) -> Tokens:
    """Hide some words by the mask token and replace some by random words; the special tokens stay."""
    mask = texts.mask[chosen].bool()
    length = int(mask.sum(1).max())
    ids, mask = texts.ids[chosen, :length].clone(), mask[:, :length]
    draw = torch.rand(ids.shape, generator=generator)
    word = ids >= len(SPECIAL)
    ids[word & (draw < settings.mask_words)] = model.tokenizer.mask_token_id
    swap = word & (draw >= settings.mask_words) & (draw < settings.mask_words + settings.swap_words)
    random_words = torch.randint(len(SPECIAL), len(model.tokenizer), ids.shape, generator=generator)
    return Tokens(torch.where(swap, random_words, ids), mask)


def _schedule(step: int, settings: Settings) -> float:
    if step < settings.warm_up:
        return (step + 1) / settings.warm_up
    part = (step - settings.warm_up) / max(1, settings.steps - settings.warm_up)
    return 0.5 * (1 + math.cos(math.pi * part))


def _groups(modules: Iterable[nn.Module], weight_decay: float) -> list[dict[str, object]]:
    weights = [weight for module in modules for weight in module.parameters()]
    return [
        {"params": [weight for weight in weights if weight.ndim >= 2], "weight_decay": weight_decay},
        {"params": [weight for weight in weights if weight.ndim < 2], "weight_decay": 0.0},
    ]


@torch.no_grad()
def _follow(average: nn.Module, model: nn.Module, decay: float) -> None:
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)


@torch.no_grad()
def recall_at_1(
    model: CLIP, pairs: OneToManyPairs, pixels: Float[Tensor, "images 3 height width"]
) -> tuple[float, float]:
    """Return TR@1 and IR@1 in percent over the whole split."""
    model.eval()
    images = torch.cat([model.encode_image(chunk) for chunk in pixels.split(256)])
    tokens = model.tokenize(pairs.texts)
    texts = model.encode_text(tokens)
    similarity = cosine(images, texts)
    true = torch.zeros(similarity.shape, dtype=torch.bool)
    true[torch.from_numpy(pairs.links.copy()).unbind(1)] = True
    best_true = similarity.where(true, -2.0)
    best_false = similarity.where(~true, -2.0)
    text_hits = best_true.amax(1) > best_false.amax(1)
    image_hits = best_true.amax(0) > best_false.amax(0)
    return 100 * text_hits.float().mean().item(), 100 * image_hits.float().mean().item()


def _resume(file: Path, parts: _Parts) -> int:
    if not file.is_file():
        return 0
    state = torch.load(file, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return int(state["step"])


def _save(folder: Path, parts: _Parts, step: int) -> None:
    state = {name: part.state_dict() for name, part in parts.items()}
    buffer = io.BytesIO()
    torch.save({"step": step, **state}, buffer)
    write_atomically(folder / "checkpoint.pt", buffer.getvalue())


def _write_half(model: CLIP, folder: Path) -> None:
    half = deepcopy(model)
    half.network.half()
    half.save_pretrained(folder)
