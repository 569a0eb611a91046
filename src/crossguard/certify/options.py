"""`CertifyOptions`: how something is certified, every option documented once."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from crossguard.certify.bounds import Bound
from crossguard.certify.subsample import Fill
from crossguard.certify.thresholds import Scheme
from crossguard.checks import check_option_names, expanded
from crossguard.progress import Reporter
from crossguard.threat import EditKind

Ablation = Fill | Literal["drop"]
Drawing = Literal["random", "fixed", "product"]


PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class CertifyOptions:
    """Options of `certify` and its like, which take them as keywords.

    Args:
        keep: elements kept of each modality, by its name. Elements are the second axis of a modality, or the pixels of
            [samples, channels, height, width]. 0 leaves a modality out, and no edit of it matters. Rates in (0, 1)
            keep every element independently of the others (scheme "rate"): radii, of insertions and deletions too,
            then do not depend on how many elements there are.
        noise: sigma of each other modality, by its name, in the units of its values: it gets Gaussian noise N(0,
            sigma^2) instead of being sub-sampled, and its radius is the L2 distance that an attacker may move it.
            Alone it is randomized smoothing (Cohen et al., ICML 2019), beside `keep` both hold at once. Takes p_B <= 1
            - p_A.
        lengths: elements that all these samples have, by modality, where their arrays are padded; what lies behind is
            never kept. For samples of different lengths see `certify_lengths`.
        design: "random" draws sub-samples anew for every sample. "fixed" and "product" publish N of them once for all:
            a balanced design, or all tuples of disjoint blocks; what answers then is exactly what is certified, and
            neither alpha nor a secret is needed. Substitutions only.
        draws: N, sub-samples per sample. None takes 1,000 at random (of segmentations 100); of a "fixed" design the
            number up to that which wastes least; a "product" has as many as there are tuples. Of the early forms the
            most draws to spend on a sample.
        alpha: probability of a wrong certificate, per sample: of segmentations that any pixel of an image is wrongly
            certified. Not used by a published design.
        seed: of the masks. None draws a secret one and keeps it with the counts: whoever knows the seed could make an
            input whose sub-samples show what he likes. A number is for experiments, and the result says so. A sample's
            masks depend on the seed, its own values, the modality and the draw alone. Of a published design the seed
            is public, and None is 0.
        kind: the attacker's kind of edit, one for all modalities or by name; others than "substitution" only for
            modalities of which the model is not told where elements stand, see `PackingClassifier.position_free`.
        bound: "majority" takes p_B <= 1 - p_A; "gap" bounds every label, and is better where votes spread; "both" takes
            the better one, each at half of alpha.
        selection_draws: separate draws that choose the label; 0 chooses it by the votes and pays for that. Used with
            "majority" only.
        scheme: "independent" keeps exactly k_i elements of every modality i. "joint" keeps the sum of all k_i of all
            elements together, the baseline that this certificate is compared with: randomized ablation extended to
            several modalities. The sum makes the comparison fair: the model sees as many elements, at the same cost.
            Draws, counts and files of the two are kept apart, so both can run in one folder.
        fill: what ablated elements become: a constant, "mean" of those kept, or "drop", with which modalities that the
            model takes packed (`PackingClassifier`) hold the kept elements alone, and others are filled with 0. None
            drops where the model can.
        batch_size: sub-samples per forward pass; None chooses by their size, 4,096 at most, of segmentations 4.
        device: where masks are drawn and the model runs.
        precision: of the base model, "float32" or "bfloat16", which GPUs compute several times as fast. It is a part of
            the base model: what is certified is the model in this precision, its counts are never added to those of
            another, and `predict` answers in it.
        folder: where counts are kept; what is there is not drawn again, and more draws can be added later. Since that
            is a second look, the first has nine tenths of alpha and the others share the rest; without a folder there
            is one look. The counts are those of the model as it is, by all
            state that can be reached and its answers to a few probes (`models.identity`). Several processes
            share the draws, and must see the same disk.
        identity: the caller's word for which model this is, where its own state cannot be read; used with `folder`.
        units: what an element of a modality is called ("frame", "word"), by its name, where radii are told; None: a
            pixel of images, otherwise an element.
        progress: shows sub-samples counted and the time left.
    """

    keep: Mapping[str, int | float]
    noise: Mapping[str, float | int] | None = None
    lengths: Mapping[str, int] | None = None
    design: Drawing = "random"
    draws: int | None = None
    alpha: float = 0.001
    seed: int | None = None
    kind: EditKind | Mapping[str, EditKind] = "substitution"
    bound: Bound = "both"
    selection_draws: int = 0
    scheme: Scheme = "independent"
    fill: Ablation | None = None
    batch_size: int | None = None
    device: torch.device | str = "cpu"
    precision: str = "float32"
    folder: Path | str | None = None
    identity: str | None = None
    units: Mapping[str, str] | None = None
    progress: Reporter | None = None

    @classmethod
    def read(cls, given: Mapping[str, Any], what: str, *, without: Collection[str] = ()) -> "CertifyOptions":
        """Return options given by name to a function that takes all but some.

        Raises:
            ValueError: one that it does not take (the nearest is named), or no `keep`.
        """
        check_option_names(cls, given, what=f"`{what}`", own=without)
        return cls(**given)

    @property
    def place(self) -> Path | None:
        """The folder of the counts, with `~` as the home folder."""
        return None if self.folder is None else expanded(self.folder)

    @property
    def published(self) -> bool:
        """Whether the design is drawn once for all inputs."""
        return self.design != "random"
