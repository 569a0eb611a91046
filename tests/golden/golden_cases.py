"""Every task under every attack that applies to it, at tiny size: by name, what to call."""

from functools import partial

from golden_tasks import (
    captioning,
    class_certificate,
    envelope,
    grounding,
    pixel_certificate,
    retrieval,
    samples_task,
    zero_shot,
)

from crossguard.attacks import ATTACKS
from crossguard.attacks.goals import STRONGEST, objectives_of
from crossguard.threat import L2, Elements, LInf, Patch, ThreatModel, WordEdits

QUICK = {
    "pgd": {"steps": 2},
    "apgd": {"steps": 3},
    "auto-attack": {"steps": 3, "targets": 2, "queries": 10},
    "apgd-ce": {"steps": 3},
    "apgd-t": {"steps": 3, "targets": 2},
    "fab-t": {"steps": 3, "targets": 2},
    "square": {"queries": 20},
    "word-swap": {},
    "sep": {"steps": 2},
    "co-attack": {"steps": 2},
    "sga": {"steps": 2, "scales": (0.5,)},
    "dra": {"steps": 2, "scales": (0.5,), "draws": 1},
    "adaptive": {"steps": 5, "rounds": 1},
    "sparse": {"steps": 2, "trials": 1, "rounds": 1},
}
"""Options of the attacks. `saved` only looks up what another one found."""
COMPAT = ("word-swap", "sep", "co-attack", "sga")
CAPTION_ATTACKS = ("pgd", "apgd")


def _budget(name, eps, image=None):
    if image is None:
        image = Elements(2) if name == "sparse" else LInf(eps / 255)
    given = {"image": image, "text": WordEdits(1)}
    return ThreatModel(**{m: budget for m, budget in given.items() if m in ATTACKS[name].uses})


def cases(golden):
    """Return what to call for each case's rows.

    Args:
        golden: models and data.
    """
    found = {}
    asked = [(name, name, options) for name, options in QUICK.items()]
    asked += [(f"{name}, compat", name, QUICK[name] | {"compat": True}) for name in COMPAT]
    for title, name, options in asked:
        how = {"attack": name, "options": options, "threat": _budget(name, 16)}
        found[f"retrieval: {title}"] = lambda how=how: retrieval(golden.clip, golden.pairs, **how)
        if "compat" not in title:
            found[f"grounding: {title}"] = lambda how=how: grounding(golden.grounder, golden.expressions, **how)
    for name, image in (("pgd", L2(1.0)), ("pgd", Patch(6, 6)), ("pgd", Elements(2)), ("sparse", Patch(6, 6))):
        how = {"attack": name, "options": QUICK[name], "threat": _budget(name, 0, image)}
        found[f"retrieval: {name}, {type(image).__name__}"] = lambda how=how: retrieval(
            golden.clip, golden.pairs, **how
        )
    fusion = {"attack": "sga", "options": QUICK["sga"], "threat": _budget("sga", 16), "rerank": 2}
    found["retrieval: sga, ranked again by match"] = lambda: retrieval(golden.albef, golden.pairs, **fusion)
    for name in ("sga", "adaptive"):
        how = {"attack": name, "options": QUICK[name], "threat": _budget(name, 4)}
        found[f"emoji-clip: {name}"] = lambda how=how: retrieval(golden.emoji_clip, golden.emoji, **how)
    for name in CAPTION_ATTACKS:
        for objective in ("references", "own-caption"):
            how = {"attack": name, "options": QUICK[name], "threat": ThreatModel(image=LInf(32 / 255))}
            call = partial(captioning, objective=objective, **how)
            found[f"captioning: {name}, {objective}"] = lambda call=call: call(golden.captioner, golden.pairs)
    for name in _sample_attacks(masks=False):
        image = Elements(2) if name == "sparse" else LInf(16 / 255)
        how = {"attack": name, "options": QUICK[name], "threat": ThreatModel(image=image)}
        found[f"zero-shot: {name}"] = lambda how=how: zero_shot(golden.clip, golden.images, **how)
    found |= _of_samples(golden) | _certificates(golden)
    return found


def _sample_attacks(*, masks):
    return [name for name in QUICK if ATTACKS[name].samples and (ATTACKS[name].build.masks or not masks)]


def _of_samples(golden):
    found = {}
    for masks, kind, steps in (
        (False, "classification", {"left": 0.01, "right": 0.01}),
        (True, "segmentation", {"rgb": 1 / 255, "depth": 0.02}),
    ):
        asked = [(name, name, STRONGEST) for name in _sample_attacks(masks=masks)]
        asked += [(f"pgd, {objective}", "pgd", objective) for objective in objectives_of(STRONGEST, masks=masks)]
        for title, name, objective in asked:
            how = {"attack": name, "options": QUICK[name], "objective": objective, "steps": steps}
            how["threat"] = ThreatModel(**{m: Elements(1) if name == "sparse" else LInf(0.05) for m in steps})
            found[f"{kind}: {title}"] = lambda masks=masks, how=how: (
                samples_task(golden.scene_net, golden.scenes, **how)
                if masks
                else samples_task(golden.sensor_net, golden.sensors, **how)
            )
    return found


def _certificates(golden):
    keep, radii = {"left": 2, "right": 2}, [{"left": 0, "right": 0}, {"left": 1, "right": 1}]
    found = {}
    for title, options in {
        "random": {"draws": 60, "alpha": 0.05},
        "fixed": {"design": "fixed", "draws": 12},
        "product": {"design": "product"},
    }.items():
        found[f"certificate of labels: {title}"] = lambda options=options: class_certificate(
            golden.sensor_net, golden.sensors, keep=keep, **options
        )
    found["smoothed labels under attack"] = lambda: envelope(golden.sensor_net, golden.sensors, radii, keep=keep)
    keep_pixels, pixel_radii = {"rgb": 8, "depth": 8}, [{"rgb": 0, "depth": 0}, {"rgb": 1, "depth": 1}]
    found["certificate of pixels: random"] = lambda: pixel_certificate(
        golden.scene_net, golden.scenes, pixel_radii, keep=keep_pixels, draws=60, alpha=0.05
    )
    found["smoothed pixels under attack"] = lambda: envelope(
        golden.scene_net, golden.scenes, pixel_radii, keep=keep_pixels, segments=True
    )
    return found
