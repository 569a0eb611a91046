"""Chinese-CLIP through Transformers: CLIP's image tower, and a BERT that reads texts."""

from collections.abc import Sequence
from pathlib import Path

from jaxtyping import Float
from torch import Tensor
from transformers import ChineseCLIPConfig, ChineseCLIPModel

from crossguard.models.base import Tokens
from crossguard.models.clip import CLIP
from crossguard.models.hub import local_folder
from crossguard.models.storage import load_transformers, told_name
from crossguard.models.supplied import NOTHING, Supplied
from crossguard.models.tokenizers import check_vocabulary

CONTEXT = 52
"""The most tokens that it was trained on; BERT's positions reach further."""


class ChineseCLIP(CLIP):
    """A Chinese-CLIP (Yang et al., 2022): a text is embedded from the state of its `[CLS]`, see `CLIP`."""

    @classmethod
    def from_pretrained(
        cls, source: Path | str, *, name: str | None = None, offline: bool = False, supplied: Supplied = NOTHING
    ) -> "ChineseCLIP":
        """Load a local folder in Transformers' layout, or a hub id such as "OFA-Sys/chinese-clip-vit-base-patch16".

        Args:
            source: the folder or hub id.
            name: shown in tables; default: the folder's or hub id's last part.
            offline: look only at local files.
            supplied: what the files lack.

        Raises:
            ValueError: the checkpoint has missing or surplus weights, or lacks tokenizer or preprocessing.
        """
        folder = local_folder(source, offline=offline)
        config = ChineseCLIPConfig.from_pretrained(str(folder), local_files_only=True)
        tokenizer = supplied.tokenizer_for(folder)
        check_vocabulary(tokenizer, size=config.text_config.vocab_size, end=None, where=folder)
        rule = supplied.pixel_rule_for(folder, size=config.vision_config.image_size)
        network = load_transformers(ChineseCLIPModel, folder, offline=True, family="Chinese-CLIP")
        model = cls(network, tokenizer, pixel_rule=rule, name=name or told_name(source)).eval()
        model.context_length = min(model.context_length, CONTEXT)
        return model

    def encode_text(self, texts: Sequence[str] | Tokens) -> Float[Tensor, "texts dim"]:
        """Embed texts or tokens."""
        tokens = (texts if isinstance(texts, Tokens) else self.tokenize(texts)).to(self._mean.device)
        output = self.network.text_model(input_ids=tokens.ids, attention_mask=tokens.mask.long())
        embedding: Tensor = self.network.text_projection(output.last_hidden_state[:, 0])
        return embedding

    def encode_variants(self, tokens: Tokens) -> Float[Tensor, "texts dim"]:
        """As `encode_text`: what BERT makes of a beginning depends on the end."""
        return self.encode_text(tokens)
