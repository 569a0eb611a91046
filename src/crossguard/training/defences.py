"""The table of defences: each is an outer loss, what is attacked for it, and what is trained.

A defence is written as the terms of its loss, for a model of two towers; `terms.terms_for` says what they become for
other kinds of models. What the inner attack must find follows from the terms: every view named "adversarial" in them is
made, by raising those same terms (but for those that are not `raised`, which hold on to what is found for the others).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from crossguard.attacks.sources import SourceLike
from crossguard.table import Table
from crossguard.training.codes import Tower
from crossguard.training.terms import Anchor, Attention, Consistency, Contrast, Term, attacked


@dataclass(frozen=True)
class DefenceRow:
    """One defence.

    Args:
        name: its name in recipes.
        summary: one line for listings.
        terms: the outer loss, a weighted sum.
        trains: the towers that are trained. With both, all other parameters are too (the temperature, fusion layers).
        one_to_many: whether every true link in a batch is a target (see `Composition`).
        source: candidate source of the inner text attack, unless the caller names one.
    """

    name: str
    summary: str
    terms: tuple[Term, ...]
    trains: tuple[Tower, ...]
    one_to_many: bool = False
    source: SourceLike = "thesaurus"

    @property
    def attacks(self) -> frozenset[Tower]:
        """The modalities that the inner attack changes, in a model of two towers."""
        return attacked(self.terms)


DEFENCES = Table[DefenceRow](
    "defence",
    (
        DefenceRow(
            "clean",
            "plain contrastive fine-tuning, no attack",
            terms=(Contrast("clean", "clean"),),
            trains=("image", "text"),
        ),
        DefenceRow(
            "tecoa",
            "adversarial images against clean captions (Mao et al., 2023)",
            terms=(Contrast("adversarial", "clean"),),
            trains=("image",),
        ),
        DefenceRow(
            "fare",
            "adversarial image embeddings back to the original clean ones, no captions (Schlarmann et al., 2024)",
            terms=(Anchor("image"),),
            trains=("image",),
        ),
        DefenceRow(
            "pmg-aft",
            "TeCoA, its answers held to the clean ones and to the original model's (Wang et al., 2024)",
            terms=(Contrast("adversarial", "clean"), Consistency("clean"), Consistency("original")),
            trains=("image",),
        ),
        DefenceRow(
            "tga-zsr",
            "TeCoA, looking at what the original model looks at, clean and attacked (Yu et al., 2024)",
            terms=(Contrast("adversarial", "clean"), Attention("adversarial", 0.08), Attention("clean", 0.05)),
            trains=("image",),
        ),
        DefenceRow(
            "mmcoa",
            "adversarial images with clean captions, and clean images with adversarial captions (Zhou et al., 2024)",
            terms=(Contrast("adversarial", "clean", 0.5), Contrast("clean", "adversarial", 0.5)),
            trains=("image", "text"),
        ),
        DefenceRow(
            "leaf",
            "adversarial text embeddings back to the original clean ones, letters changed (Rocamora et al., 2025)",
            terms=(Anchor("text"),),
            trains=("text",),
            source="characters",
        ),
        DefenceRow(
            "mat",
            "adversarial images with adversarial captions, one-to-one (MAT)",
            terms=(Contrast("adversarial", "adversarial"),),
            trains=("image", "text"),
        ),
        DefenceRow(
            "mat+",
            "adversarial images with adversarial captions, every true pair of a batch a target (MAT+)",
            terms=(Contrast("adversarial", "adversarial"),),
            trains=("image", "text"),
            one_to_many=True,
        ),
    ),
)


def register_defence(
    name: str,
    terms: Sequence[Term],
    *,
    summary: str,
    trains: Sequence[Tower] = ("image", "text"),
    one_to_many: bool = False,
    source: SourceLike = "thesaurus",
) -> None:
    """Add a defence of your own to the table, so that recipes, the command line and `train` can name it.

    Args:
        name: what it is called.
        terms: its loss, of `Contrast`, `Anchor`, `Consistency`, `Attention`, `Match`, `Language` or a `Term` of your
            own.
        summary: one line for `crossguard list defences`.
        trains: see `DefenceRow`.
        one_to_many: see `DefenceRow`.
        source: see `DefenceRow`.

    Raises:
        ValueError: no terms, something else than a `Term` among them, adversarial images or texts that no term of the
            inner attack makes, or a name of the package's own.
    """
    strange = [term for term in terms if not isinstance(term, Term)]
    if not terms or strange:
        raise ValueError(f"Expected at least one `Term` for the defence {name!r}, but got {strange or terms!r}.")
    towers: tuple[Tower, ...] = ("image", "text")
    read = {tower for tower in towers for term in terms if "adversarial" in term.views(tower)}
    if unmade := read - attacked(terms):
        raise ValueError(
            f"Expected a term of {name!r} that the inner attack raises through adversarial {min(unmade)}s (such as "
            "Contrast), since others read what it finds."
        )
    DEFENCES.register(DefenceRow(name, summary, tuple(terms), tuple(trains), one_to_many, source))
