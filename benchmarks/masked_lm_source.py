"""A small masked language model trained on captions, as word-swap's source of candidates beside the other sources.

    python benchmarks/masked_lm_source.py --folder runs/masked-lm [--seconds 180] [--steps 2000] [--images 64]
        [--words 1] [--sources thesaurus embedding masked-lm] [--threads 1]

A BERT of 2 layers, 128 wide, over whole words learns to fill in the captions of the emoji training split (15 % of words
chosen; of those 80 % masked, 10 % replaced, 10 % left, as in BERT) until `--steps` are done or `--seconds` of CPU time
spent.
It is saved as FOLDER/model, a Transformers folder that any attack takes as
`source={"name": "masked-lm", "model": "FOLDER/model"}`; where it stands already, it is not trained again.

Printed: how often it fills in the right word of validation captions, beside always guessing the commonest word; then,
for emoji-clip on evenly spread pictures of the validation split, what word-swap leaves with each source (TR@1 and IR@1
in percent), the share of captions it changed, CPU seconds, and examples of what it put in.
"""

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM, BertTokenizer

import crossguard as cg
from crossguard.attacks import load_adversarial
from crossguard.attacks.words import split_words

SOURCES = ("thesaurus", "embedding", "masked-lm")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LENGTH, CHOSEN, MASKED, REPLACED, LEFT_OUT = 48, 0.15, 0.8, 0.1, -100


def words_of(text: str) -> list[str]:
    """The words as the masked-lm source asks for them: lower case, without attached punctuation."""
    return [core for word in split_words(text) if (core := word.core.lower())]


def build_tokenizer(texts: Sequence[str]) -> BertTokenizer:
    """Whole words that occur at least twice; all others are unknown."""
    counts = Counter(word for text in texts for word in words_of(text))
    known = sorted(word for word, count in counts.items() if count > 1)
    return BertTokenizer(vocab={word: i for i, word in enumerate([*SPECIAL, *known])}, model_max_length=LENGTH)


def tokenize(tokenizer: BertTokenizer, texts: Sequence[str]) -> Int64[Tensor, "texts length"]:
    rows = [words_of(text) for text in texts]
    encoded = tokenizer(
        rows, is_split_into_words=True, padding=True, truncation=True, max_length=LENGTH, return_tensors="pt"
    )
    ids: Tensor = encoded["input_ids"]
    return ids


def hide(
    ids: Int64[Tensor, "texts length"], size: int, generator: torch.Generator
) -> tuple[Int64[Tensor, "texts length"], Int64[Tensor, "texts length"]]:
    """Return what the network sees, and the words to guess (`LEFT_OUT` elsewhere)."""
    words = ids >= len(SPECIAL)
    chosen = words & (torch.rand(ids.shape, generator=generator) < CHOSEN)
    fate = torch.rand(ids.shape, generator=generator)
    other = torch.randint(len(SPECIAL), size, ids.shape, generator=generator)
    seen = torch.where(chosen & (fate < MASKED), SPECIAL.index("[MASK]"), ids)
    seen = torch.where(chosen & (fate >= MASKED) & (fate < MASKED + REPLACED), other, seen)
    return seen, torch.where(chosen, ids, LEFT_OUT)


def train(texts: Sequence[str], folder: Path, options: argparse.Namespace) -> None:
    tokenizer = build_tokenizer(texts)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=512,
        max_position_embeddings=LENGTH,
    )
    torch.manual_seed(0)
    network: Any = BertForMaskedLM(config).train()
    generator = torch.Generator().manual_seed(0)
    # Captions of like length share a batch, so that little is padding.
    ordered = sorted(texts, key=lambda text: len(words_of(text)))
    batches = [ordered[at : at + options.batch] for at in range(0, len(ordered), options.batch)]
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.01)
    start, step, total = time.process_time(), 0, 0.0
    order: list[int] = []
    while step < options.steps and (spent := time.process_time() - start) < options.seconds:
        # The rate rises for the first 5 % and falls to zero at the end of the steps or of the time.
        done = max(step / options.steps, spent / options.seconds)
        optimizer.param_groups[0]["lr"] = 1e-3 * min(1.0, done / 0.05 + 0.02, (1 - done) / 0.95)
        order = order or torch.randperm(len(batches), generator=generator).tolist()
        ids = tokenize(tokenizer, batches[order.pop()])
        seen, labels = hide(ids, len(tokenizer), generator)
        if (labels == LEFT_OUT).all():
            continue
        loss = network(input_ids=seen, attention_mask=ids.ne(0).long(), labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step, total = step + 1, total + loss.item()
        if step % 100 == 0:
            print(f"step {step}: loss {total / 100:.3f}, {time.process_time() - start:.0f} CPU seconds", flush=True)
            total = 0.0
    print(f"trained {step} steps in {time.process_time() - start:.0f} CPU seconds; {len(tokenizer)} words")
    network.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@torch.no_grad()
def fills_in(folder: Path, texts: Sequence[str]) -> tuple[float, float]:
    """Shares of hidden validation words that the model, and that the commonest word, get right."""
    tokenizer = BertTokenizer.from_pretrained(folder)
    network: Any = BertForMaskedLM.from_pretrained(folder).eval()
    generator = torch.Generator().manual_seed(1)
    answers, truth = [], []
    for at in range(0, len(texts), 64):
        ids = tokenize(tokenizer, texts[at : at + 64])
        _, labels = hide(ids, len(tokenizer), generator)
        asked = labels != LEFT_OUT
        seen = ids.masked_fill(asked, SPECIAL.index("[MASK]"))
        logits = network(input_ids=seen, attention_mask=ids.ne(0).long()).logits
        answers.append(logits[asked].argmax(dim=1))
        truth.append(labels[asked])
    right = torch.cat(truth)
    return float((torch.cat(answers) == right).float().mean()), float((right == right.mode().values).float().mean())


def changed_words(source: str, adversarial: str) -> str:
    old, new = source.split(), adversarial.split()
    return ", ".join(f"{a} -> {b}" for a, b in zip(old, new, strict=True) if a != b)


def compare(folder: Path, options: argparse.Namespace) -> None:
    model = cg.load_model("emoji-clip")
    pairs = cg.load_pairs("emoji", split="val").spread(options.images)
    threat = cg.ThreatModel(text=cg.WordEdits(words=options.words))
    clean = cg.evaluate(model, pairs).clean
    print(f"\n| source | TR@1 / IR@1 | captions changed | CPU seconds | examples |\n{'|---' * 5}|")
    print(f"| none (clean) | {clean['tr@1']:.1f} / {clean['ir@1']:.1f} | | | |", flush=True)
    for name in options.sources:
        source = {"name": name, "model": str(folder), "offline": True} if name == "masked-lm" else name
        start = time.process_time()
        with TemporaryDirectory() as place:
            left = cg.evaluate(
                model,
                pairs,
                attack="word-swap",
                attack_options={"source": source},
                threat=threat,
                seed=0,
                save_to=Path(place) / "set",
            ).robust
            texts = load_adversarial(Path(place) / "set").texts
        seconds = time.process_time() - start
        changed = [text for text in pairs.texts if texts[text] != text]
        shown = [changed[i] for i in np.linspace(0, len(changed) - 1, options.examples).round().astype(int)]
        examples = "; ".join(dict.fromkeys(changed_words(text, texts[text]) for text in shown))
        share = 100 * len(changed) / len(pairs.texts)
        print(
            f"| `{name}` | {left['tr@1']:.1f} / {left['ir@1']:.1f} | {share:.0f} % | {seconds:.1f} | {examples} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where the language model is kept")
    parser.add_argument("--seconds", type=float, default=180, help="the most CPU time of training")
    parser.add_argument("--steps", type=int, default=2000, help="the most training steps")
    parser.add_argument("--batch", type=int, default=64, help="captions per training step")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--words", type=int, default=1)
    parser.add_argument("--examples", type=int, default=4, help="substitutions shown per source")
    parser.add_argument("--sources", nargs="+", default=list(SOURCES), choices=SOURCES)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folder = options.folder / "model"
    if not (folder / "config.json").is_file():
        train(cg.load_pairs("emoji", split="train").texts, folder, options)
    right, commonest = fills_in(folder, cg.load_pairs("emoji", split="val").texts)
    print(f"fills in {100 * right:.1f} % of hidden words (the commonest word alone: {100 * commonest:.1f} %)")
    compare(folder, options)


if __name__ == "__main__":
    main()
