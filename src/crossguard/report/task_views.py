"""From run folders to what a report shows of grounding, captioning, classification and segmentation."""

from collections.abc import Mapping, Sequence
from typing import Any

from crossguard.evaluate.grounding_boxes import RIGHT
from crossguard.evaluate.sample_examples import SampleExample, SampleExamples
from crossguard.evaluate.statistics import Figure, read_figure
from crossguard.report.differences import differences
from crossguard.report.groups import grouped
from crossguard.report.overlay import overlay
from crossguard.report.pictures import amplified_difference
from crossguard.report.tasks import KINDS, TaskExampleView, TaskView
from crossguard.report.views import Difference
from crossguard.report.words import marked_words, spread
from crossguard.runs import RunFolder
from crossguard.threat import ThreatModel


def task_views(runs: Sequence[RunFolder]) -> list[TaskView]:
    """Return one view per task, model, data set and attack of every run, single modalities and joint together.

    Raises:
        ValueError: a run's example pictures are missing or damaged.
    """
    views = []
    for kind in KINDS:
        groups = grouped(runs, kind)
        found = differences(kind, groups)
        views += [
            _view(kind, group.name, group.entries, group.run, found.get(place)) for place, group in enumerate(groups)
        ]
    return views


def _view(
    kind: str, label: str, entries: Sequence[Mapping[str, Any]], run: RunFolder, difference: Difference | None
) -> TaskView:
    first, widest = entries[0], max(entries, key=lambda entry: len(entry["threat"] or ()))
    attacked = {entry["part"]: entry for entry in entries if entry["robust"] is not None}
    threat = None if widest["threat"] is None else ThreatModel.from_dict(widest["threat"])
    return TaskView(
        kind=kind,
        label=label,
        data=f"{first['data']} ({first['split']})",
        samples=_samples(kind, first),
        attack=widest["attack"],
        threat="" if threat is None else ", ".join(f"{modality}: {budget}" for modality, budget in threat.items()),
        columns={
            "clean": _figures(first, "clean"),
            **{part: _figures(entry, "robust") for part, entry in attacked.items()},
        },
        success={part: _SUCCESS[kind](entry) for part, entry in attacked.items()},
        notes=_NOTES[kind](widest),
        examples=_examples(kind, widest, run),
        difference=difference,
    )


def _samples(kind: str, entry: Mapping[str, Any]) -> str:
    if kind == "grounding":
        return f"{entry['expressions']:,} expressions about {entry['images']:,} images"
    if kind in ("classification", "segmentation"):
        return f"{entry['samples']:,} {'samples' if kind == 'classification' else 'images'}"
    return f"{entry['images']:,} images with {entry['references']:,} references"


def _figures(entry: Mapping[str, Any], side: str) -> dict[str, Figure]:
    found = {metric: read_figure(value) for metric, value in entry["figures"][side].items()}
    return {metric: figure for metric, figure in found.items() if figure is not None}


def _drops(entry: Mapping[str, Any]) -> dict[str, Figure | None]:
    return {f"drop of {metric}": read_figure(value) for metric, value in entry["figures"]["drop"].items()}


def _success(entry: Mapping[str, Any]) -> dict[str, Figure | None]:
    (conditional,) = entry["figures"]["conditional"].values()
    return {"success, of those right before": read_figure(conditional), **_drops(entry)}


def _captioning_success(entry: Mapping[str, Any]) -> dict[str, Figure | None]:
    told = {f"drop of {metric}" for metric in _TOLD_DROPS}
    drops = {name: figure for name, figure in _drops(entry).items() if name in told}
    return {"captions changed": read_figure(entry["figures"]["changed"]["captions"]), **drops}


_TOLD_DROPS = ("BLEU-4", "METEOR", "ROUGE-L", "CIDEr", "SPICE")


def _grounding_notes(entry: Mapping[str, Any]) -> list[str]:
    def share(name: str) -> str:
        figure = read_figure(entry["figures"][name]["accuracy"])
        return "" if figure is None else f"{figure} % ({spread(figure)})"

    nowhere = ", ".join(f"{share(f'pointless {side}')} {side}" for side in entry["pointless"])
    return [
        f"Proposals: {entry['proposals_are']}. For {share('ceiling')} of the expressions some proposal is right; "
        "no choice among them can do better.",
        f"Attention of layer {entry['layer']}. Expressions without an answer, as the map points nowhere: {nowhere}.",
    ]


def _captioning_notes(entry: Mapping[str, Any]) -> list[str]:
    words = {
        "ptb": "Words by the Penn Treebank tokenizer, as in published figures.",
        "plain": "Words by the plain tokenizer, as there was no Java: figures differ slightly from published ones.",
    }
    loss = ", ".join(f"{value:.2f} {side}" for side, value in entry["loss"].items())
    notes = [
        f"{entry['beams']} beams, {entry['min_length']} to {entry['max_length']} tokens. "
        f"{words[entry['tokenizer']]} Mean loss of the references, in nats per token: {loss}."
    ]
    if entry["objective"] is not None:
        aim = {"references": "the loss of the references", "own-caption": "the loss of the clean picture's own caption"}
        notes.append(f"The attack raises {aim[entry['objective']]}.")
    return notes + [f"{metric} is missing: {why}." for metric, why in entry["missing"].items()]


def _samples_notes(entry: Mapping[str, Any]) -> list[str]:
    masks = entry["kind"] == "segmentation"
    what = f"{entry['judged']:,} {'pixels' if masks else 'samples'} have a true label and are judged."
    if masks and "IoU" in entry["clean"]:
        what += f" IoU is that of {entry['positive']!r}, over all images together."
    elif masks:
        what += f" There is no pixel of {entry['positive']!r}, so that its IoU is not defined."
    notes = [what]
    if entry["attack"] is not None:
        aim = {
            "strongest": "several losses in turn, and the worst of each sample is kept",
            "margin": "the lead of the best wrong label",
            "cross-entropy": "the cross-entropy",
            "masked-cross-entropy": "the cross-entropy of the pixels that are still right",
            "jensen-shannon": "the Jensen-Shannon divergence from the truth",
        }
        notes.append(
            f"The attack raises {aim[entry['objective']]}. Budgets of L-inf are shares of a modality's range; what is "
            "judged are the values as they are stored."
        )
    return notes


_SUCCESS = {
    "grounding": _success,
    "captioning": _captioning_success,
    "classification": _success,
    "segmentation": _success,
}
_NOTES = {
    "grounding": _grounding_notes,
    "captioning": _captioning_notes,
    "classification": _samples_notes,
    "segmentation": _samples_notes,
}


def _examples(kind: str, entry: Mapping[str, Any], run: RunFolder) -> list[TaskExampleView]:
    if not entry["examples"]:
        return []
    path = run.file("examples", kind, entry["label"], f"{entry['part']}.npz")
    shown = SampleExamples.load(entry["examples"], path)
    return [_EXAMPLE[kind](example) for example in shown.examples]


def _grounding_example(example: SampleExample) -> TaskExampleView:
    row, sides = example.row, ("clean", "robust")[: len(example.pictures)]
    before, after = marked_words(row["text"], row["adversarial_text"] or row["text"])
    said = [("The expression", before)] + ([("Under attack", after)] if len(sides) > 1 else [])
    titles = {"clean": "without attack", "robust": "under attack"}
    pictures = []
    for place, side in enumerate(sides):
        right = row[f"{side}_iou"] >= RIGHT
        drawn = overlay(
            example.pictures[place],
            example.maps[place],
            size=example.size,
            truth=row["truth"],
            chosen=row[f"{side}_box"],
            right=right,
        )
        verdict = "no answer" if row[f"{side}_box"] is None else f"overlap {row[f'{side}_iou']:.2f}"
        pictures.append((drawn, f"{titles[side]}: {'right' if right else 'wrong'}, {verdict}"))
    return TaskExampleView(said, pictures)


def _captioning_example(example: SampleExample) -> TaskExampleView:
    row, attacked = example.row, len(example.pictures) > 1
    before, after = marked_words(row["clean_caption"], row["robust_caption"] if attacked else row["clean_caption"])
    pictures = [(example.pictures[0], "clean")]
    said = [("It writes", before)]
    if attacked:
        difference, factor = amplified_difference(example.pictures[0], example.pictures[1])
        pictures += [(example.pictures[1], "adversarial"), (difference, f"change × {factor}")]
        said.append(("Under attack", after))
    return TaskExampleView(said, pictures, [f"People wrote: {text}" for text in row["references"]])


_EXAMPLE = {"grounding": _grounding_example, "captioning": _captioning_example}
