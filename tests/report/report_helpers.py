"""A small real run, views made by hand, and a strict reader of pages."""

from html.parser import HTMLParser

import numpy as np
import torch

from crossguard.attacks.base import Attack
from crossguard.evaluate import Estimate, evaluate, wilson
from crossguard.evaluate.retrieval import METRICS
from crossguard.report import CertificateView, ResultView, certificate_entry
from crossguard.runs import RunFolder
from crossguard.threat import LInf, ThreatModel, WordEdits

THREAT = ThreatModel(image=LInf(eps=8 / 255), text=WordEdits(words=1))


class Signs(Attack):
    """Random signs, and "plain" for the second word."""

    name = "signs"
    uses = frozenset({"image", "text"})

    def run(self, model, batch, *, budget, seed):
        generator = torch.Generator().manual_seed(seed)
        signs = torch.randint(0, 2, batch.pixels.shape, generator=generator) * 2 - 1
        texts = [" ".join([*text.split()[:1], "plain", *text.split()[2:]]) for text in batch.texts]
        return (batch.pixels + budget.eps * signs).clamp(0, 1), tuple(texts) if budget.words else batch.texts


def share(hits, total):
    return Estimate(100 * hits / total, *wilson(hits, total), total, total // 4)


def points(value):
    return Estimate(value, value - 3, value + 3, 100, 25)


def make_row(label="mat", *, columns=("clean", "image", "text", "joint"), **changes):
    """A row of retrieval with recalls that no two metrics share; or with columns that hold figures already."""
    figures = columns
    if not isinstance(columns, dict):
        figures = {
            column: {metric: share(90 - 20 * c - m, 100) for m, metric in enumerate(METRICS)}
            for c, column in enumerate(columns)
        }
    success = {
        column: {
            "conditional": {metric: points(10.0 * c + m) if c < 3 else None for m, metric in enumerate(METRICS)},
            "drop": {metric: points(20.0 * c - m) for m, metric in enumerate(METRICS)},
        }
        for c, column in enumerate(columns)
        if column != "clean"
    }
    values = {
        "task": "retrieval",
        "heading": "Retrieval",
        "label": label,
        "data": "toy",
        "split": "test",
        "samples": "100 images and 100 texts",
        "attack": "sga",
        "threat": "image: L-inf 2/255 (both sides)",
        "seed": 0,
        "headline": ("tr@1", "ir@1"),
        "columns": figures,
        "success": success,
    }
    return ResultView(**{**values, **changes})


def make_certificate(**changes):
    """A certificate over 3 x 4 radii."""
    values = {
        "label": "watch-net",
        "data": "watch",
        "split": "test",
        "samples": 40,
        "modalities": ("accelerometer", "gyroscope"),
        "elements": (64, 32),
        "keep": (12, 8),
        "kinds": ("substitution", "insertion"),
        "radii": ((0, 1, 2), (0, 1, 2, 5)),
        "accuracy": np.linspace(0.95, 0.05, 12).reshape(3, 4),
        "draws": 1000,
        "alpha": 0.001,
        "scope": "per sample, all radii at once",
        "clean_accuracy": 0.975,
        "abstention": 0.025,
    }
    return CertificateView(**{**values, **changes})


def make_run(path, model, pairs):
    """A finished run: one model on each modality, one clean only, and a certificate."""
    with RunFolder.open(
        path,
        settings={"model": "tiny", "attack": {"name": "signs"}},
        seed=3,
        command=["/usr/bin/crossguard", "evaluate", "a b"],
    ) as run:
        signs = {"attack": Signs(), "threat": THREAT, "modalities": True}
        evaluate(model, pairs, **signs, run=run, label="<b>base</b>", examples=2)
        evaluate(model, pairs, run=run, label="clean only")
        run.summarise("certificates", "watch-net", certificate_entry(make_certificate()))
        run.finish()
    return path


def estimate(value):
    return vars(Estimate(value, value - 1, value + 1, 100, 50))


def make_entry(label="net", part="joint", **changes):
    """What a measurement leaves in a summary; by default a task of somebody's own."""
    attacked = part != "clean"
    estimates = {"clean": {"points": estimate(80.0)}}
    if attacked:
        estimates |= {"robust": {"points": estimate(30.0)}, "drop": {"points": estimate(50.0)}}
    values = {
        "task": "answering",
        "label": label,
        "part": part,
        "model": label,
        "weights": label,
        "data": "quiz",
        "split": "test",
        "content": "c0",
        "hints": 2,
        "attack": "own" if attacked else None,
        "attack_options": {"steps": 3} if attacked else {},
        "threat": {"target": "both", "image": {"type": "l-inf", "eps": 8 / 255}} if attacked else None,
        "aim": "all" if attacked else None,
        "seed": 0,
        "batch_size": 4,
        "crossguard": "1",
        "about": {"heading": "Answering", "explained": "Points.", "headline": ["points"], "samples": "9 questions"},
        "estimates": estimates,
        "examples": [],
        "warnings": [],
        "notes": ["Own\x1b note."],
    }
    return {**values, **changes}


def keep_entries(path, entries, rows=()):
    """A run that holds them."""
    with RunFolder.open(path, settings={}) as run:
        run.rows.append(*rows)
        for entry in entries:
            run.summarise("results", f"{entry['task']}/{entry['label']}/{entry['part']}", entry)
    return path


class Page(HTMLParser):
    """Reads a page strictly: every tag closed, in order; keeps tags, text by element, and links."""

    VOID = frozenset({"meta", "link", "img", "br", "hr"})
    SVG_VOID = frozenset({"rect", "line", "polygon", "polyline", "circle"})

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.loads, self.words = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
                self.loads.append(value)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        assert tag in self.SVG_VOID | self.VOID

    def handle_endtag(self, tag):
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script") and data.strip():
            self.words.append(" ".join(data.split()))

    def count(self, tag, **attributes):
        wanted = {name.rstrip("_"): value for name, value in attributes.items()}
        return sum(t == tag and wanted.items() <= a.items() for t, a in self.tags)

    @property
    def text(self):
        return " ".join(self.words)
