"""What all certificates have in common: what they are of, how sub-samples were drawn, and what an element is called."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crossguard.certify.counts import Counts
from crossguard.certify.options import Ablation, CertifyOptions
from crossguard.certify.sampling import Asked
from crossguard.certify.saved_design import SavedDesign
from crossguard.certify.thresholds import Scheme
from crossguard.data.samples import MultiModalSamples
from crossguard.models.identity import model_identity
from crossguard.models.table import load_model
from crossguard.notebook import Shown


@dataclass(frozen=True, kw_only=True, repr=False)
class Issued(Shown, ABC):
    """Certificates of samples by the votes of a base model.

    Args:
        model: name of the base model.
        samples: what was certified; labels enter in metrics alone.
        alpha: probability of a wrong certificate, per sample, all its elements together, over all looks at growing
            counts; 0 of a published design.
        kinds: kind of edit by modality, "l2" of those under noise.
        seconds: wall time of drawing and counting.
        ablation: what became of elements that were not kept, in words.
        fill: the same, as it was asked for.
        units: what an element of each modality is called, by its name.
        precision: of the base model.
        identity: of the base model as it was certified, see `model_identity`; "" where the caller said which it is.
    """

    model: str
    samples: MultiModalSamples
    alpha: float
    kinds: Mapping[str, str]
    seconds: float = 0.0
    ablation: str = ""
    fill: Ablation | None = None
    units: Mapping[str, str] = field(default_factory=dict)
    precision: str = "float32"
    identity: str = ""

    @property
    @abstractmethod
    def first(self) -> Counts:
        """The votes, or those of the first sample."""

    def told(self) -> str:
        """Return model, data, draws and alpha."""
        counts, samples = self.first, self.samples
        drawn = ", ".join(f"{name} {counts.k[name]} of {counts.n[name]}" for name in counts.k)
        noise = ", ".join(f"{name} sigma {sigma:g}" for name, sigma in counts.noise.items())
        sure = "deterministic" if self.deterministic else f"alpha = {self.alpha:g}"
        kept = "; ".join(filter(None, [drawn and f"kept: {drawn}", noise]))
        return (
            f"{self.model!r} on {samples.name!r} ({samples.split}), {len(samples):,} samples; N = {counts.draws:,}, "
            f"{sure}; {kept}"
        )

    @property
    def modalities(self) -> tuple[str, ...]:
        """The names of the modalities, in the order of radius vectors: those under noise last."""
        return self.first.modalities

    @property
    def scheme(self) -> Scheme:
        """How sub-samples were drawn: "independent", "joint" for the baseline, "rate", "fixed" or "product"."""
        return self.first.scheme

    @property
    def deterministic(self) -> bool:
        """Whether it is of a published design, and so holds without any chance of error."""
        return self.scheme in ("fixed", "product")

    def save_design(self, folder: Path | str) -> None:
        """Keep how sub-samples are drawn with the model in its folder, so that `cg.predict(folder, ...)` answers by it.

        Of a published design that is the design itself; of random draws their number and settings, never the seed.

        Raises:
            ValueError: there is no such folder, it holds no model, or another one than was certified.
        """
        if not Path(folder).is_dir():
            raise ValueError(f"Expected the folder of a model, to keep the design with it, but got {str(folder)!r}.")
        if self.identity and model_identity(load_model(folder), strict=False) != self.identity:
            raise ValueError(
                f"Expected the folder of the model that was certified, {self.model!r}, but {str(folder)!r} holds "
                "another one: save that model there first."
            )
        SavedDesign.of(self.first, fill=self.fill, alpha=self.alpha, precision=self.precision).save(folder)

    @property
    def settings(self) -> dict[str, Any]:
        """How it was made, as plain JSON values; rows and summaries begin with them."""
        counts = self.first
        return {
            "model": self.model,
            "data": self.samples.name,
            "split": self.samples.split,
            "n": dict(counts.n),
            "k": dict(counts.k),
            "noise": dict(counts.noise),
            "kind": dict(self.kinds),
            "unit": dict(self.units),
            "scheme": self.scheme,
            "alpha": self.alpha,
            "seed": counts.told_seed,
            "draws": counts.draws,
            **({} if self.precision == "float32" else {"precision": self.precision}),
        }


def settings_of(options: CertifyOptions, samples: MultiModalSamples, asked: Asked) -> dict[str, Any]:
    """Return what `Issued` takes of a model, a design and the options that it follows from."""
    design, told = asked.design, options.identity is not None
    return {
        "model": asked.model.name,
        "identity": "" if told else model_identity(asked.model, strict=False),
        "samples": samples,
        "alpha": 0.0 if options.published else options.alpha,
        "kinds": design.kinds,
        "ablation": design.ablation,
        "fill": options.fill,
        "units": design.units,
        "precision": design.precision,
    }
