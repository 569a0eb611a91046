"""A tiny ALBEF that grounds with its layer 3, and RefCOCO+ at tiny size, for the tests of grounding."""

from crossguard.data import load_expressions
from fusion_models import make_albef
from refcoco_files import write_refcoco

LAYER = 3


def make_grounder(folder, **sizes):
    return make_albef(folder, **{"image_size": 24, "text_layers": 5, "fusion_start": 2, **sizes})


def make_expressions(folder, split="val"):
    return load_expressions("refcoco+", split=split, **write_refcoco(folder))
