"""`Result`: everything a measurement says, for every task in the same shape."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Any

from crossguard.evaluate.examples import Example
from crossguard.evaluate.statistics import Estimate, Estimates, told, values_of
from crossguard.extras import install
from crossguard.notebook import Shown
from crossguard.runs import as_read_back
from crossguard.threat import ThreatModel

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Figure(Estimate):
    """One figure of a result.

    Args:
        what: "clean" or "robust"; "shared" (robust under one set for both directions of retrieval); of an attack's
            success "conditional" (right before and wrong after, of those right before; Lu et al., SGA, 2023) and "drop"
            (before minus after; Zhang et al., Co-Attack, 2022); or a measure of the task's own.
        metric: "tr@1", "accuracy", "IoU", ...
        part: what was attacked: a modality's name, or "joint"; "clean" where nothing was.
        attack: name of the attack; None where nothing was attacked.
        threat: its budgets, as `ThreatModel.to_dict` gives them.
    """

    what: str = ""
    metric: str = ""
    part: str = ""
    attack: str | None = None
    threat: Mapping[str, Any] | None = None


@dataclass(frozen=True, repr=False)
class Outcome(Shown):
    """What one attack within one threat left of a model, or what it does without attack.

    Args:
        rows: one per query, sample, image or expression, in order; each task says which keys they have.
        settings: all that was measured, as JSON values: `task`, `label`, `part`, `model`, `weights`, `data`, `split`,
            `attack`, `attack_options`, `threat`, `seed`, ...
        estimates: by what they are (see `Figure`) and metric; None where one is not defined.
        about: the task's words for reports: `heading`, `explained`, `headline` (metrics that are shown first),
            `samples`, and whatever else it tells.
        examples: a few samples to look at.
        warnings: signs that the figures say less than they seem to, see `evaluate.sanity`.
        notes: what a reader of the figures should know.
    """

    rows: Sequence[Row]
    settings: Mapping[str, Any]
    estimates: Estimates
    about: Mapping[str, Any]
    examples: tuple[Example, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def told(self) -> str:
        """Return its section and size."""
        return f"{self.section!r}, {len(self.rows):,} rows"

    @property
    def part(self) -> str:
        """What was attacked: a modality's name, "joint", or "clean"."""
        return str(self.settings["part"])

    @property
    def attacked(self) -> bool:
        """Whether there was an attack."""
        return self.settings["attack"] is not None

    @property
    def budgets(self) -> ThreatModel:
        """What the attack was allowed."""
        return ThreatModel.from_dict(self.settings["threat"] or {})

    @property
    def threat_key(self) -> str:
        """Its budgets as one text, equal where they are equal."""
        return json.dumps(self.settings["threat"], sort_keys=True)

    @property
    def section(self) -> str:
        """Its name in a run: of its rows, and of its entry in the summary."""
        return section_of(self.settings)

    @property
    def figures(self) -> tuple[Figure, ...]:
        """All figures that are defined; those without attack have the part "clean"."""
        named: dict[str, Any] = {key: self.settings[key] for key in ("part", "attack", "threat")}
        plain: dict[str, Any] = {"part": "clean", "attack": None, "threat": None}
        return tuple(
            Figure(**vars(estimate), what=what, metric=metric, **(plain if what == "clean" else named))
            for what, metrics in self.estimates.items()
            for metric, estimate in metrics.items()
            if estimate is not None
        )

    def summary(self) -> dict[str, Any]:
        """Return settings and figures as JSON values, without rows and pictures."""
        return {
            **self.settings,
            "about": dict(self.about),
            "estimates": told(self.estimates),
            "examples": [example.to_dict() for example in self.examples],
            "warnings": list(self.warnings),
            "notes": list(self.notes),
        }


@dataclass(frozen=True, repr=False)
class Result(Shown):
    """One model on one data set: clean, and under every attack and threat that was asked for.

    Figures are in percent (scores of captions times 100).

    Args:
        outcomes: one without attack, or one for each attack and part of the threat; at least one.

    Example:
        >>> from crossguard.evaluate.statistics import Ratio, attack_figures
        >>> import numpy as np
        >>> hits, people = np.array([1, 1, 0, 1] * 5), np.arange(20)
        >>> settings = {"task": "classification", "label": "net", "part": "clean", "attack": None, "threat": None}
        >>> about = {"heading": "Classification", "headline": ["accuracy"], "samples": "20 samples"}
        >>> figures = attack_figures({"accuracy": Ratio.of_hits(hits, people)})
        >>> Result((Outcome([], settings, figures, about),)).clean
        {'accuracy': 75.0}
    """

    outcomes: tuple[Outcome, ...]

    def __post_init__(self) -> None:
        if not self.outcomes:
            raise ValueError("Expected at least one outcome, but got none.")

    def __iter__(self) -> Iterator[Outcome]:
        return iter(self.outcomes)

    def __len__(self) -> int:
        return len(self.outcomes)

    @property
    def task(self) -> str:
        """The task, such as "retrieval"."""
        return str(self.settings["task"])

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What all outcomes have in common: model, data, seed, ..."""
        first, *others = (outcome.settings for outcome in self.outcomes)
        return {k: v for k, v in first.items() if all(k in other and other[k] == v for other in others)}

    @property
    def rows(self) -> list[Row]:
        """The rows of all outcomes, one after the other; `section` tells them apart."""
        return [row for outcome in self.outcomes for row in outcome.rows]

    @cached_property
    def figures(self) -> tuple[Figure, ...]:
        """Every figure once: those without attack first."""
        clean = [figure for figure in self.outcomes[0].figures if figure.part == "clean"]
        attacked = [f for outcome in self.outcomes for f in outcome.figures if f.part != "clean"]
        return (*clean, *attacked)

    @property
    def attacked(self) -> bool:
        """Whether there was an attack."""
        return any(outcome.attacked for outcome in self.outcomes)

    @property
    def parts(self) -> tuple[str, ...]:
        """What was attacked, such as ("image", "text", "joint"); ("clean",) without attack."""
        return tuple(dict.fromkeys(outcome.part for outcome in self.outcomes))

    def of(self, part: str | None = None, *, attack: str | None = None, threat: ThreatModel | None = None) -> "Result":
        """Return the outcomes of a part, of an attack, within a threat, or of several of these.

        Args:
            part: a name of `parts`; None: all.
            attack: an attack by its name, or by the label that it has where several were asked for; None: all.
            threat: the budgets; None: all.

        Raises:
            ValueError: there are none.
        """
        key = None if threat is None else json.dumps(as_read_back(threat.to_dict()), sort_keys=True)
        chosen = tuple(
            one
            for one in self.outcomes
            if part in (None, one.part) and _is_under(one, attack) and key in (None, one.threat_key)
        )
        if not chosen:
            attacks = sorted({str(outcome.settings["attack"]) for outcome in self.outcomes})
            raise ValueError(
                f"Expected one of the parts {', '.join(self.parts)} and of the attacks {', '.join(attacks)}, but got "
                f"{part!r} and {attack!r}" + ("." if threat is None else f" within {threat}.")
            )
        return Result(chosen)

    @property
    def widest(self) -> tuple[Outcome, ...]:
        """The outcomes under the most modalities: "joint" where there is one."""
        most = max(len(outcome.settings["threat"] or ()) for outcome in self.outcomes)
        return tuple(outcome for outcome in self.outcomes if len(outcome.settings["threat"] or ()) == most)

    @property
    def clean(self) -> dict[str, float]:
        """By metric, the figures without attack."""
        return _defined(self.outcomes[0], "clean")

    @property
    def robust(self) -> dict[str, float] | None:
        """By metric, the figures under the widest part of the threat; of several attacks and budgets, under the one
        that leaves least. None when nothing was attacked."""
        return self._least("robust")

    @property
    def shared(self) -> dict[str, float] | None:
        """As `robust`, under one set for both directions of retrieval; other tasks: the same as `robust`."""
        return self._least("shared") or self.robust

    @property
    def success(self) -> dict[str, dict[str, float | None]] | None:
        """By measure ("conditional", "drop", ...) and metric, the success of the (first) widest attack; None when
        nothing was attacked, None for a metric where it is not defined."""
        first = self.widest[0]
        if not first.attacked:
            return None
        return {
            w: values_of(metrics) for w, metrics in first.estimates.items() if w not in ("clean", "robust", "shared")
        }

    @property
    def intervals(self) -> dict[str, dict[str, tuple[float, float] | None]]:
        """By what a figure is ("clean", "robust", "conditional", "drop", ...) and metric, its 95 % interval over
        groups, under the (first) widest attack; None where there is none (`figures` says why)."""
        return {
            what: {metric: None if e is None else e.interval for metric, e in metrics.items()}
            for what, metrics in self.widest[0].estimates.items()
        }

    def figure(self, what: str, metric: str) -> Figure | None:
        """Return one figure under the (first) widest attack, with its interval; None where it is not defined.

        Args:
            what: "clean", "robust", "conditional", "drop", ..., see `Figure`.
            metric: "ir@1", "accuracy", ...
        """
        return next((f for f in self.widest[0].figures if (f.what, f.metric) == (what, metric)), None)

    @property
    def examples(self) -> tuple[Example, ...]:
        """A few samples before and after the (first) widest attack."""
        return self.widest[0].examples

    @property
    def warnings(self) -> tuple[str, ...]:
        """Signs that the figures say less than they seem to."""
        return tuple(dict.fromkeys(warning for outcome in self.outcomes for warning in outcome.warnings))

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the figures should know."""
        return tuple(dict.fromkeys(note for outcome in self.outcomes for note in outcome.notes))

    def summary(self) -> dict[str, dict[str, Any]]:
        """Return settings and figures of every outcome as JSON values, by section."""
        return {outcome.section: outcome.summary() for outcome in self.outcomes}

    def told(self) -> str:
        """Return model, data, headline figures and attacks."""
        first, robust = self.outcomes[0], self.robust or {}
        figures = [
            f"{metric} {self.clean[metric]:.1f} clean" + (f", {robust[metric]:.1f} robust" if metric in robust else "")
            for metric in first.about["headline"]
            if metric in self.clean
        ]
        attacks = dict.fromkeys(str(o.settings.get("attack_label") or o.settings["attack"]) for o in self if o.attacked)
        under = f" under {', '.join(attacks)}" if attacks else ""
        model = first.settings.get("subject", first.settings["model"])
        where = f"{model} on {first.settings['data']} ({first.settings['split']})"
        count = f"{len(self)} outcome{'s' * (len(self) > 1)}{under}"
        return "; ".join([f"{self.task}: {where}", *figures, count])

    def to_frame(self) -> Any:
        """Return every figure as a pandas DataFrame, one row each.

        The columns say what was measured (`task`, `model`, `data`, `split`, `attack`, `part`, a column for the budget
        of each modality, `seed`), which figure it is (`what`, `metric`, see `Figure`), and the figure itself (`value`,
        `low`, `high`, `n`, `groups`), in percent.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            from pandas import DataFrame
        except ImportError as error:
            raise ImportError(
                f"Expected pandas for a DataFrame, but it is not installed: {install('notebook')}"
            ) from error
        modalities = dict.fromkeys(name for outcome in self for name in outcome.budgets)
        records = []
        for place, outcome in enumerate(self):
            for figure in outcome.figures:
                clean = figure.part == "clean"
                if clean and place:
                    continue
                budgets = {} if clean else outcome.budgets
                settings = outcome.settings
                records.append(
                    {
                        "task": settings["task"],
                        "model": settings.get("subject", settings["model"]),
                        "data": settings["data"],
                        "split": settings["split"],
                        "attack": None if clean else settings.get("attack_label") or settings["attack"],
                        "part": figure.part,
                        **{name: str(budgets[name]) if name in budgets else None for name in modalities},
                        "seed": settings["seed"],
                        "what": figure.what,
                        "metric": figure.metric,
                        "value": figure.value,
                        "low": figure.low,
                        "high": figure.high,
                        "n": figure.n,
                        "groups": figure.groups,
                    }
                )
        return DataFrame.from_records(records)

    def plots(self) -> list[Any]:
        """Return plots, which notebooks show and `save` writes as SVG: security curves where several budgets were
        measured, clean against robust of several attacks, else all headline figures with intervals."""
        drawn: list[Any] = import_module("crossguard.report.notebook").result_plots(self)  # a higher room
        return drawn

    def _least(self, what: str) -> dict[str, float] | None:
        found = [_defined(outcome, what) for outcome in self.widest if outcome.attacked and what in outcome.estimates]
        if not found:
            return None
        return {metric: min(values[metric] for values in found if metric in values) for metric in found[0]}

    def __str__(self) -> str:
        first = self.outcomes[0]
        settings, headline = first.settings, first.about["headline"]
        said = [f"{settings.get('subject', settings['model'])} on {settings['data']} ({settings['split']})"]
        said += [f"{metric} {self.clean[metric]:.1f} clean" for metric in headline if metric in self.clean]
        several = len({outcome.threat_key for outcome in self.widest}) > 1
        for outcome in self.widest:
            if outcome.attacked:
                left = _defined(outcome, "robust")
                under = f"under {outcome.settings.get('attack_label') or outcome.settings['attack']}"
                if several:
                    under += f" ({', '.join(str(budget) for budget in outcome.budgets.values())})"
                said += [f"{metric} {left[metric]:.1f} {under}" for metric in headline if metric in left]
        return ", ".join(said)


def section_of(settings: Mapping[str, Any]) -> str:
    """Return the name that a measurement has in a run, from its settings."""
    return "/".join(str(settings[key]) for key in ("task", "label", "part"))


def _is_under(outcome: Outcome, attack: str | None) -> bool:
    """Whether an outcome is under an attack, given by its name or by its label among several; None: under any."""
    return attack in (None, outcome.settings["attack"], outcome.settings.get("attack_label"))


def _defined(outcome: Outcome, what: str) -> dict[str, float]:
    found = values_of(outcome.estimates.get(what, {}))
    return {metric: value for metric, value in found.items() if value is not None}
