"""`StepEncoder`: a step's images and texts, encoded chunk by chunk, and again with a graph, as if nothing was split."""

from collections.abc import Iterator

import torch

from crossguard.attacks.ascent import Pixels
from crossguard.models import Captioner, Tokens, VisionLanguageModel
from crossguard.training.codes import Codes, View, chunks, encode_all, encode_pixels, encode_tokens
from crossguard.training.seeds import step_seed
from crossguard.world import World


class StepEncoder:
    """Encodes views of one step: each process its share of the rows, `chunk_size` of them at a time.

    Args:
        model: the model in training.
        images: images of all processes.
        texts: texts of all processes.
        deep: keep what `match` reads, see `encode_pixels`.
        seed: of the whole training.
        step: the step.
        chunk_size: the most rows at once; None is all.
        world: the processes of the training.

    Attributes:
        split: whether a step is cut into parts at all.
    """

    def __init__(
        self,
        model: VisionLanguageModel | Captioner,
        *,
        images: int,
        texts: int,
        deep: bool,
        seed: int,
        step: int,
        chunk_size: int | None,
        world: World,
    ) -> None:
        self._model: VisionLanguageModel = model  # type: ignore[assignment]
        self._images, self._texts, self._deep = images, texts, deep
        self._seed, self._step, self._chunk_size, self._world = seed, step, chunk_size, world
        self.split = chunk_size is not None or world.size > 1

    def images(self, pixels: Pixels, view: View) -> Codes:
        """Encode everyone's images, given this process's, without a graph."""

        def encode(rows: slice) -> Codes:
            self.seed_chunk("image", view, rows)
            return encode_pixels(self._model, pixels[rows], deep=self._deep)

        return encode_all(encode, total=self._images, chunk_size=self._chunk_size, world=self._world)

    def texts(self, tokens: Tokens, view: View) -> Codes:
        """Encode all texts, each process its share of them, without a graph."""

        def encode(rows: slice) -> Codes:
            self.seed_chunk("text", view, rows)
            return encode_tokens(self._model, tokens_at(tokens, self._text_rows(rows)), deep=self._deep)

        return encode_all(encode, total=self._texts, chunk_size=self._chunk_size, world=self._world)

    def images_again(self, pixels: Pixels, view: View) -> Iterator[tuple[Codes, slice]]:
        """Encode this process's images once more, with a graph: yield each chunk and its rows among everyone's."""
        own = self._world.share(self._images)
        for rows in chunks(len(pixels), self._chunk_size):
            self.seed_chunk("image", view, rows)
            yield encode_pixels(self._model, pixels[rows], deep=self._deep), shifted(rows, own)

    def texts_again(self, tokens: Tokens, view: View) -> Iterator[tuple[Codes, slice]]:
        """Encode this process's texts once more, with a graph: yield each chunk and its rows among all."""
        for rows in chunks(length(self._world.share(self._texts)), self._chunk_size):
            self.seed_chunk("text", view, rows)
            at = self._text_rows(rows)
            yield encode_tokens(self._model, tokens_at(tokens, at), deep=self._deep), at

    def image_embeddings(self, model: VisionLanguageModel, pixels: Pixels) -> Codes:
        """Return what any model makes of everyone's images, given this process's: embeddings alone, no graph."""
        return encode_all(
            lambda rows: encode_pixels(model, pixels[rows], deep=False),
            total=self._images,
            chunk_size=self._chunk_size,
            world=self._world,
        )

    def text_embeddings(self, model: VisionLanguageModel, tokens: Tokens) -> Codes:
        """Return what any model makes of all texts, each process its share: embeddings alone, no graph."""
        return encode_all(
            lambda rows: encode_tokens(model, tokens_at(tokens, self._text_rows(rows)), deep=False),
            total=self._texts,
            chunk_size=self._chunk_size,
            world=self._world,
        )

    def seed_chunk(self, side: str, view: View, rows: slice) -> None:
        """Let dropout draw the same when a chunk is encoded again; other numbers in every process."""
        module: torch.nn.Module = self._model  # type: ignore[assignment]
        if self.split and module.training:
            place = (("image", "text").index(side) * 2 + ("clean", "adversarial").index(view)) * 2**16 + rows.start
            part = self._world.rank * 2**18 + place
            torch.manual_seed(step_seed(self._seed, self._step, part=part, parts=self._world.size * 2**18))

    def _text_rows(self, rows: slice) -> slice:
        return shifted(rows, self._world.share(self._texts))


def shifted(rows: slice, share: slice) -> slice:
    """Return where rows of a process's share lie among everyone's."""
    return slice(share.start + rows.start, share.start + rows.stop)


def length(rows: slice) -> int:
    """Return how many rows a slice holds."""
    return int(rows.stop - rows.start)


def tokens_at(tokens: Tokens, rows: slice) -> Tokens:
    """Return some of the tokenised texts."""
    return Tokens(tokens.ids[rows], tokens.mask[rows])
