"""The published attacks one text, one image and one scale at a time, written from their description alone.

What the batched attacks with `compat=True` must equal. Each point where the library's own form differs is an argument,
so that a test can turn one of them round and see that it matters.
"""

import math
from functools import cache

import torch
from torch.nn.functional import interpolate

from crossguard.attacks.candidates import attackable
from crossguard.attacks.noise import normal, uniform
from crossguard.attacks.words import replace_word, split_words

MARGIN = 1e-6


def softmax(vector):
    values = [math.exp(float(v) - float(vector.max())) for v in vector]
    return [v / sum(values) for v in values]


def kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def unit(vector):
    return vector / vector.norm()


@cache
@torch.no_grad()
def embed_text(model, text):
    return model.encode_text([text])[0].double()


def own_pixels(batch, pixels, j):
    return [pixels[i] for i in range(len(pixels)) if batch.positives[i, j]]


@torch.no_grad()
def swap_published(model, batch, pixels, j, *, words, source, chosen_by="image", ranked_by="text"):
    """Substitute up to `words` words of text `j`; "text" is KL(changed || clean), "image" minus the mean cosine."""
    text = batch.texts[j]
    images = [unit(model.encode_image(p[None])[0].double()) for p in own_pixels(batch, pixels, j)]
    if not images:
        return text
    clean = softmax(embed_text(model, text))

    def damage(variant, by):
        embedding = embed_text(model, variant)
        if by == "text":
            return kl(softmax(embedding), clean)
        return -sum(float(unit(embedding) @ image) for image in images) / len(images)

    proposals = source.candidates([text], model=model)[0]
    places = [i for i, word in enumerate(split_words(text)) if attackable(word.core) and proposals[i]]
    worth = {}
    for i in places:
        word = split_words(text)[i]
        worth[i] = damage(text[: word.start] + model.mask_token + text[word.end :], ranked_by)
    changes, now = 0, damage(text, chosen_by)
    for i in sorted(places, key=lambda i: -worth[i]):
        if changes == words:
            break
        options = [replace_word(text, split_words(text)[i], candidate) for candidate in proposals[i]]
        scores = [damage(option, chosen_by) for option in options]
        best = max(range(len(options)), key=scores.__getitem__)
        if scores[best] > now + MARGIN:
            text, now, changes = options[best], scores[best], changes + 1
    return text


def climb(loss, clean, start, *, eps, steps, step):
    """Signed steps on one image; the last iterate."""
    low, high = (clean - eps).clamp(min=0), (clean + eps).clamp(max=1)
    x = start
    for turn in range(steps):
        x = x.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(loss(x, turn), x)
        x = (x.detach() + step * gradient.sign()).clamp(low, high)
    return x


def drawn(draw, batch, i, shape, *, seed, stream):
    return draw(batch.image_ids[i : i + 1], shape, seed=seed, stream=stream)[0]


def there_and_back(image, size, noise, *, noise_first):
    def resized(x, to):
        return interpolate(x[None], size=to, mode="bicubic", align_corners=False)[0]

    there = resized(image + noise, size) if noise_first else resized(image, size) + noise
    return resized(there, image.shape[1:]).clamp(0, 1)


def sga_published(
    model, batch, *, eps, words, source, steps, step, scales, noise, seed, noise_first=True, ranked_by="text"
):
    options = {"words": words, "source": source, "ranked_by": ranked_by}
    texts = [swap_published(model, batch, batch.pixels, j, **options) for j in range(len(batch.texts))]
    found = []
    for i, clean in enumerate(batch.pixels):
        own = [unit(embed_text(model, text)).float() for j, text in enumerate(texts) if batch.positives[i, j]]

        def one_scale(image, own=own):
            embedding = unit(model.encode_image(image[None])[0])
            return -sum(embedding @ text for text in own) / len(own)

        def loss(x, turn, i=i, one_scale=one_scale):
            total = one_scale(x)
            for view, scale in enumerate(scales, start=1):
                size = tuple(math.floor(scale * side) for side in x.shape[1:])
                shape = x.shape if noise_first else (3, *size)
                stream = view + (len(scales) + 1) * turn
                draw = noise * drawn(normal, batch, i, tuple(shape), seed=seed, stream=stream)
                total = total + one_scale(there_and_back(x, size, draw, noise_first=noise_first))
            return total

        start = clean + eps * (2 * drawn(uniform, batch, i, tuple(clean.shape), seed=seed, stream=0) - 1)
        found.append(climb(loss, clean, start.clamp(0, 1), eps=eps, steps=steps, step=step))
    pixels = torch.stack(found)
    return pixels, [swap_published(model, batch, pixels, j, **options) for j in range(len(batch.texts))]


def co_attack_published(
    model,
    batch,
    *,
    eps,
    words,
    source,
    steps,
    alpha,
    seed,
    embedding="unimodal",
    start="positive",
    unit_text_term=True,
    words_by="text",
    captions="last",
):
    texts = [
        swap_published(
            model, batch, batch.pixels, j, words=words, source=source, chosen_by=words_by, ranked_by=words_by
        )
        for j in range(len(batch.texts))
    ]
    found = []
    for i, clean in enumerate(batch.pixels):
        own = [j for j in range(len(texts)) if batch.positives[i, j]]

        def loss(x, turn, clean=clean, own=own):
            met = own[-1:] if captions == "last" else own
            return sum(pair(x, clean, batch.texts[j], texts[j]) for j in met) / len(met)

        def pair(x, clean, text, changed):
            with torch.no_grad():
                if embedding == "unimodal":
                    before, guide = model.encode_image(clean[None])[0], model.encode_text([changed])[0]
                else:
                    before, guide = fused(model, clean, text), fused(model, clean, changed)
            now = model.encode_image(x[None])[0] if embedding == "unimodal" else fused(model, x, changed)
            scaled = (unit(guide), unit(now)) if unit_text_term else (guide, now)
            return kl_loss(before, now) + alpha * kl_loss(*scaled)

        draw = drawn(uniform, batch, i, tuple(clean.shape), seed=seed, stream=0)
        begun = clean + eps * (draw if start == "positive" else 2 * draw - 1)
        found.append(climb(loss, clean, begun.clamp(0, 1), eps=eps, steps=steps, step=1.25 * eps / steps))
    return torch.stack(found), texts


def fused(model, image, text):
    images = model.encode_image_states(image[None])
    with torch.no_grad():
        texts = model.encode_text_states(model.tokenize([text]))
    return model.fuse(images, texts, torch.tensor([[0, 0]]))[0]


def kl_loss(reference, embedding):
    p = torch.exp(reference - reference.logsumexp(0))
    return (p * (p.log() - (embedding - embedding.logsumexp(0)))).sum()
