"""DRA beside SGA: the same where the loss is linear, another course where it bends, and never by accident the same."""

import torch

from crossguard.attacks import image_loss, make_attack
from crossguard.attacks.ascent import ascend, with_gradient
from crossguard.attacks.ball import LInfBall
from crossguard.attacks.views import mixed_gradient
from crossguard.threat import LInf, ThreatModel


def climb(loss, batch, *, mixed):
    gradient = with_gradient(loss)
    if mixed:
        gradient = mixed_gradient(gradient, loss, batch, draws=5, seed=0)
    ball = LInfBall(batch.pixels, 8 / 255)
    return ascend(gradient, loss, ball, steps=6, step_size=3 / 255, keep_best=False)


def test_mixes_change_nothing_where_the_loss_is_linear(toy_batch):
    """Why both leave the same recall of a model that is nearly linear within the budget."""
    weights = torch.randn(toy_batch.pixels.shape, generator=torch.Generator().manual_seed(0))

    def loss(pixels):
        return (weights * pixels).sum(dim=(1, 2, 3))

    assert torch.equal(climb(loss, toy_batch, mixed=True), climb(loss, toy_batch, mixed=False))


def test_mixes_change_the_course_where_the_loss_bends(toy_batch):
    """Past the summit, a mix that still lies before it gives the opposite sign."""
    offsets = torch.rand(toy_batch.pixels.shape, generator=torch.Generator().manual_seed(0)) - 0.5
    summit = toy_batch.pixels + 12 / 255 * offsets

    def loss(pixels):
        return -(pixels - summit).square().sum(dim=(1, 2, 3))

    changed = (climb(loss, toy_batch, mixed=True) != climb(loss, toy_batch, mixed=False)).flatten(1).any(dim=1)
    assert changed.all()


def test_dra_takes_another_course_than_sga_and_ends_about_as_high(tiny_clip, toy_batch):
    """Mixes are made for transfer: on the victim itself they cost a little of the loss, if anything."""
    loss = image_loss(tiny_clip, toy_batch, toy_batch.texts)
    threat = ThreatModel(image=LInf(8 / 255))
    rises = {"sga": torch.zeros(()), "dra": torch.zeros(())}
    pixels = {}
    for seed in range(2):
        for name in rises:
            attack = make_attack(name, steps=4, step=2 / 255, scales=(0.5,))
            pixels[name] = attack(tiny_clip, toy_batch, threat=threat, seed=seed).pixels
            with torch.no_grad():
                rises[name] = rises[name] + (loss(pixels[name]) - loss(toy_batch.pixels)).mean()
        assert (pixels["dra"] != pixels["sga"]).flatten(1).any(dim=1).all()
    assert rises["dra"] > 0.8 * rises["sga"] > 0
