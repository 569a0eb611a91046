"""The settings of a pre-training run, read from a YAML file and checked at once."""

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveInt


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Sizes(_Strict):
    """Sizes of the two towers; widths are multiples of 32 (one head each)."""

    image_size: PositiveInt
    patch_size: PositiveInt
    vision_width: PositiveInt
    vision_layers: PositiveInt
    text_width: PositiveInt
    text_layers: PositiveInt
    context_length: PositiveInt
    embed_dim: PositiveInt


class Settings(_Strict):
    """One pre-training run.

    Args:
        data: the name of an image-text data set; its `train` split is learnt, its `val` split watched.
        sizes: the model.
        steps: optimiser steps.
        batch: pictures per step, each with one text.
        neighbours: share of a batch that are look-alikes (by the teacher) of its other pictures.
        learning_rate: the peak, after `warm_up` steps, before a cosine to zero.
        warm_up: steps of linear warm-up.
        weight_decay: of AdamW, on matrices.
        average: decay of the running average of the weights, which is what is saved.
        caption_share: how often a text is a caption rather than a name or an alias.
        keep_patches: share of the image patches that are read (FLIP, Li et al., 2023), which saves as much time.
        full_from: share of the steps after which every patch is read.
        mask_words: share of tokens hidden by the mask token.
        swap_words: share of tokens replaced by a random word.
        rounds: how many strong views of every picture the image teacher sees.
        teacher_dim: coordinates of the teacher's features that are imitated.
        teacher_weight: weight of imitating them, against 1 for the contrastive loss.
        check_every: steps between two looks at `val` and two checkpoints.
        seed: of everything random.
    """

    data: str
    sizes: Sizes
    steps: PositiveInt
    batch: int = Field(ge=2)
    neighbours: float = Field(ge=0, le=0.9)
    learning_rate: float = Field(gt=0)
    warm_up: PositiveInt
    weight_decay: float = Field(ge=0)
    average: float = Field(ge=0, lt=1)
    caption_share: float = Field(ge=0, le=1)
    keep_patches: float = Field(gt=0, le=1)
    full_from: float = Field(ge=0, le=1)
    mask_words: float = Field(ge=0, lt=1)
    swap_words: float = Field(ge=0, lt=1)
    rounds: PositiveInt
    teacher_dim: PositiveInt
    teacher_weight: float = Field(ge=0)
    check_every: PositiveInt
    seed: int = Field(ge=0)


def read_settings(file: Path | str) -> Settings:
    """Read a recipe.

    Raises:
        ValueError: the file is missing, or a setting is unknown, missing or out of range (all of them are listed).
    """
    try:
        values = yaml.safe_load(Path(file).read_text("utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"Expected a YAML recipe at {file}, but it could not be read: {error}") from error
    return Settings.model_validate(values)
