"""The demo: attack, harden, certify and report on built-in data, in one run folder."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from crossguard.data import load_pairs
from crossguard.evaluate import evaluate
from crossguard.models import load_model
from crossguard.progress import Reporter
from crossguard.recipes.certify import perform_certify
from crossguard.recipes.load import read_recipe, the_recipe
from crossguard.recipes.perform import choose_device
from crossguard.recipes.schema import CertifyRecipe
from crossguard.report import report_runs
from crossguard.runs import RunFolder
from crossguard.threat import LInf, ThreatModel, WordEdits
from crossguard.training import train

DEFENCES = ("tecoa", "mat", "mat+")
CURVE = tuple(level / 255 for level in (1, 2, 4))
"""L-inf budgets of the security curve, which the undefended model and the last defence are drawn along."""
ATTACKED = (0, 4, 8, 12)
"""Replaced time steps of each sensor that the sparse attack beside the certificate is allowed."""


@dataclass(frozen=True)
class DemoSettings:
    """How much the demo does; the defaults take a few minutes on two CPU cores.

    Args:
        seed: of everything random.
        eps: L-inf budget of pictures, in [0, 1] pixel units.
        words: substituted words per caption.
        steps: training steps of each defence.
        batch_size: pictures per training step.
        learning_rate: the largest of each training.
        pictures: test pictures that are attacked, evenly spread over the test split.
        draws: sub-samples per certified window.
        sensor_steps: training steps of the sensor classifier.
    """

    seed: int = 0
    eps: float = 2 / 255
    words: int = 1
    steps: int = 60
    batch_size: int = 64
    learning_rate: float = 3e-4
    pictures: int = 112
    draws: int = 1000
    sensor_steps: int = 1000


def perform_demo(
    settings: DemoSettings, folder: Path, *, progress: Reporter, command: Sequence[str] | None = None
) -> Path:
    """Run the whole story and write its report; an interrupted demo goes on where it stopped.

    Returns:
        The report's path.

    Raises:
        ValueError: the folder holds a run with other settings.
        ImportError: the packages that hold the built-in data are not installed.
    """
    device = choose_device(None)
    with RunFolder.open(
        folder, settings={"verb": "demo", **asdict(settings)}, seed=settings.seed, device=device, command=command
    ) as run:
        threat = ThreatModel(image=LInf(eps=settings.eps), text=WordEdits(words=settings.words))
        test = load_pairs("emoji", split="test").spread(settings.pictures)
        for label in ("emoji-clip", *DEFENCES):
            model = (
                load_model("emoji-clip") if label == "emoji-clip" else _hardened(label, settings, run, threat, progress)
            )
            asked: dict[str, Any] = {"seed": settings.seed, "run": run, "progress": progress, "device": device}
            evaluate(model, test, attack="sga", threat=threat, modalities=True, label=label, **asked)
            if label in ("emoji-clip", DEFENCES[-1]):
                curve = [ThreatModel(image=LInf(eps=eps)) for eps in CURVE]
                evaluate(model, test, attack="apgd", threat=curve, label=label, examples=0, **asked)
        vectors = ", ".join(f"{{accelerometer: {r}, gyroscope: {r}}}" for r in ATTACKED)
        certify = [
            *(f"draws={settings.draws}", f"seed={settings.seed}", f"train.steps={settings.sensor_steps}"),
            "data.options.stride=768",  # every sixth window: attacks cost more than certificates
            "beside=[fixed]",
            f"attack={{vectors: [{vectors}], options: {{placement: gradient, rounds: 1, steps: 10}}}}",
        ]
        perform_certify(the_recipe(read_recipe("watch-certify", certify), CertifyRecipe), run, progress=progress)
        page = report_runs([run.path], run.path / "report.html")
        run.finish()
    return page


def _hardened(defence: str, settings: DemoSettings, run: RunFolder, threat: ThreatModel, progress: Reporter) -> Any:
    target = run.path / "defended" / defence
    if not target.is_dir():
        trained = train(
            load_model("emoji-clip"),
            load_pairs("emoji", split="train"),
            defence=defence,
            threat=threat,
            steps=settings.steps,
            seed=settings.seed,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            progress=progress,
            device=choose_device(None),
        )
        trained.save_pretrained(target)
    return load_model(target)
