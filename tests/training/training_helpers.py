"""What the tests of training share: substitutions within the toy vocabulary, and noted progress."""

from contextlib import contextmanager

from crossguard.attacks.words import split_words

ALIKE = {
    "small": ("large", "plain"),
    "bright": ("plain", "small"),
    "picture": ("drawing", "side"),
    "drawing": ("picture", "shape"),
    "side": ("shape", "drawing"),
}


class ToySource:
    """A few words of the toy captions and what may stand in their place."""

    name = "toy"

    def __init__(self):
        self.asked = []

    def candidates(self, texts, *, model):
        self.asked += texts
        return [tuple(ALIKE.get(word.core, ()) for word in split_words(text)) for text in texts]


class Noted:
    """A reporter that keeps titles, totals and notes."""

    def __init__(self):
        self.tasks = []

    @contextmanager
    def task(self, title, *, total, done=0):
        entry = {"title": title, "total": total, "done": done, "notes": []}
        self.tasks.append(entry)

        class Task:
            def advance(self, steps=1, *, note=""):
                entry["done"] += steps
                if note:
                    entry["notes"].append(note)

        yield Task()
