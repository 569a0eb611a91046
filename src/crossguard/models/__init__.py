"""Models behind small protocols, their adapters, and `load_model`."""

from crossguard.models.albef import ALBEF, AlbefConfig
from crossguard.models.base import (
    Captioner,
    FusedEmbeddingModel,
    FusionModel,
    GroundingModel,
    MultiModalClassifier,
    MultiModalSegmenter,
    Packed,
    PackingClassifier,
    PatchEmbeddingModel,
    PatchModel,
    States,
    Tokens,
    VisionLanguageModel,
    cosine,
)
from crossguard.models.blip import BLIP
from crossguard.models.blip_captioner import BlipCaptioner
from crossguard.models.chinese_clip import ChineseCLIP
from crossguard.models.clip import CLIP
from crossguard.models.clip_resnet import ResNetCLIP
from crossguard.models.defended import CounterAttack, Defended, TestTimeDefence
from crossguard.models.emotion_net import EmotionNet
from crossguard.models.heatmap import GROUNDING_LAYER, attention_maps, enlarge
from crossguard.models.llava import Llava
from crossguard.models.momentum import MomentumTraining
from crossguard.models.pixels import PixelRule, to_pixels
from crossguard.models.qwen_vl import QwenVL
from crossguard.models.road_net import RoadNet
from crossguard.models.siglip import SigLIP
from crossguard.models.storage import load_weights, save_weights
from crossguard.models.table import MODELS, ModelRow, load_model, register_model
from crossguard.models.watch_net import WatchNet
from crossguard.models.wrap import ImageToText, TwoTowers

__all__ = [
    "ALBEF",
    "BLIP",
    "CLIP",
    "GROUNDING_LAYER",
    "MODELS",
    "AlbefConfig",
    "BlipCaptioner",
    "Captioner",
    "ChineseCLIP",
    "CounterAttack",
    "Defended",
    "EmotionNet",
    "FusedEmbeddingModel",
    "FusionModel",
    "GroundingModel",
    "ImageToText",
    "Llava",
    "ModelRow",
    "MomentumTraining",
    "MultiModalClassifier",
    "MultiModalSegmenter",
    "Packed",
    "PackingClassifier",
    "PatchEmbeddingModel",
    "PatchModel",
    "PixelRule",
    "QwenVL",
    "ResNetCLIP",
    "RoadNet",
    "SigLIP",
    "States",
    "TestTimeDefence",
    "Tokens",
    "TwoTowers",
    "VisionLanguageModel",
    "WatchNet",
    "attention_maps",
    "cosine",
    "enlarge",
    "load_model",
    "load_weights",
    "register_model",
    "save_weights",
    "to_pixels",
]
