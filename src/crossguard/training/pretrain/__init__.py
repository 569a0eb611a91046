"""Pre-training of small CLIPs from scratch on a built-in data set: `python -m crossguard.training.pretrain`."""

from crossguard.training.pretrain.loop import pretrain
from crossguard.training.pretrain.settings import Settings, Sizes, read_settings

__all__ = ["Settings", "Sizes", "pretrain", "read_settings"]
