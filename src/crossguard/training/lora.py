"""Low-rank adapters (Hu et al., 2022) through PEFT, merged into plain weights at the end; freezing by name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from crossguard.checks import check_options, nearest, plain
from crossguard.extras import install


@dataclass(frozen=True)
class Lora:
    """Which linear layers get an adapter, and of what size.

    Args:
        rank: of the change of every weight.
        alpha: the change is scaled by alpha / rank.
        dropout: of the adapters' inputs.
        layers: name patterns (`*` and `?`) of the linear layers; those outside the trained towers are left out.

    Raises:
        ValueError: a value out of range.
    """

    rank: int = 8
    alpha: int = 16
    dropout: float = 0.0
    layers: tuple[str, ...] = ("*",)

    def __post_init__(self) -> None:
        if isinstance(self.rank, bool) or not isinstance(self.rank, int) or self.rank < 1:
            raise ValueError(f"Expected `lora.rank` to be a whole number >= 1, but got {self.rank!r}.")
        if not self.alpha > 0 or not 0 <= self.dropout < 1:
            raise ValueError(
                f"Expected `lora.alpha` > 0 and `lora.dropout` in [0, 1), but got {self.alpha!r} and {self.dropout!r}."
            )


def read_lora(options: Mapping[str, Any] | None) -> Lora | None:
    """Turn a recipe's mapping into `Lora`; None stays None.

    Raises:
        ValueError: an unknown key (the nearest is named), or a value of another type or out of range.
    """
    if options is None:
        return None
    layers = options.get("layers", Lora.layers)
    given = {**options, "layers": [layers] if isinstance(layers, str) else layers}
    check_options(Lora, given, what="`lora`")
    return Lora(**{**{name: plain(value) for name, value in given.items()}, "layers": tuple(given["layers"])})


def add_lora(model: nn.Module, lora: Lora, *, within: Sequence[nn.Parameter], seed: int) -> list[nn.Parameter]:
    """Put adapters on the chosen linear layers; at first they change nothing. Return their weights.

    Args:
        model: changed in place; `merge_lora` takes the adapters out again.
        lora: which layers, and how large.
        within: only layers whose weights are among these.
        seed: of the adapters' first weights.

    Raises:
        ValueError: PEFT is not installed, or no linear layer is chosen.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ValueError(f"Expected PEFT for `lora`, but it is not here: {install('lora')}") from error
    names = _linear_layers(model, {id(parameter) for parameter in within})
    chosen = [name for name in names if any(fnmatchcase(name, pattern) for pattern in lora.layers)]
    if not chosen:
        raise ValueError(
            f"Expected `lora.layers` to name linear layers of the trained towers, but {list(lora.layers)} name none; "
            f"there are {', '.join(names[:3])}, ..."
        )
    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=chosen)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        inject_adapter_in_model(config, model)
    return [parameter for name, parameter in model.named_parameters() if ".lora_" in name]


def merge_lora(model: nn.Module) -> None:
    """Add every adapter's change to its layer's weight and take the adapter out: plain layers are left."""
    from peft.tuners.lora import LoraLayer

    adapted = [(name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer)]
    for name, module in adapted:
        module.merge()
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, module.get_base_layer())
    if hasattr(model, "peft_config"):
        del model.peft_config


def freeze(model: nn.Module, patterns: Sequence[str]) -> None:
    """Switch gradients off for the parameters whose names match a pattern.

    Args:
        model: changed in its `requires_grad` flags.
        patterns: such as "network.text_model.*" (`*` and `?`).

    Raises:
        ValueError: a pattern that no parameter matches.
    """
    named = dict(model.named_parameters())
    for pattern in patterns:
        found = [parameter for name, parameter in named.items() if fnmatchcase(name, pattern)]
        if not found:
            raise ValueError(
                f"Expected `freeze` to name parameters, but {pattern!r} names none; {nearest(pattern, named)}."
            )
        for parameter in found:
            parameter.requires_grad_(False)


def _linear_layers(model: nn.Module, within: set[int]) -> list[str]:
    """Names of plain linear layers whose weights are theirs alone: a tied weight cannot be changed in one place."""
    owners: dict[int, int] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    return [
        name
        for name, module in model.named_modules()
        if type(module) is nn.Linear and id(module.weight) in within and owners[id(module.weight)] == 1
    ]
