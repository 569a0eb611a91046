"""What is asked of an evaluation: which attack, within which budgets, on which modalities; checked before any work."""

from collections.abc import Mapping
from typing import Any

from crossguard.attacks.base import Attack
from crossguard.attacks.saved import Saved
from crossguard.threat import ThreatModel


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
    """Return what is attacked, in one word: "clean", "image", "text" or "joint"."""
    if threat is None:
        return "clean"
    return next(iter(threat)) if len(threat) == 1 else "joint"


def resolve_attack(attack: Attack | str | None, options: Mapping[str, Any] | None) -> Attack | None:
    """Return an attack given by its name in the table, with options, or the attack itself.

    Raises:
        ValueError: an unknown name or option, or options beside an attack that is already made.
    """
    if isinstance(attack, str):
        from crossguard.attacks.table import make_attack

        return make_attack(attack, **(options or {}))
    if options is not None:
        raise ValueError(
            "Expected `attack_options` only with an attack given by its name: give an `Attack` its options itself."
        )
    return attack


def own_threat(attack: Attack | None) -> ThreatModel | None:
    """Return the threat model that an attack brings along (a saved set was made within one), or None."""
    return attack.threat if isinstance(attack, Saved) else None


def check_budgets(attack: Attack | None, threat: ThreatModel | None) -> None:
    """Check that there is a threat for an attack, and only budgets that it uses.

    A robust figure under "image and text" from an attack that only touches images would say too much.

    Raises:
        ValueError: one without the other, or a budget for a modality that the attack cannot use.
    """
    if attack is None:
        if threat is not None:
            raise ValueError(f"Expected an attack for the threat ({threat}), but `attack` is None.")
        return
    if not threat:
        raise ValueError(
            f"Expected a threat model that says what attack {attack.name!r} may do, but got {threat!r}: "
            "for example ThreatModel(image=LInf(eps=2/255), text=WordEdits(words=1))."
        )
    useless = [modality for modality in threat if modality not in attack.uses]
    if useless:
        raise ValueError(
            f"Expected budgets that attack {attack.name!r} can use ({', '.join(sorted(attack.uses))}), but the "
            f"threat has one for {', '.join(useless)}: leave it out, or choose an attack that uses it."
        )


def row_facts(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what every row says of its measurement, so that rows can be read without it."""
    return {key: settings[key] for key in ("model", "data", "split", "attack", "threat", "seed")}
