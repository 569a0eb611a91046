"""ALBEF: align before fuse (Li et al., NeurIPS 2021)."""

from crossguard.models.albef.adapter import ALBEF
from crossguard.models.albef.config import AlbefConfig
from crossguard.models.albef.heatmap import GROUNDING_LAYER, attention_maps, enlarge

__all__ = ["ALBEF", "GROUNDING_LAYER", "AlbefConfig", "attention_maps", "enlarge"]
