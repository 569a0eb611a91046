"""Models behind small protocols, their adapters, and `load_model`."""

from crossguard.models.base import MultiModalClassifier, Tokens, VisionLanguageModel, cosine
from crossguard.models.clip import CLIP
from crossguard.models.pixels import PixelRule, to_pixels
from crossguard.models.table import MODELS, ModelRow, load_model
from crossguard.models.watch_net import WatchNet

__all__ = [
    "CLIP",
    "MODELS",
    "ModelRow",
    "MultiModalClassifier",
    "PixelRule",
    "Tokens",
    "VisionLanguageModel",
    "WatchNet",
    "cosine",
    "load_model",
    "to_pixels",
]
