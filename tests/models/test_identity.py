"""Two models that may answer differently are told apart; the same model is the same one, whatever it is called."""

import functools
import pickle
import sys
import threading
import types
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from crossguard.models.identity import model_identity
from shared import make_clip

SCALE = 1.0


@dataclass
class Blur:
    """A purifier that is no module."""

    strength: float = 1.0

    def __call__(self, pixels):
        return pixels * self.strength


class Purified(nn.Module):
    """A purifier in front of a model."""

    def __init__(self, model, purify):
        super().__init__()
        self.name, self.model, self.purify = "purified", model, purify


class Holding(nn.Module):
    """Holds something, in the open or in private."""

    def __init__(self, thing, *, private=False):
        super().__init__()
        self.name, self._calls = "holding", 0
        setattr(self, "_thing" if private else "thing", thing)


def told(model, **options):
    return model_identity(model, strict=True, **options)


def threshold(value):
    return lambda x: x > value


def stump(depth):
    tree = pytest.importorskip("sklearn.tree")
    values = np.random.default_rng(0).normal(size=(60, 3))
    return tree.DecisionTreeClassifier(max_depth=depth, random_state=0).fit(values, values[:, 0] * values[:, 1] > 0)


def neighbours(turned):
    found = pytest.importorskip("sklearn.neighbors")
    values = np.random.default_rng(0).normal(size=(60, 3))
    return found.KNeighborsClassifier().fit(values, (values[:, 0] > 0) != turned)


def boosted(turned):
    ensemble = pytest.importorskip("sklearn.ensemble")
    values = np.random.default_rng(0).normal(size=(60, 3))
    return ensemble.HistGradientBoostingClassifier(max_iter=3, random_state=0).fit(values, (values[:, 0] > 0) != turned)


def scaled():
    return lambda x: x * SCALE


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda: lambda x: x, lambda: lambda x: -x),
        (lambda: threshold(0.5), lambda: threshold(0.6)),
        (lambda: -1, lambda: 1),
        (lambda: {"a": [1, {2}]}, lambda: {"a": [1, {3}]}),
        (lambda: Blur(1.0), lambda: Blur(2.0)),
        (lambda: functools.partial(max, 1), lambda: functools.partial(max, 2)),
        (lambda: functools.partial(max, 1), lambda: functools.partial(min, 1)),
        (lambda: torch.ones(3), lambda: torch.ones(3, dtype=torch.float64)),
        (lambda: np.array([{"a": 1}], dtype=object), lambda: np.array([{"a": 2}], dtype=object)),
        (lambda: Blur(1.0).__call__, lambda: Blur(2.0).__call__),
        (lambda: [nn.Linear(2, 2, bias=False)], lambda: [nn.Linear(2, 2)]),
        (lambda: stump(1), lambda: stump(3)),
        (lambda: neighbours(False), lambda: neighbours(True)),
        (lambda: boosted(False), lambda: boosted(True)),
    ],
    ids=[
        *("lambda", "closure", "number", "nested", "dataclass", "partial", "partial of another", "dtype"),
        *("objects", "method", "modules in a list", "tree", "neighbours", "boosting"),
    ],
)
@pytest.mark.parametrize("private", [False, True])
def test_what_is_held_tells_models_apart(one, other, private):
    def made(thing):
        torch.manual_seed(0)
        return told(Holding(thing(), private=private))

    assert made(one) == made(one)
    assert made(one) != made(other)


def test_the_same_estimator_read_again_is_the_same():
    for estimator in (stump(2), neighbours(False), boosted(False)):
        assert told(Holding(pickle.loads(pickle.dumps(estimator)))) == told(Holding(estimator))


def test_a_purifier_in_front_of_a_model_counts_and_names_do_not():
    clip = make_clip()
    before = told(Purified(clip, Blur(1.0)))
    assert told(Purified(clip, Blur(0.5))) != before
    assert told(Purified(clip, lambda x: x)) != before
    renamed = Purified(clip, Blur(1.0))
    renamed.name, clip.name = "another", "clip of mine"
    assert told(renamed) == before
    clip.logit_scale_parameter = None
    with torch.no_grad():
        next(clip.parameters()).add_(1e-3)
    assert told(Purified(clip, Blur(1.0))) != before


def test_globals_that_a_function_uses_count(monkeypatch):
    before = told(Holding(scaled()))
    assert told(Holding(scaled())) == before
    monkeypatch.setitem(globals(), "SCALE", -1.0)
    assert told(Holding(scaled())) != before


def _helped(x):
    return _helper(x)


def _helper(x):
    return x + 1


class Scaler:
    """A user's own object, which pickle would tell nothing of."""

    def __init__(self, factor=1.0):
        self.factor = factor

    def __call__(self, x):
        return x * self.factor

    def __reduce__(self):
        return Scaler, ()


class Named(dict):
    """A mapping with an attribute."""

    def __init__(self, items, factor):
        super().__init__(items)
        self.factor = factor


class Acts(nn.Module):
    """A layer that is chosen by its name."""

    def __init__(self, name):
        super().__init__()
        self.name = name

    def forward(self, x):
        return getattr(torch, self.name)(x)


def net(value):
    """Return a network of a class whose attributes hold a value in several ways."""

    class Net(nn.Module):
        class Inner:
            held = value

        scaler = Scaler(value)
        scaled = functools.partialmethod(lambda self, by, x: x * by, value)

        @functools.cached_property
        def factor(self):
            return value

        def forward(self, x):
            return self.scaled(self.scaler(x)) * self.factor * self.Inner.held

    return Net()


class OneOf(nn.Module):
    """A network with one attribute of `net`'s class alone."""


def with_attribute(name, value):
    kind = type("Net", (OneOf,), {name: vars(type(net(value)))[name]})
    return kind()


def hooked(register, factor):
    layer = nn.Linear(2, 2)
    getattr(layer, register)(lambda module, given, *out: factor)
    return layer


SCALER = Scaler()


def uses_an_object():
    return lambda x: SCALER(x)


def uses_inside():
    def outer(x):
        return [(lambda y: y * SCALE)(part) for part in x]

    return outer


def uses_a_module(factor):
    own = types.ModuleType("mine")
    exec(f"FACTOR = {factor}\ndef scale(x):\n    return x * FACTOR\n", own.__dict__)
    held = {"__name__": "notebook", "mine": own}
    exec("def net(x):\n    return mine.scale(x)\n", held)
    return held["net"]


def in_order(*names):
    layers = {"linear": nn.Linear(2, 2), "relu": nn.ReLU()}
    return nn.ModuleDict({name: layers[name] for name in names})


def repeated(times):
    return nn.Sequential(*[nn.Linear(2, 2)] * times)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda: Holding(Scaler(1.0)), lambda: Holding(Scaler(2.0))),
        (lambda: Holding(Named({"a": 1}, 1.0)), lambda: Holding(Named({"a": 1}, 2.0))),
        (lambda: Holding(Named({"a": 1}, 1.0)), lambda: Holding(Named({"a": 2}, 1.0))),
        (lambda: nn.Sequential(Acts("relu")), lambda: nn.Sequential(Acts("tanh"))),
        *[
            (lambda name=name: with_attribute(name, 1.0), lambda name=name: with_attribute(name, 2.0))
            for name in ("Inner", "scaler", "scaled", "factor")
        ],
        *[
            (lambda register=register: hooked(register, 1.0), lambda register=register: hooked(register, 2.0))
            for register in ("register_forward_hook", "register_forward_pre_hook")
        ],
        (lambda: Holding(uses_a_module(1.0)), lambda: Holding(uses_a_module(2.0))),
        (lambda: Holding({"a": 1}.get), lambda: Holding({"a": 2}.get)),
        (lambda: Holding(functools.lru_cache(threshold(1))), lambda: Holding(functools.lru_cache(threshold(2)))),
        (lambda: Holding(np.ma.array([1.0], mask=[0])), lambda: Holding(np.ma.array([1.0], mask=[1]))),
        (lambda: Holding(torch.eye(2).to_sparse()), lambda: Holding(2 * torch.eye(2).to_sparse())),
        (lambda: Holding(torch.full((2,), 1j).conj()), lambda: Holding(torch.full((2,), 1j))),
        (lambda: in_order("linear", "relu"), lambda: in_order("relu", "linear")),
        (lambda: Holding({"blur": 1, "turn": 2}), lambda: Holding({"turn": 2, "blur": 1})),
        (lambda: repeated(2), lambda: repeated(3)),
    ],
    ids=[
        *("own object", "attribute of a mapping", "items of a mapping", "name of a layer"),
        *("class in a class", "object of a class", "partial method", "cached property", "hook", "hook before"),
        *("own module", "bound method", "cached function", "masked array", "sparse", "conjugate", "order of layers"),
        *("order of a mapping", "layer used again"),
    ],
)
def test_what_answers_depend_on_tells_models_apart(one, other):
    def made(thing):
        torch.manual_seed(0)
        return told(thing())

    assert made(one) == made(one)
    assert made(one) != made(other)


@pytest.mark.parametrize("using", [uses_an_object, uses_inside])
def test_globals_of_any_kind_count(monkeypatch, using):
    before = told(Holding(using()))
    assert told(Holding(using())) == before
    monkeypatch.setitem(globals(), "SCALER", Scaler(2.0))
    monkeypatch.setitem(globals(), "SCALE", 2.0)
    assert told(Holding(using())) != before


def test_hooks_on_all_modules_count():
    before = told(nn.ReLU())
    hook = nn.modules.module.register_module_forward_hook(lambda module, given, out: -out)
    try:
        assert told(nn.ReLU()) != before
    finally:
        hook.remove()
    assert told(nn.ReLU()) == before


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated")  # torch's own, while it is imported
def test_a_compiled_model_is_the_model():
    layer = nn.Sequential(nn.Linear(2, 2))
    assert told(torch.compile(layer)) == told(layer)


def test_functions_that_a_function_calls_count(monkeypatch):
    before = told(_helped)
    assert told(_helped) == before
    monkeypatch.setitem(globals(), "_helper", lambda x: x - 1)
    assert told(_helped) != before


def test_a_class_of_ones_own_counts_by_its_code():
    def made(source):
        held = {"__name__": "notebook", "nn": nn, "torch": torch}
        exec(source, held)
        return held["Net"]()

    source = (
        "class Net(nn.Module):\n    scale = 2.0\n    @property\n    def twice(self):\n        return 2\n"
        "    @staticmethod\n    def add(x):\n        return x + 1\n"
        "    def forward(self, x):\n        return super().forward(x)\n"
    )
    before = told(made(source))
    assert told(made(source)) == before
    for old, new in (("2.0", "3.0"), ("return 2\n", "return 3\n"), ("x + 1", "x - 1"), ("(x)\n", "(-x)\n")):
        assert told(made(source.replace(old, new))) != before, old


@pytest.mark.parametrize("thing", [threading.Lock, lambda: (i for i in range(3)), lambda: sys.stderr.buffer])
def test_what_cannot_be_read_is_refused_unless_the_caller_says_what_it_is(thing):
    holding = Holding({"session": [thing()]})
    with pytest.raises(ValueError, match=r"`thing\.session\.0` is .*: say which model it is \(identity="):
        told(holding)
    assert told(holding, identity="mine, version 1") == told(Holding(3), identity="mine, version 1")
    assert told(holding, identity="mine, version 1") != told(holding, identity="mine, version 2")
    assert model_identity(holding, strict=False)  # nothing is kept


def test_answers_to_probes_count_in_every_case():
    def asked(*answers):
        return lambda: iter([torch.tensor(answers)])

    holding = Holding(1)
    for options in ({}, {"identity": "mine"}):
        assert told(holding, probe=asked(0, 1), **options) == told(holding, probe=asked(0, 1), **options)
        assert told(holding, probe=asked(0, 1), **options) != told(holding, probe=asked(1, 1), **options)


def test_use_is_no_part_of_it():
    class Counting(Holding):
        def forward(self, x):
            self._calls += 1
            return x

    def told_when_asked(model):
        return told(model, probe=lambda: [model(torch.zeros(1, dtype=torch.int64))])

    model = Counting(3)
    before = told_when_asked(model)
    model(torch.zeros(1))
    model.train()
    assert told_when_asked(model) == before != told_when_asked(Counting(4))
    assert told_when_asked(Counting(3)) == before


def test_counters_beside_a_state_do_not_hide_it():
    neighbors = pytest.importorskip("sklearn.neighbors", reason="scikit-learn is not installed")
    x, y = np.random.default_rng(0).normal(size=(60, 4)), np.arange(60) % 2
    far = x[:2] * 0 + 100.0

    def told_of(k, stored=x):
        module = nn.Module()
        module.estimator = neighbors.KNeighborsClassifier(k, algorithm="kd_tree").fit(stored, y)  # counts its calls
        return model_identity(module, strict=True, probe=lambda: [module.estimator.predict(far) * 0])

    assert told_of(3) == told_of(3)
    assert told_of(3) != told_of(5)
    assert told_of(3) != told_of(3, x + 1e-9)


def test_a_tokenizer_is_the_same_after_use(tiny_clip):
    before = model_identity(tiny_clip, strict=True)
    tiny_clip.encode_text(["a red circle", "a blue square on the left of a green one"])
    assert model_identity(tiny_clip, strict=True) == before


def test_counters_inside_an_object_hide_nothing_beside_them():
    class Tree:
        def __init__(self, leaf):
            self.leaf, self.calls = leaf, 0

        def __call__(self):
            self.calls += 1

    def told_of(leaf):
        module = nn.Module()
        module.forest = [Tree(leaf)]
        return model_identity(module, strict=True, probe=lambda: [module.forest[0]()] and [torch.zeros(1)])

    assert told_of(1) == told_of(1) != told_of(2)


def test_an_object_may_hold_itself():
    loop: list[Any] = [1]
    loop.append(loop)
    assert told(Holding(loop)) == told(Holding(loop)) != told(Holding([1, [1]]))
    holding = Holding(1)
    object.__setattr__(holding, "itself", [holding])
    assert told(holding) != told(Holding(1))


def test_a_model_may_say_itself_which_it_is():
    def made(word):
        model = nn.Linear(2, 2)
        model.lock = threading.Lock()
        model.identity = word
        return model

    one, same, other = (model_identity(made(word), strict=True) for word in ("release 7", "release 7", "release 8"))
    assert one == same != other
    assert model_identity(made("release 7"), strict=True, identity="release 8") == other
