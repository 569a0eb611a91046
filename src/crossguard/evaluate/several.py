"""Several attacks on one model, side by side, and what their comparison says."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from crossguard.attacks.base import Attack
from crossguard.data import OneToManyPairs
from crossguard.evaluate.asked import own_threat
from crossguard.evaluate.measure import evaluate, evaluate_modalities
from crossguard.evaluate.result import RetrievalResult
from crossguard.evaluate.sanity import warn_of_weak_attacks
from crossguard.models import VisionLanguageModel
from crossguard.runs import RunFolder
from crossguard.threat import ThreatModel

Parts = dict[str, RetrievalResult]


def evaluate_attacks(
    model: VisionLanguageModel,
    pairs: OneToManyPairs,
    *,
    attacks: Mapping[str, Attack],
    threat: ThreatModel | None = None,
    modalities: bool = True,
    probe: int = 0,
    label: str | None = None,
    run: RunFolder | None = None,
    **options: Any,
) -> dict[str, Parts]:
    """Measure retrieval under several attacks of the same threat model; each attack is a row of one table.

    Every attack gets the budgets that it can use. A model that withstands one attack and is broken by another of the
    same budget gets a warning in the result of the first.

    Args:
        model: the victim.
        pairs: the data.
        attacks: by the name that they have in tables.
        threat: what they may do; None: what each brings along (the attack "saved").
        modalities: also attack each modality alone.
        probe: where "adaptive" is not among the attacks, it is tried beside each of them on the first so many images,
            only for the warning; 0: not.
        label: name of the model in tables; with several attacks, each is added to it.
        run: where rows, adversarial samples and summaries go.
        options: of `evaluate`: `seed`, `batch_size`, `device`, `progress`, `rerank`, ...

    Returns:
        By attack, by what is attacked ("image", "text", "joint"), the result.

    Raises:
        ValueError: no attacks, a threat that none of an attack's modalities is in, or as `evaluate`.
    """
    if not attacks or probe < 0:
        raise ValueError(f"Expected at least one attack and `probe` >= 0, but got {list(attacks)} and {probe}.")
    name = label or model.name
    results: dict[str, Parts] = {}
    for row, attack in attacks.items():
        given = _usable(attack, threat)
        common = {**options, "run": run, "label": name if len(attacks) == 1 else f"{name}, {row}"}
        if "save_to" in options and len(attacks) > 1:
            common["save_to"] = None if options["save_to"] is None else f"{options['save_to']}/{row}"
        if modalities and len(given) > 1:
            results[row] = evaluate_modalities(model, pairs, attack=attack, threat=given, **common)
        else:
            result = evaluate(model, pairs, attack=attack, threat=given, **common)
            results[row] = {"joint" if len(given) > 1 else next(iter(given)): result}
    compared = results
    if probe and not any(attack.name == "adaptive" for attack in attacks.values()):
        compared = _probed(model, pairs.head(probe), attacks, threat, options)
    return _with_warnings(results, compared, run, note="" if compared is results else f" (first {probe} images)")


def _usable(attack: Attack, threat: ThreatModel | None) -> ThreatModel:
    given = own_threat(attack) if threat is None else threat
    usable = [modality for modality in given or () if modality in attack.uses]
    if given is None or not usable:
        raise ValueError(
            f"Expected a budget for what attack {attack.name!r} can attack ({', '.join(sorted(attack.uses))}), but got "
            f"{given!r}."
        )
    return given.only(*usable)


def _probed(
    model: VisionLanguageModel,
    few: OneToManyPairs,
    attacks: Mapping[str, Attack],
    threat: ThreatModel | None,
    options: Mapping[str, Any],
) -> dict[str, Parts]:
    from crossguard.attacks.adaptive import Adaptive

    kept = {key: value for key, value in options.items() if key not in ("save_to", "examples")}
    both = {row: attack for row, attack in attacks.items() if attack.name != "saved"}
    return evaluate_attacks(model, few, attacks={**both, "adaptive": Adaptive()}, threat=threat, examples=0, **kept)


def _with_warnings(
    results: dict[str, Parts], compared: Mapping[str, Parts], run: RunFolder | None, *, note: str
) -> dict[str, Parts]:
    told = {row: dict(parts) for row, parts in results.items()}
    for part in sorted({part for parts in compared.values() for part in parts}):
        here = {row: parts[part] for row, parts in compared.items() if part in parts}
        for row, found in warn_of_weak_attacks(here).items():
            old = told.get(row, {}).get(part)
            new = tuple(f"{part}: {warning}{note}" for warning in found)
            if old is None or set(new) <= set(old.warnings):
                continue
            told[row][part] = replace(old, warnings=(*old.warnings, *(w for w in new if w not in old.warnings)))
            if run is not None:
                run.summarise("retrieval", f"{old.settings['label']}/{part}", told[row][part].summary())
    return told


def distinct_names(names: Sequence[str]) -> list[str]:
    """Return the names, with a number added where one comes again.

    Example:
        >>> distinct_names(["pgd", "sga", "pgd"])
        ['pgd', 'sga', 'pgd 2']
    """
    return [n if names[:i].count(n) == 0 else f"{n} {names[:i].count(n) + 1}" for i, n in enumerate(names)]
