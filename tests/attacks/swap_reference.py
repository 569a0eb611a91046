"""BERT-Attack's scheme one caption and one forward at a time: what the batched attack must equal."""

import torch

from crossguard.attacks.candidates import attackable
from crossguard.attacks.words import replace_word, split_words


@torch.no_grad()
def swap_words_slowly(model, texts, image_features, positives, *, words, source, order="importance", margin=1e-6):
    image_features = torch.nn.functional.normalize(image_features.float(), dim=-1)
    return tuple(
        _swap(model, text, image_features[positives[:, j]], words, source, order, margin)
        for j, text in enumerate(texts)
    )


def _swap(model, text, partners, words, source, order, margin):
    if words == 0 or len(partners) == 0:
        return text
    candidates = source.candidates([text], model=model)[0]
    pieces = split_words(text)
    places = [i for i, word in enumerate(pieces) if attackable(word.core) and candidates[i]]

    def score(variant):
        embedding = torch.nn.functional.normalize(model.encode_text([variant]).float(), dim=-1)[0]
        return float((partners @ embedding).mean())

    def mask(i):
        return text[: pieces[i].start] + model.mask_token + text[pieces[i].end :]

    if order == "importance":
        places.sort(key={i: score(mask(i)) for i in places}.__getitem__)
    best = score(text)
    changes = 0
    while places and changes < words:
        visited = places[:1] if order == "importance" else list(places)
        now = split_words(text)
        options = [(i, replace_word(text, now[i], c)) for i in visited for c in candidates[i]]
        scores = [score(variant) for _, variant in options]
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
