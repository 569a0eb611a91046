"""ALBEF: align before fuse (Li et al., NeurIPS 2021)."""

from crossguard.models.albef.adapter import ALBEF
from crossguard.models.albef.config import AlbefConfig

__all__ = ["ALBEF", "AlbefConfig"]
