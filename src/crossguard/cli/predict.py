"""`crossguard predict`: the certified model answers, or abstains."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crossguard.cli.console import by_one_process, print_json, progress
from crossguard.cli.options import AsJson, Device, Imports, MaxSamples, Quiet
from crossguard.imports import import_parts

if TYPE_CHECKING:
    from crossguard.certify.saved_design import SavedDesign
    from crossguard.data import MultiModalSamples


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""

    @app.command()
    def predict(
        folder: Annotated[
            Path,
            typer.Argument(metavar="FOLDER", help="A model and its design (`Certificate.save_design`)."),
        ],
        data: Annotated[str, typer.Argument(metavar="DATA", help="A data set of samples (crossguard list datasets).")],
        options: Annotated[
            list[str] | None,
            typer.Argument(metavar="[KEY=VALUE]...", help="The data set's split and options; read as YAML."),
        ] = None,
        draws: Annotated[int | None, typer.Option(help="Random draws: N; default: as certified.", min=1)] = None,
        alpha: Annotated[float | None, typer.Option(help="Random draws: error per query; default: 0.001.")] = None,
        queries: Annotated[int, typer.Option(help="Queries of one asker that the total error is told for.", min=1)] = 1,
        out: Annotated[Path | None, typer.Option(help="Labels as an npz: `labels`, -1 where it abstains.")] = None,
        max_samples: MaxSamples = None,
        device: Device = None,
        imports: Imports = None,
        quiet: Quiet = False,
        as_json: AsJson = False,
    ) -> None:
        """Answer as the model that was certified, or abstain.

        For example: crossguard predict runs/deployed npz file=mine.npz
        """
        with by_one_process():
            import_parts(imports or ())
            asked = {"draws": draws, "alpha": alpha, "progress": progress(quiet=quiet)}
            found = _answers(folder, _samples(data, options or [], max_samples), queries, out, device, asked)
            if as_json:
                print_json(found)
                return
            for name, count in found["answers"].items():
                print(f"{name}: {count}")
            print(f"abstained: {found['abstained']} of {found['samples']}")
            if found["accuracy"] is not None:
                print(f"right: {100 * found['accuracy']:.1f} %, abstentions counted as wrong")
            print(f"error: {found['guarantee']}")


def total_error(saved: "SavedDesign | None", alpha: float, queries: int) -> tuple[float, str]:
    """Return the total error over some queries about a certified input, and the sentence that holds.

    Args:
        saved: the design in the folder.
        alpha: of an answer.
        queries: how many times one asker asks, choosing by the answers.
    """
    if saved is not None and saved.published:
        return 0.0, "none: what was certified is what answers, however often it is asked"
    certified = saved.alpha if saved is not None else 0.0
    total = min(1.0, certified + queries * alpha)
    return total, (
        f"at most {total:g} that an input certified at alpha = {certified:g} gets another label after an attack within "
        f"its radius, over {queries} quer{'y' if queries == 1 else 'ies'} of an asker who chooses by the answers "
        f"({alpha:g} each)"
    )


def _samples(name: str, options: list[str], max_samples: int | None) -> "MultiModalSamples":
    from crossguard.recipes.load import apply_overrides
    from crossguard.recipes.perform import read_samples
    from crossguard.recipes.schema import Data

    given = apply_overrides({}, options, source="predict")
    return read_samples(Data(name=name, split=given.pop("split", None), options=given), max_samples)


def _answers(
    folder: Path,
    samples: "MultiModalSamples",
    queries: int,
    out: Path | None,
    device: str | None,
    asked: Mapping[str, Any],
) -> dict[str, Any]:
    import numpy as np

    from crossguard.certify import predict
    from crossguard.certify.answers import ALPHA
    from crossguard.certify.saved_design import SavedDesign
    from crossguard.recipes.perform import choose_device
    from crossguard.runs import npz_bytes, write_atomically

    if not folder.is_dir():
        raise ValueError(f"Expected the folder of a model and its design, but got {str(folder)!r}.")
    saved = SavedDesign.load(folder)
    labels = predict(folder, samples, device=choose_device(device), **asked)
    if out is not None:
        write_atomically(out, npz_bytes(labels=labels))
    judged = samples.labels >= 0
    total, sentence = total_error(saved, ALPHA if asked["alpha"] is None else asked["alpha"], queries)
    return {
        "samples": int(labels.size),
        "answers": {str(name): int((labels == index).sum()) for index, name in enumerate(samples.classes)},
        "abstained": int((labels < 0).sum()),
        "accuracy": float((labels == samples.labels)[judged].mean()) if judged.any() else None,
        "design": saved.design,
        "draws": asked["draws"] or saved.draws,
        "queries": queries,
        "total_error": total,
        "guarantee": sentence,
        "labels": None if np.size(labels) > 10_000 else labels.tolist(),
    }
