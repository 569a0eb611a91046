"""`GalleryChoice`: a two-tower model as a classifier over (patches, words), which certificates can sub-sample."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor, nn
from torch.nn.functional import normalize

from crossguard.models.base import Packed, PatchModel
from crossguard.models.packing import pack
from crossguard.models.patches import encode_patches

MODALITIES = ("image", "text")


class GalleryChoice(nn.Module):
    """Chooses the entry of a fixed gallery that a picture, a text, or a picture with its text is most like.

    Zero-shot classification is the case of pictures alone and a gallery of class prompts; retrieval among a fixed
    gallery the case of captions alone and a gallery of pictures. With both, the logits are the mean of the two cosines,
    times the model's scale. The gallery is not attacked.

    Elements are the model's patches, float [samples, patches, 3, patch_height, patch_width] in [0, 1], and words, codes
    [samples, slots, 1] into a vocabulary. Patches that a sub-sample does not keep leave the token sequence; words that
    it does not keep leave the text: code 0 stands for no word.

    Args:
        model: the two towers; its weights are not changed. Only pictures need it to leave out patches.
        gallery: float [classes, dim], embeddings of the entries.
        classes: their names.
        vocabulary: the words; code i + 1 is word i.
        modalities: "image", "text" or both.

    Attributes:
        packs: both, as far as they are modalities.
        position_free: "text", if it is one: the words that are kept make a text of their own, in their order, so that
            certificates hold against insertions and deletions of words too.

    Raises:
        ValueError: a gallery of another number of entries than names, unknown modalities, no vocabulary where there are
            texts, or a model that cannot leave out patches.
    """

    def __init__(
        self,
        model: PatchModel,
        gallery: Float[Tensor, "classes dim"],
        classes: Sequence[str],
        *,
        vocabulary: Sequence[str] = (),
        modalities: tuple[str, ...] = MODALITIES,
    ) -> None:
        super().__init__()
        if len(gallery) != len(classes) or len(classes) < 2:
            raise ValueError(f"Expected two names or more, one per entry of the gallery, but got {len(classes)}.")
        if not modalities or [m for m in MODALITIES if m in modalities] != list(modalities):
            raise ValueError(f"Expected `modalities` 'image', 'text' or both, but got {modalities}.")
        if "text" in modalities and not vocabulary:
            raise ValueError("Expected a vocabulary for texts, but got none.")
        if "image" in modalities and not hasattr(model, "patch_grid"):
            raise ValueError(
                f"Expected a model with a `patch_grid`, which can leave out patches, but got {model.name!r}."
            )
        self.model = model
        self.name = f"{model.name} choice"
        self.modalities = modalities
        self.packs = modalities
        self.position_free = tuple(m for m in modalities if m == "text")
        self.classes = tuple(classes)
        self.vocabulary = ("", *vocabulary)
        self.gallery: Tensor
        self.register_buffer("gallery", normalize(gallery.detach().float(), dim=-1))

    def forward(
        self,
        inputs: Mapping[str, Shaped[Tensor, "samples ..."]],
        kept: Mapping[str, Bool[Tensor, "samples _"]] | None = None,
    ) -> Float[Tensor, "samples classes"]:
        """Return logits.

        Args:
            inputs: patches and codes, as above.
            kept: bool [samples, elements] per modality; None keeps all.

        Raises:
            ValueError: a modality is missing.
        """
        given: dict[str, Packed] = {}
        for modality in self.modalities:
            if modality not in inputs:
                raise ValueError(f"Expected an input {modality!r}, but got {', '.join(inputs)}.")
            values = inputs[modality]
            mask = values.new_ones(values.shape[:2], dtype=torch.bool) if kept is None else kept[modality]
            given[modality] = pack(values, mask)
        return self.classify_kept(given, {})

    def classify_kept(
        self, inputs: Mapping[str, Packed], kept: Mapping[str, Bool[Tensor, "samples _"]]
    ) -> Float[Tensor, "samples classes"]:
        """Return logits from the kept patches and words, see `PackingClassifier`."""
        total: Tensor | None = None
        for modality in self.modalities:
            given = inputs[modality]
            if modality == "image":
                embedded = encode_patches(self.model, given)
            else:  # padding is 0, no word
                embedded = self._texts(given.values.reshape(len(given), -1).round().long())
            cosine = normalize(embedded.float(), dim=-1) @ self.gallery.T
            total = cosine if total is None else total + cosine
        assert total is not None
        return self.model.logit_scale.detach() * total / len(self.modalities)

    def spell(self, codes: Int64[Tensor, "samples slots"]) -> list[str]:
        """Return the texts of rows of codes."""
        return [" ".join(self.vocabulary[code] for code in row if code) for row in codes.tolist()]

    def codes(self, texts: Sequence[str], *, slots: int) -> Int64[Tensor, "texts slots"]:
        """Return the codes of texts, padded with "no word".

        Raises:
            ValueError: a text of more words than slots, or with a word that the vocabulary lacks.
        """
        place = {word: code for code, word in enumerate(self.vocabulary) if code}
        rows = torch.zeros(len(texts), slots, dtype=torch.int64)
        for row, text in zip(rows, texts, strict=True):
            words = text.split()
            unknown = [word for word in words if word not in place]
            if len(words) > slots or unknown:
                raise ValueError(f"Expected a text of at most {slots} words of the vocabulary, but got {text!r}.")
            row[: len(words)] = torch.tensor([place[word] for word in words], dtype=torch.int64)
        return rows

    def _texts(self, codes: Int64[Tensor, "samples slots"]) -> Float[Tensor, "samples dim"]:
        """Encode each different text once."""
        different, place = codes.unique(dim=0, return_inverse=True)
        return self.model.encode_text(self.spell(different))[place]
