"""`evaluate`: a model on a task, clean and under attack, in batches that resume where they stopped."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import nn

from crossguard import __version__
from crossguard.attacks.ball import is_empty
from crossguard.attacks.base import Attack, frozen
from crossguard.attacks.saved import Saved
from crossguard.checks import WrongKind, check_whole, expanded
from crossguard.evaluate.examples import Example, load_examples, save_pictures
from crossguard.evaluate.features import device_of, on_device
from crossguard.evaluate.fingerprint import weights_fingerprint
from crossguard.evaluate.result import Outcome, Result, section_of
from crossguard.evaluate.sanity import warn_of_rising, warn_of_weak_attacks
from crossguard.evaluate.statistics import read_estimates
from crossguard.evaluate.store import open_store, refuse_differences
from crossguard.evaluate.task import Asked, Part, Task, make_task, row_facts
from crossguard.evaluate.tasks import TASKS, told_task
from crossguard.launch import is_main
from crossguard.memory import told_of_memory
from crossguard.models.plain_torch import check_weights, plain_torch
from crossguard.progress import Reporter, Silent, shown
from crossguard.runs import RunFolder, as_read_back, opened, safe_name
from crossguard.threat import Budget, ThreatModel
from crossguard.world import World, join

RESULTS = "results"
"""Where the summary of a run holds what was measured, by section."""


@plain_torch()
def evaluate(
    model: Any,
    data: Any,
    *,
    task: str | None = None,
    attack: Attack | str | Mapping[str, Any] | Sequence[Any] | None = None,
    threat: ThreatModel | Sequence[ThreatModel] | None = None,
    modalities: bool = False,
    seed: int = 0,
    batch_size: int | None = None,
    label: str | None = None,
    run: RunFolder | Path | str | None = None,
    progress: Reporter | None = None,
    device: torch.device | str | None = None,
    attack_options: Mapping[str, Any] | None = None,
    probe: int = 0,
    examples: int = 4,
    save_to: Path | str | None = None,
    **options: Any,
) -> Result:
    """Measure a model on a task, clean and under attack.

    What is judged are the finished samples as they are stored: pictures rounded to 8 bits, whole texts, sensors in
    their own types. With a `run`, each batch is kept at once; calling again with the same arguments takes the
    evaluation up where it stopped, and returns a finished one from its rows without computing anything again.

    Where several processes were launched, call it in each of them with the same arguments: they share the batches, and
    all return the same. Any number of processes takes a run up again.

    Args:
        model: the victim; its mode, weights and device are afterwards what they were.
        data: what it is asked about, all of it: pairs (or what `as_pairs` reads), labelled images, samples, referring
            expressions.
        task: a name of `crossguard list tasks`; None: told by model and data.
        attack: a name of the table, an attack, several of either (by the names that they have in tables), or None to
            measure clean only. Several attacks of one threat are compared: a model that withstands one and is broken by
            another gets a warning.
        threat: what the attack may do; each of several attacks gets the budgets that it can use. Several threat models,
            such as `threats_over` makes of lists, give a security curve; a budget of zero leaves its modality alone.
        modalities: also attack each modality alone.
        seed: seed of the attack, the same for every batch.
        batch_size: images or samples per batch; default: the task's. Attacks may look at a whole batch, so it belongs
            to the settings.
        label: name of this measurement in tables and in the run; default: the model's name.
        run: where rows, adversarial samples and summary go: an open run, or a folder. In several processes the main
            one alone opens it, and the others must see the same disk.
        progress: where progress is shown; None: bars in terminals and notebooks.
        device: where to compute; None: where the model is. In several processes each has its own GPU of the kind.
        attack_options: options of an attack given by name.
        probe: where "adaptive" is not among the attacks, it is tried beside each of them on the first so many images,
            only for the warning; 0: not.
        examples: how many samples (of retrieval: queries per direction) are kept as examples.
        save_to: a new folder for the adversarial pictures and texts of retrieval, which the attack "saved" takes to
            other models; with several attacks or modalities, each has a folder in it.
        options: the task's own, such as `rerank` of retrieval or `beams` of captioning.

    Returns:
        Figures with intervals, attack success, rows and examples.

    Raises:
        WrongKind: the model lacks what the task needs.
        ValueError: an unknown task, attack or option, no data, an attack without a threat or the reverse, a threat with
            a modality the attack cannot use, a run begun with other settings, or a `save_to` that holds something.

    Example:
        >>> import crossguard as cg
        >>> result = cg.evaluate(cg.load_model("emoji-clip"), cg.load_pairs("emoji", split="test").head(8))
        >>> sorted(result.clean)
        ['ir@1', 'ir@10', 'ir@5', 'tr@1', 'tr@10', 'tr@5']
    """
    found, data = told_task(model, data) if task is None else (TASKS.find(task), data)
    data = found.prepare(data)
    _check_numbers(batch_size, seed, examples, probe)
    asking = make_task(found, model, data, batch_size, options)
    attacks = _attacks(asking, attack, attack_options)
    name = str(label or getattr(model, "name", type(model).__name__))
    threats = [threat] if isinstance(threat, ThreatModel) else list(threat or ())
    wanted = list(_wanted(asking, name, attacks, threats, modalities=modalities, save_to=save_to))
    for each in wanted:
        asking.check(each.attack, each.threat)
        if each.save_to is not None:
            asking.save(each.save_to, None, threat=each.threat or ThreatModel())
    bars = shown(progress) if is_main() else Silent()
    world = join(device_of(model) if device is None else device)
    with world.together(), opened(run if world.main else None, verb="evaluate", seed=seed) as given:
        folder = _seen_by_all(world, given)
        how = Asked(seed, world.place(device_of(model) if device is None else device), bars, world)
        result = _measured(asking, wanted, folder, how, examples=examples)
        compared = result
        if probe and attacks and not any(one.name == "adaptive" for one in attacks.values()):
            compared = _probed(asking, attacks, threats, modalities, seed, device, bars, count=probe, options=options)
        note = "" if compared is result else f" (first {probe} images)"
        return _with_warnings(result, compared, folder if world.main else None, note=note)


def _seen_by_all(world: World, run: RunFolder | None) -> RunFolder | None:
    """Return the main process's run, which the others only read."""
    path = world.agree(None if run is None else run.path)
    try:
        return run if world.main or path is None else RunFolder(path)
    except ValueError as error:
        raise ValueError(f"Expected all processes to see the run in {path}, on a disk that they share.") from error


@dataclass(frozen=True)
class _Wanted:
    """One attack within one part of the threat, or no attack: what is to be measured."""

    label: str
    subject: str
    attack_label: str | None
    part: str
    attack: Any
    threat: ThreatModel | None
    save_to: Path | None


def _check_numbers(batch_size: int | None, seed: int, examples: int, probe: int) -> None:
    check_whole(1 if batch_size is None else batch_size, "batch_size", least=1)
    check_whole(seed, "seed", least=0)
    check_whole(examples, "examples", least=0)
    check_whole(probe, "probe", least=0)


def _attacks(task: Task, attack: Any, options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return attacks by the names that they have in tables."""
    if attack is None:
        if options:
            raise ValueError(f"Expected an attack for its options, but got {dict(options)} and `attack` is None.")
        return {}
    if isinstance(attack, str):
        return {attack: task.make_attack(attack, options or {})}
    if options is not None:
        raise ValueError(
            "Expected `attack_options` only with one attack given by its name: give an `Attack` its options itself."
        )
    if isinstance(attack, Mapping):
        found = dict(attack)
    elif isinstance(attack, Sequence):
        given = list(attack)
        names = distinct_names([one if isinstance(one, str) else one.name for one in given])
        found = dict(zip(names, given, strict=True))
    else:
        found = {attack.name: attack}
    if not found:
        raise ValueError("Expected at least one attack, or None, but got none.")
    return {row: task.make_attack(one, {}) if isinstance(one, str) else one for row, one in found.items()}


def _wanted(
    task: Task,
    label: str,
    attacks: Mapping[str, Any],
    threats: Sequence[ThreatModel],
    *,
    modalities: bool,
    save_to: Path | str | None,
) -> Iterator[_Wanted]:
    folder = None if save_to is None else expanded(save_to)
    if not attacks:
        if any(threats):
            raise ValueError(f"Expected an attack for the threat ({threats[0]}), but `attack` is None.")
        if folder is not None:
            raise ValueError("Expected an attack whose findings go to `save_to`, but `attack` is None.")
        yield _Wanted(label, label, None, "clean", None, None, None)
        return
    for row, attack in attacks.items():
        given = [attack.threat] if not threats and isinstance(attack, Saved) else threats
        if not given or not all(given):
            raise ValueError(
                f"Expected a threat model that says what attack {attack.name!r} may do, but got {[*given, None][0]!r}: "
                "for example ThreatModel(image=LInf(eps=2/255), text=WordEdits(words=1))."
            )
        if len(given) > 1:
            given = [rest for threat in given if (rest := without_zero(threat))]
        if len(attacks) > 1:
            given = _usable(attack, given)
        parts = dict.fromkeys(
            (part, limits)
            for threat in given
            for part, limits in (parts_of(threat) if modalities else {part_name(threat): threat}).items()
        )
        alike = [part for part, _ in parts]
        for part, limits in parts:
            spelled = ", ".join(f"{name} {budget}" for name, budget in limits.items())
            own, within = [row] * (len(attacks) > 1), [spelled] * (alike.count(part) > 1)
            at = folder
            if folder is not None:
                at = folder.joinpath(*own, *map(safe_name, within), *([part] if len(set(alike)) > 1 else []))
            yield _Wanted(", ".join([label, *own, *within]), label, row, part, attack, limits, at)


def without_zero(threat: ThreatModel) -> ThreatModel:
    """Return a threat without the budgets that allow no change."""
    return threat.only(*(name for name, budget in threat.items() if not is_empty(budget)))


def _usable(attack: Any, threats: Sequence[ThreatModel]) -> list[ThreatModel]:
    """Return the budgets of threats that an attack can use; threats that have none of them are left out."""
    uses = getattr(attack, "uses", None)
    usable = [threat.only(*(m for m in threat if uses is None or m in uses)) for threat in threats]
    if not any(usable):
        raise ValueError(
            f"Expected a budget for what attack {attack.name!r} can attack ({', '.join(sorted(uses or ()))}), but got "
            f"{threats[0]!r}."
        )
    return [threat for threat in usable if threat]


def _measured(
    task: Task,
    wanted: Sequence[_Wanted],
    run: RunFolder | None,
    how: Asked,
    *,
    examples: int,
) -> Result:
    world = how.world
    if not isinstance(task.model, nn.Module):
        raise WrongKind(f"Expected the model to be a torch.nn.Module, but got {type(task.model).__name__}.")
    check_weights(task.model)
    with on_device(task.model, how.device), frozen(task.model), ExitStack() as stack:
        facts: dict[str, Any] = {"weights": weights_fingerprint(task.model, kept=run is not None)}
        asked = {f"{one.label}, {one.part}": _settings(task, one, facts, how.seed) for one in wanted}
        world.same("evaluation", {"rows": task.rows, **asked})
        facts |= world.agree(task.facts(how.progress) if world.main else {})
        parts = [_part(task, one, _settings(task, one, facts, how.seed), run, world, stack) for one in wanted]
        outcomes = world.agree(
            {place: known for place, part in enumerate(parts) if (known := _finished(task, part, run))}
            if world.main
            else {}
        )
        for attack in dict.fromkeys(one.attack_label for one in wanted):  # one attack is summarised before the next
            mine = [place for place, one in enumerate(wanted) if one.attack_label == attack]
            left = [place for place in mine if place not in outcomes]
            if left:
                with told_of_memory(task.model, batch_size=task.batch_size):
                    task.carry_out(how, [parts[place] for place in left])
            for place in left:
                told: Any = _outcome(task, parts[place], run, count=examples) if world.main else None
                outcomes[place] = world.agree(told)
            for place in mine:
                folder = wanted[place].save_to
                if folder is not None and world.main:
                    task.save(folder, parts[place], threat=parts[place].threat or ThreatModel())
    return Result(tuple(outcomes[place] for place in range(len(parts))))


def _settings(task: Task, one: _Wanted, facts: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Return all that decides a measurement, as JSON values."""
    return as_read_back(
        {
            "task": task.name,
            "label": one.label,
            "subject": one.subject,
            "attack_label": one.attack_label,
            "part": one.part,
            "model": task.model.name,
            "data": task.data.name,
            "split": task.data.split,
            **facts,
            "batch_size": task.batch_size,
            "attack": None if one.attack is None else one.attack.name,
            **task.attack_facts(one.attack),
            "threat": None if one.threat is None else one.threat.to_dict(),
            "seed": seed,
            "crossguard": __version__,
        }
    )


def _part(
    task: Task, one: _Wanted, settings: dict[str, Any], run: RunFolder | None, world: World, stack: ExitStack
) -> Part:
    rows = _kept_rows(task, run, settings) if world.main else {}
    store = stack.enter_context(open_store(run, task.name, one.label, one.part, settings=settings, world=world))
    append = run.rows.append if run is not None and world.main else None
    part = Part(
        one.label,
        one.part,
        one.attack,
        one.threat,
        settings,
        store,
        rows,
        (lambda new: append(*new)) if append is not None else (lambda new: None),
        None if run is None else run.file("scores", one.label),
    )
    if world.main:
        part.take_rows(task.key)
    if world.size > 1:
        known = world.agree(list(part.rows))
        part.rows = part.rows if world.main else {key: {} for key in known}
    return part


def _kept_rows(task: Task, run: RunFolder | None, settings: Mapping[str, Any]) -> dict[Any, Mapping[str, Any]]:
    """Return the rows that a run holds of a measurement, once it is the very measurement that is asked for.

    Adversarial samples have settings beside them, but they may have been deleted to free space; so the summary and the
    rows are looked at too.

    Raises:
        ValueError: it was measured with other settings; each difference is named.
    """
    if run is None:
        return {}
    facts = row_facts(settings)
    summary = run.summary.get(RESULTS, {}).get(facts["section"])
    if summary is not None:
        refuse_differences({key: summary[key] for key in settings if key in summary}, settings, where=run.path)
    rows: dict[Any, Mapping[str, Any]] = {}
    for row in run.rows:
        if row.get("section") == facts["section"]:
            refuse_differences({key: row[key] for key in facts if key in row}, facts, where=run.path)
            rows[task.key(row)] = row
    return rows


def _finished(task: Task, part: Part, run: RunFolder | None) -> Outcome | None:
    """Return what a run holds of a finished measurement; None where anything is missing."""
    entry = {} if run is None else run.summary.get(RESULTS, {}).get(section_of(part.settings))
    if run is None or not entry or len(part.rows) != task.rows or not task.current(entry):
        return None
    try:
        shown = load_examples(entry["examples"], _pictures(run, part))
    except ValueError:
        return None
    said = {key: tuple(entry[key]) for key in ("warnings", "notes")}
    return Outcome(part.ordered, part.settings, read_estimates(entry["estimates"]), entry["about"], shown, **said)


def _outcome(task: Task, part: Part, run: RunFolder | None, *, count: int) -> Outcome:
    rows = part.ordered
    shown: tuple[Example, ...] = task.examples(rows, part, count=count) if count else ()
    estimates, more = task.figures(rows, part.settings)
    found = Outcome(
        rows,
        part.settings,
        estimates,
        {**task.about(), **more},
        shown,
        tuple(task.warnings(part.attack, part.threat)),
        tuple(task.notes(rows, part.settings)),
    )
    if run is not None:
        if shown:
            save_pictures(shown, _pictures(run, part))
        run.summarise(RESULTS, found.section, found.summary())
    return found


def _pictures(run: RunFolder, part: Part) -> Path:
    return run.file("examples", str(part.settings["task"]), part.label, f"{part.part}.npz")


def _probed(
    task: Task,
    attacks: Mapping[str, Any],
    threats: Sequence[ThreatModel],
    modalities: bool,
    seed: int,
    device: torch.device | str | None,
    progress: Reporter,
    *,
    count: int,
    options: Mapping[str, Any],
) -> Result:
    both = {row: attack for row, attack in attacks.items() if attack.name != "saved"}
    return evaluate(
        task.model,
        task.data.head(count),
        task=task.name,
        attack={**both, "adaptive": task.make_attack("adaptive", {})},
        threat=threats or None,
        modalities=modalities,
        seed=seed,
        batch_size=task.batch_size,
        progress=progress,
        device=device,
        examples=0,
        **options,
    )


def _with_warnings(result: Result, compared: Result, run: RunFolder | None, *, note: str) -> Result:
    """Return the result with warnings of attacks that another one of the same budget, or a smaller budget, beats."""
    told = list(result.outcomes)
    found: dict[tuple[str, str], list[str]] = {}
    for (part, _), here in _by_threat(compared).items():
        for row, said in warn_of_weak_attacks(here).items():
            found.setdefault((row, here[row].threat_key), []).extend(f"{part}: {warning}{note}" for warning in said)
    for row in dict.fromkeys(str(outcome.settings["attack_label"]) for outcome in result):
        for outcome, warning in warn_of_rising(result.of(attack=row).outcomes if result.attacked else ()):
            found.setdefault((row, outcome.threat_key), []).append(f"{outcome.part}: {warning}")
    for place, old in enumerate(told):
        new = found.get((str(old.settings["attack_label"]), old.threat_key), [])
        more = tuple(warning for warning in new if warning not in old.warnings)
        if more:
            told[place] = replace(old, warnings=(*old.warnings, *more))
            if run is not None:
                run.summarise(RESULTS, old.section, told[place].summary())
    return Result(tuple(told))


def _by_threat(result: Result) -> dict[tuple[str, str], dict[str, Outcome]]:
    """Return outcomes by what was attacked within which budgets, then by the attack's label."""
    found: dict[tuple[str, str], dict[str, Outcome]] = {}
    for outcome in result:
        if outcome.attacked:
            found.setdefault((outcome.part, outcome.threat_key), {})[str(outcome.settings["attack_label"])] = outcome
    return found


def threats_over(threat: ThreatModel, budgets: Mapping[str, Sequence[Budget]]) -> list[ThreatModel]:
    """Return a threat model with every combination of several budgets of its modalities, for a security curve.

    Args:
        threat: gives the target, and the budgets of modalities that are not named.
        budgets: by modality, the budgets to go through.

    Example:
        >>> from crossguard.threat import LInf, WordEdits
        >>> over = {"image": [LInf(0), LInf(2 / 255)], "text": [WordEdits(0), WordEdits(1)]}
        >>> [str(threat) for threat in threats_over(ThreatModel(), over)][3]
        'image: L-inf 2/255, text: 1 word (both sides)'
    """
    fixed = {name: [budget] for name, budget in threat.items()}
    every: dict[str, Sequence[Budget]] = {**fixed, **budgets}
    return [
        ThreatModel(target=threat.target, **dict(zip(every, chosen, strict=True)))
        for chosen in product(*every.values())
    ]


def parts_of(threat: ThreatModel) -> dict[str, ThreatModel]:
    """Return the threat by what is attacked: each modality alone, and "joint" if there are several.

    Example:
        >>> from crossguard.threat import LInf, WordEdits
        >>> list(parts_of(ThreatModel(image=LInf(eps=2 / 255), text=WordEdits(words=1))))
        ['image', 'text', 'joint']
    """
    parts = {modality: threat.only(modality) for modality in threat}
    return {**parts, "joint": threat} if len(threat) > 1 else parts


def part_name(threat: ThreatModel | None) -> str:
    """Return what is attacked, in one word: "clean", a modality's name, or "joint"."""
    if threat is None:
        return "clean"
    return next(iter(threat)) if len(threat) == 1 else "joint"


def distinct_names(names: Sequence[str]) -> list[str]:
    """Return the names, with a number added where one comes again.

    Example:
        >>> distinct_names(["pgd", "sga", "pgd"])
        ['pgd', 'sga', 'pgd 2']
    """
    return [n if names[:i].count(n) == 0 else f"{n} {names[:i].count(n) + 1}" for i, n in enumerate(names)]
