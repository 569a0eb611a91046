"""Pictures by diffusion models (Rombach et al., CVPR 2022) through diffusers: from a caption, or from both sides."""

import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError

from crossguard.augment.base import Made, MadePicture, Request, Side, contents, dice, sample_ids
from crossguard.augment.pixels import fit_square
from crossguard.checks import check_whole, expanded
from crossguard.data import OneToManyPairs
from crossguard.extras import install

MODEL = "stable-diffusion-v1-5/stable-diffusion-v1-5"


class TextToImage:
    """Pictures made from a caption alone: `T2I(SD)` of MAT+.

    A picture is linked to its caption (and to that caption's paraphrases), not to other captions of the same original
    picture: what they say need not be in it.

    Args:
        model: folder or hub id of a pipeline in diffusers' layout, whose `model_index.json` says what it is: Stable
            Diffusion, SDXL, or any other that draws from a text.
        steps: denoising steps.
        guidance: classifier-free guidance scale; above 1 the picture follows the caption more closely.
        prompt: what the model is told; "{text}" stands for the caption.
        size: width and height in pixels, a multiple of 8; None takes the model's own.
        lora: low-rank adapters that the model was tuned by: a safetensors file, or the folder or hub id that holds one.
        lora_scale: how much of them is added, 1 for as they were tuned.
        offline: look only at local files.

    Raises:
        ImportError: diffusers is missing.
        ValueError: an option out of range, or a pipeline or adapters that cannot be loaded.
    """

    name = "text2img"
    per: Side = "texts"
    block = 16

    def __init__(
        self,
        *,
        model: Path | str = MODEL,
        steps: int = 30,
        guidance: float | int = 7.5,
        prompt: str = "{text}",
        size: int | None = None,
        lora: Path | str | None = None,
        lora_scale: float | int = 1.0,
        offline: bool = False,
    ) -> None:
        _check(steps=steps, guidance=guidance, prompt=prompt, size=size)
        self._pipeline = load_pipeline("text2img", model, lora=lora, lora_scale=lora_scale, offline=offline)
        self.options: Mapping[str, Any] = {
            "model": str(model),
            "steps": steps,
            "guidance": guidance,
            "prompt": prompt,
            "size": size,
            **({} if lora is None else {"lora": str(lora), "lora_scale": lora_scale}),
            **contents(model, lora),
        }

    def make_images(self, pairs: OneToManyPairs, items: Sequence[int], request: Request) -> list[list[MadePicture]]:
        """Return, per caption, pictures of it."""
        texts = [pairs.texts[item] for item in items]
        ids = sample_ids(self.name, texts, request.count).tolist()
        images: list[Image.Image] = []
        for at in range(0, len(ids), request.batch_size):
            rows = range(at, min(at + request.batch_size, len(ids)))
            images += draw(
                self._pipeline,
                request,
                prompts=[self.options["prompt"].replace("{text}", texts[row // request.count]) for row in rows],
                ids=[ids[row] for row in rows],
                num_inference_steps=self.options["steps"],
                guidance_scale=self.options["guidance"],
                height=self.options["size"],
                width=self.options["size"],
            )
        return [
            [Made(images[place * request.count + k], texts=(item,)) for k in range(request.count)]
            for place, item in enumerate(items)
        ]


class ImageToImage:
    """Variations of a picture that a caption of it guides: `T-I2I(SD)` of MAT+.

    The samples of a picture take its captions in turn, in an order of its own. A variation is linked to all texts of
    its picture.

    Args:
        model: folder or hub id of a pipeline in diffusers' layout, whose `model_index.json` says what it is: Stable
            Diffusion, SDXL, or any other that redraws a picture as a text says.
        strength: how much is drawn anew, above 0 (the picture as it is) to 1 (the caption alone).
        steps: denoising steps at strength 1; `strength` times as many are done.
        guidance: classifier-free guidance scale.
        prompt: what the model is told; "{text}" stands for the caption.
        size: width and height in pixels, a multiple of 8; None takes the model's own.
        lora: low-rank adapters that the model was tuned by: a safetensors file, or the folder or hub id that holds one.
        lora_scale: how much of them is added, 1 for as they were tuned.
        offline: look only at local files.

    Raises:
        ImportError: diffusers is missing.
        ValueError: an option out of range, or a pipeline or adapters that cannot be loaded.
    """

    name = "img2img"
    per: Side = "images"
    block = 16

    def __init__(
        self,
        *,
        model: Path | str = MODEL,
        strength: float | int = 0.5,
        steps: int = 30,
        guidance: float | int = 7.5,
        prompt: str = "{text}",
        size: int | None = None,
        lora: Path | str | None = None,
        lora_scale: float | int = 1.0,
        offline: bool = False,
    ) -> None:
        _check(steps=steps, guidance=guidance, prompt=prompt, size=size)
        if not 0 < strength <= 1 or int(strength * steps) < 1:
            raise ValueError(f"Expected `strength` in (0, 1] that gives at least one of {steps} steps, got {strength}.")
        self._pipeline = load_pipeline("img2img", model, lora=lora, lora_scale=lora_scale, offline=offline)
        self.options: Mapping[str, Any] = {
            "model": str(model),
            "strength": strength,
            "steps": steps,
            "guidance": guidance,
            "prompt": prompt,
            "size": size,
            **({} if lora is None else {"lora": str(lora), "lora_scale": lora_scale}),
            **contents(model, lora),
        }

    def make_images(self, pairs: OneToManyPairs, items: Sequence[int], request: Request) -> list[list[MadePicture]]:
        """Return, per picture, variations of it."""
        size = self.options["size"] or own_size(self._pipeline)
        keys = [pairs.images[item].key for item in items]
        ids = sample_ids(self.name, keys, request.count).tolist()
        prompts = [text for item in items for text in self._captions(pairs, item, request)]
        sources = [fit_square(pairs.image(item), size) for item in items]
        images: list[Image.Image] = []
        for at in range(0, len(ids), request.batch_size):
            rows = range(at, min(at + request.batch_size, len(ids)))
            images += draw(
                self._pipeline,
                request,
                prompts=[self.options["prompt"].replace("{text}", prompts[row]) for row in rows],
                ids=[ids[row] for row in rows],
                image=[sources[row // request.count] for row in rows],
                strength=self.options["strength"],
                num_inference_steps=self.options["steps"],
                guidance_scale=self.options["guidance"],
            )
        return [
            [Made(images[place * request.count + k], images=(item,)) for k in range(request.count)]
            for place, item in enumerate(items)
        ]

    def _captions(self, pairs: OneToManyPairs, item: int, request: Request) -> list[str]:
        texts = [pairs.texts[j] for j in pairs.texts_of(item)]
        order = dice(request.seed, self.name, pairs.images[item].key).sample(range(len(texts)), len(texts))
        return [texts[order[k % len(order)]] for k in range(request.count)]


_ASKED = {
    "text2img": ("prompt", "num_inference_steps", "guidance_scale", "height", "width"),
    "img2img": ("prompt", "num_inference_steps", "guidance_scale", "image", "strength"),
}
"""What the two verbs of diffusers are called with."""
_BROKEN = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError)


def load_pipeline(
    verb: str, model: Path | str, *, lora: Path | str | None = None, lora_scale: float = 1.0, offline: bool
) -> Any:
    """Load a diffusers pipeline without its safety checker and progress bar, from safetensors only.

    Args:
        verb: "text2img" or "img2img".
        model: folder or hub id; code that a folder brings along is not run.
        lora: file, folder or hub id of adapters, which become a part of the weights.
        lora_scale: how much of them is added.
        offline: look only at local files.

    Raises:
        ImportError: diffusers, or what a pipeline needs, is missing.
        ValueError: it cannot be loaded, or draws in another way.
    """
    try:
        diffusers = import_module("diffusers")
    except ImportError as error:
        raise ImportError(f"This source draws with diffusers: {install('diffusion')}") from error
    try:
        told = diffusers.DiffusionPipeline.load_config(str(model), local_files_only=offline)
        unchecked: dict[str, Any] = {}
        if "safety_checker" in told:
            unchecked = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
        pipeline = _pipeline_class(diffusers, str(told.get("_class_name")), verb).from_pretrained(
            str(model), use_safetensors=True, local_files_only=offline, variant=_variant(Path(model)), **unchecked
        )
    except _BROKEN as error:
        raise ValueError(f"Expected a diffusion pipeline in {model}, but got: {error}") from error
    lacking = [name for name in _ASKED[verb] if name not in signature(pipeline.__call__).parameters]
    if lacking:
        raise ValueError(
            f"Expected a diffusion pipeline in {model} that takes {', '.join(_ASKED[verb])}, but "
            f"{type(pipeline).__name__} does not take {', '.join(lacking)}."
        )
    if lora is not None:
        _add_lora(pipeline, lora, lora_scale, offline=offline)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _pipeline_class(diffusers: Any, told: str, verb: str) -> Any:
    """Return the class of diffusers that does the verb with the parts of a pipeline of another one."""
    plain = re.sub("Img2Img|Inpaint", "", told)
    name = plain if verb == "text2img" else re.sub("Pipeline$", "Img2ImgPipeline", plain)
    found = getattr(diffusers, name, None) if name.endswith("Pipeline") else None
    if found is None:  # this knows the odd names, and imports all of diffusers
        found = getattr(diffusers, "AutoPipelineForText2Image" if verb == "text2img" else "AutoPipelineForImage2Image")
    return found


def _variant(folder: Path) -> str | None:
    """Return "fp16" for a folder that has its weights in half precision alone."""
    names = [path.name for path in folder.rglob("*.safetensors")] if folder.is_dir() else []
    return "fp16" if names and all(".fp16." in name for name in names) else None


def _add_lora(pipeline: Any, lora: Path | str, scale: float, *, offline: bool) -> None:
    path = expanded(lora)
    place = {"weight_name": path.name} if path.is_file() else {}
    try:
        pipeline.load_lora_weights(
            str(path.parent if place else path if path.exists() else lora),
            use_safetensors=True,
            local_files_only=offline,
            **place,
        )
        if not any(pipeline.get_list_adapters().values()):
            raise ValueError(f"none of them belongs to a part of {type(pipeline).__name__}")
        pipeline.fuse_lora(lora_scale=scale)
        pipeline.unload_lora_weights()
    except (*_BROKEN, IndexError) as error:
        raise ValueError(
            f"Expected low-rank adapters for {type(pipeline).__name__} in {lora}, but got: {error}"
        ) from error


def own_size(pipeline: Any) -> int:
    """Return the width and height in pixels that a pipeline was trained with.

    Raises:
        ValueError: it does not say.
    """
    network = getattr(pipeline, "unet", None) or getattr(pipeline, "transformer", None)
    told = getattr(pipeline, "default_sample_size", None) or getattr(
        getattr(network, "config", None), "sample_size", None
    )
    if not isinstance(told, int):
        raise ValueError(
            f"Expected `size`, since {type(pipeline).__name__} does not say which one it was trained with."
        )
    return told * int(pipeline.vae_scale_factor)


@torch.inference_mode()
def draw(pipeline: Any, request: Request, *, prompts: list[str], ids: list[int], **options: Any) -> list[Image.Image]:
    """Run a pipeline on one batch, with a generator of its own for every sample."""
    generators = [torch.Generator("cpu").manual_seed((identity ^ request.seed) & (2**63 - 1)) for identity in ids]
    pipeline.to(request.device)
    result = pipeline(prompt=prompts, generator=generators, output_type="pil", **options)
    images: list[Image.Image] = result.images
    return images


def _check(*, steps: int, guidance: float | int, prompt: str, size: int | None) -> None:
    check_whole(steps, "steps", least=1)
    if guidance < 0:
        raise ValueError(f"Expected `guidance` >= 0, but got {guidance}.")
    if "{text}" not in prompt:
        raise ValueError(f'Expected a `prompt` with "{{text}}" in it, but got {prompt!r}.')
    if size is not None and check_whole(size, "size", least=8) % 8:
        raise ValueError(f"Expected `size` to be a multiple of 8 pixels or None, but got {size}.")
