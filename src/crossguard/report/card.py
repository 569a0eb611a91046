"""Model cards in the hub's format: clean, robust and certified figures as `model-index` entries, and in words."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from crossguard import __version__
from crossguard.checks import visible
from crossguard.evaluate.statistics import Estimate
from crossguard.report.answer import answers
from crossguard.report.certificates import certificate_views
from crossguard.report.collect import open_runs, result_views
from crossguard.report.damage import told_of_damage
from crossguard.report.sections import sections
from crossguard.report.views import ONE_SET, CertificateView, ResultView
from crossguard.report.words import column_name, metric_title, spread
from crossguard.runs import RunFolder

TASK_TYPES = {
    "retrieval": "image-text-retrieval",
    "zero-shot": "zero-shot-image-classification",
    "captioning": "image-to-text",
    "answering": "visual-question-answering",
    "grounding": "visual-grounding",
    "segmentation": "image-segmentation",
}
"""What the hub calls tasks; others keep their own names."""


@told_of_damage
def model_card(
    paths: Sequence[Path | str],
    *,
    model: str | None = None,
    name: str | None = None,
    licence: str | None = None,
    base_model: str | None = None,
) -> str:
    """Return the card of one model, as runs measured it.

    Args:
        paths: run folders.
        model: which of their models, by its name in tables; None: the only one.
        name: what the card calls it; default: the same.
        licence: of the weights, as the hub spells it ("apache-2.0"); None says that it is not stated.
        base_model: the hub id that it was made from.

    Returns:
        Markdown that begins with the hub's metadata.

    Raises:
        ValueError: a folder holds no run, nothing was measured, or several models and none chosen.
    """
    runs = open_runs(paths)
    results, certificates = result_views(runs), certificate_views(runs)
    known = list(dict.fromkeys([*(view.model for view in results), *(view.label for view in certificates)]))
    if not known:
        raise ValueError(f"Expected measured runs, but {', '.join(visible(run.path) for run in runs)} have no results.")
    if model is None and len(known) > 1:
        raise ValueError(f"Expected one model for a card, but the runs measured {', '.join(known)}: choose one.")
    chosen = known[0] if model is None else model
    if chosen not in known:
        raise ValueError(f"Expected one of the measured models ({', '.join(known)}), but got {chosen!r}.")
    results = [view for view in results if view.model == chosen]
    certificates = [view for view in certificates if view.label == chosen]
    title = name or chosen
    entries = [entry for view in results for entry in _result_entries(view)]
    entries += [entry for view in certificates for entry in _certificate_entries(view)]
    data = ModelCardData(
        model_name=title,
        license=licence,
        base_model=base_model,
        library_name="crossguard",
        tags=["adversarial-robustness", *(["certified-robustness"] if certificates else []), "crossguard"],
        eval_results=_once(entries),
    )
    return f"---\n{data.to_yaml()}\n---\n\n{_body(title, results, certificates, runs, licence)}"


def _once(entries: Sequence[EvalResult]) -> list[EvalResult]:
    """Return entries, those of a figure that stands in several rows (clean ones do) once."""
    return list({repr(entry): entry for entry in entries}.values())


def _entry(task: str, data: str, split: str, metric: str, name: str, value: float, about: dict[str, Any]) -> EvalResult:
    kind = TASK_TYPES.get(task, task)
    return EvalResult(
        task_type=kind,
        dataset_type=data,
        dataset_name=f"{data} ({split})",
        dataset_split=split,
        metric_type=metric,
        metric_name=name,
        metric_value=round(value, 2),
        metric_args=about or None,
    )


def _figure(figure: Estimate) -> dict[str, Any]:
    ends = {} if figure.interval is None else {"interval_95": [round(end, 2) for end in figure.interval]}
    return {**ends, "samples": figure.n, "groups": figure.groups}


def _result_entries(view: ResultView) -> list[EvalResult]:
    entries = []
    for column, metrics in view.columns.items():
        if column.endswith(ONE_SET):
            continue
        names = tuple(view.budgets) if column == "joint" else (column,)
        budgets = {name: str(view.budgets[name]) for name in names if name in view.budgets}
        attack = view.facts.get("attack", view.attack)
        about = {} if column == "clean" else {"attack": attack, "threat_model": budgets, "seed": view.seed}
        for metric in view.headline:
            figure = metrics.get(metric)
            if figure is None:
                continue
            title = metric_title(metric)
            under = ", ".join(f"{name} {budget}" for name, budget in budgets.items()) or column_name(column)
            name = f"{title}, clean" if column == "clean" else f"{title}, under {attack} ({under})"
            entries.append(
                _entry(view.task, view.data, view.split, metric, name, figure.value, {**about, **_figure(figure)})
            )
    return entries


def _certificate_entries(view: CertificateView) -> list[EvalResult]:
    task = "segmentation" if view.of_pixels else "retrieval" if view.metric != "accuracy" else "classification"
    settings = {"sub_samples": view.draws, "alpha": view.alpha, "alpha_covers": view.scope, "drawn": list(view.drawn)}
    if view.curve is None:
        found = [
            (view.metric, radii, view.accuracy[at], view.figure("grid", at=place))
            for place, (radii, at) in enumerate(_cells(view))
        ]
    else:
        found = [
            (metric, vector, value, view.figure("certified", metric, place))
            for metric, values in view.curve.certified.items()
            for place, (vector, value) in enumerate(zip(view.curve.radii, values, strict=True))
            if value is not None
        ]
    entries = []
    for metric, vector, value, figure in found:
        radii = dict(zip(view.modalities, vector, strict=True))
        at = ", ".join(f"{name} {r}" for name, r in radii.items())
        about = {**settings, "radii": radii, **({} if figure is None else _figure(figure))}
        name = f"certified {metric.replace('_', ' ')} at radii {at}"
        entries.append(_entry(task, view.data, view.split, f"certified_{metric}", name, 100 * float(value), about))
    return entries


def _cells(view: CertificateView) -> list[tuple[tuple[int | float, ...], tuple[int, ...]]]:
    places = product(*(range(len(radii)) for radii in view.radii))
    return [(tuple(radii[i] for radii, i in zip(view.radii, at, strict=True)), at) for at in places]


def _body(
    title: str,
    results: Sequence[ResultView],
    certificates: Sequence[CertificateView],
    runs: Sequence[RunFolder],
    licence: str | None,
) -> str:
    lines = [f"# {_plain(title)}", ""]
    lines += [f"- {_plain(said)}" for said in answers(sections(results), certificates)]
    lines += ["", "## Load it", "", "```python", "import crossguard as cg", ""]
    lines += ['model = cg.load_model("FOLDER or owner/name")', "```"]
    for section in sections(results):
        table = section.figures()
        columns = [*(column_name(column) for column in table.columns), "n / groups"]
        heads = ["metric", *table.facts, *columns]
        lines += ["", f"## {_plain(section.heading)}", "", *_row(heads), *_row(["---"] * len(heads))]
        name = ""
        for line in table.lines:
            name = line.name or name
            cells = ["–" if figure is None else _spelled(figure) for figure in line.figures]
            lines += _row([name, *line.row[1:], *cells, line.rests_on])
        lines += ["", "Percent, with 95 % intervals over groups of samples."]
        if section.under:
            lines += [f"Measured under: {_plain(section.under)}."]
        lines += [f"- {_plain(f'{label}: {note}' if label else note)}" for label, note in section.notes]
        lines += [f"- Warning: {_plain(warning)}" for _, warning in section.warnings]
    for view in certificates:
        lines += ["", f"## Certified: {_plain(view.data)} ({_plain(view.split)})", ""]
        sure = f"alpha = {view.alpha:g} ({_plain(view.scope)})"
        lines.append(f"N = {view.draws:,} sub-samples, {sure}; {_plain('; '.join(view.drawn))}.")
    lines += [
        "",
        "## How to read these figures",
        "",
        "A figure under attack is an upper bound of robustness: a stronger attack may break more. A certified figure",
        "is a lower bound: within its radii no attack changes the answer, up to the stated alpha.",
        "",
        "## Made with",
        "",
        f"crossguard {__version__}; " + "; ".join(_versions(run) for run in runs) + ".",
        "",
        f"Licence of the weights: {_plain(licence or 'not stated')}.",
    ]
    return "\n".join(lines) + "\n"


def _spelled(figure: Estimate) -> str:
    return f"{figure.value:.1f}" + (f" ({spread(figure)})" if spread(figure) else "")


def _versions(run: RunFolder) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in sorted(run.info["versions"].items()))
    return _plain(f"run {run.path.resolve().name} (seed {run.info['seed']}, {run.info['device']}; {versions})")


def _row(cells: Sequence[str]) -> list[str]:
    return ["| " + " | ".join(_plain(cell) for cell in cells) + " |"]


def _plain(text: str) -> str:
    """Return a text in which Markdown and HTML see neither tags nor columns nor ends of lines."""
    said = visible(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return said.replace("|", "&#124;").replace("[", "&#91;").replace("]", "&#93;").replace("`", "&#96;")
