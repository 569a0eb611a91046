"""BERT-Attack's scheme one caption and one forward at a time: what the batched attack must equal."""

import torch

from crossguard.attacks.candidates import attackable
from crossguard.attacks.words import replace_word, split_words


@torch.no_grad()
def swap_words_slowly(model, texts, image_features, positives, *, words, source, order="importance", margin=1e-6):
    """One forward per variant of a caption."""

    def score(variants, partners):
        return [float((partners @ unit(model.encode_text([variant]))[0]).mean()) for variant in variants]

    return _swap_all(score, model, texts, image_features, positives, words, source, order, margin)


@torch.no_grad()
def swap_words_by_caption(model, texts, image_features, positives, *, words, source, order="importance", margin=1e-6):
    """One forward per caption for its masked variants, and one per visited word for its candidates, as published."""

    def score(variants, partners):
        return (unit(model.encode_text(variants)) @ partners.T).mean(dim=1).tolist()

    return _swap_all(score, model, texts, image_features, positives, words, source, order, margin)


def unit(embeddings):
    return torch.nn.functional.normalize(embeddings.float(), dim=-1)


def _swap_all(score, model, texts, image_features, positives, words, source, order, margin):
    image_features = unit(image_features)
    return tuple(
        _swap(score, model, text, image_features[positives[:, j]], words, source, order, margin)
        for j, text in enumerate(texts)
    )


def _swap(score, model, text, partners, words, source, order, margin):
    if words == 0 or len(partners) == 0:
        return text
    candidates = source.candidates([text], model=model)[0]
    pieces = split_words(text)
    places = [i for i, word in enumerate(pieces) if attackable(word.core) and candidates[i]]
    if not places:
        return text
    masked = [text[: pieces[i].start] + model.mask_token + text[pieces[i].end :] for i in places]
    best, *hidden = score([text, *masked], partners)
    if order == "importance":
        places = [place for _, place in sorted(zip(hidden, places, strict=True), key=lambda pair: pair[0])]
    changes = 0
    while places and changes < words:
        visited = places[:1] if order == "importance" else list(places)
        now = split_words(text)
        options = [(i, replace_word(text, now[i], c)) for i in visited for c in candidates[i]]
        scores = score([variant for _, variant in options], partners)
        low = min(range(len(options)), key=scores.__getitem__)
        if scores[low] < best - margin:
            best = scores[low]
            changed, text = options[low]
            places.remove(changed)
            changes += 1
        elif order == "importance":
            places.pop(0)
        else:
            break
    return text
