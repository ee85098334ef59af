"""Angles between the gradients of both losses against automatic differentiation, one student after the other."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lib.neural_collapse import LossMix, Students, gradient_angles

RUNS, COUNT, ROWS, CLASSES = 2, 3, 12, 4


def case() -> tuple[Students, Tensor, Tensor, Tensor]:
    source = torch.Generator().manual_seed(0)
    model = Students(RUNS, COUNT, (5, 8, 6), CLASSES, generator=source).double()
    with torch.no_grad():  # students of one run would be alike
        for value in model.parameters():
            value.add_(0.3 * torch.randn(value.shape, generator=source, dtype=torch.float64))
    pixels = torch.randn(RUNS, ROWS, 5, generator=source, dtype=torch.float64)
    labels = torch.randint(CLASSES, (RUNS, ROWS), generator=source)
    return model, pixels, labels, 2 * torch.randn(RUNS, COUNT, ROWS, CLASSES, generator=source, dtype=torch.float64)


def cosine(x: Tensor, y: Tensor) -> float:
    return float((x * y).sum() / (x.norm() * y.norm()))


@pytest.mark.parametrize("heat", [1.0, 2.0])
def test_angles_are_those_of_automatic_differentiation(heat: float) -> None:
    model, pixels, labels, teacher = case()
    got = gradient_angles(model, pixels, labels, teacher, heat)
    for r in range(RUNS):
        for s in range(COUNT):
            parts = [p.detach()[r, s].clone().requires_grad_() for p in model.parameters()]
            h = (pixels[r] @ parts[0] + parts[1]).relu()
            h = (h @ parts[2] + parts[3]).relu()
            o = h @ parts[4] + parts[5]
            p, q = torch.sigmoid(teacher[r, s] / heat), torch.sigmoid(o / heat)
            losses = (
                cross_entropy(o, labels[r]),
                heat**2 * (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum(-1).mean(),
            )
            slopes = [torch.autograd.grad(loss, [*parts, h], retain_graph=True) for loss in losses]
            ce, kl = slopes
            want = {
                "head": cosine(ce[4], kl[4]),
                "backbone": cosine(*(torch.cat([g.flatten() for g in x[:4]]) for x in slopes)),
                "features": cosine(ce[6], kl[6]),
                "per_sample": sum(cosine(a, b) for a, b in zip(ce[6], kl[6], strict=True)) / ROWS,
                "gap": sum(
                    float(row[y] - (row.sum() - row[y]) / (CLASSES - 1))
                    for row, y in zip(o.detach(), labels[r], strict=True)
                )
                / ROWS,
            }
            for name, value in want.items():
                assert getattr(got, name)[r, s].item() == pytest.approx(value, rel=1e-9, abs=1e-12), name
    assert {x.shape for x in vars(got).values()} == {(RUNS, COUNT)}
    assert not any(x.requires_grad for x in vars(got).values())


def test_they_are_measured_on_the_device_of_the_pixels(device: str) -> None:
    model, *tensors = case()
    pixels, labels, teacher = (x.to(device) for x in tensors)
    got = gradient_angles(model.to(device), pixels, labels, teacher)
    assert {x.device.type for x in vars(got).values()} == {device}
    want = gradient_angles(*case())
    for name, value in vars(got).items():
        torch.testing.assert_close(value.cpu(), getattr(want, name), rtol=1e-9, atol=1e-12)


def test_below_the_heads_binary_kl_arrives_through_the_heads_of_the_mix() -> None:
    source = torch.Generator().manual_seed(1)
    model = Students(RUNS, COUNT, (5, 6), CLASSES, generator=source, auxiliary=3).double()
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.3 * torch.randn(value.shape, generator=source, dtype=torch.float64))
    _, pixels, labels, teacher = case()
    none, first, last = (torch.tensor(x) for x in ((0.0, 0.0, 0.0), (0.0, 0.5, 0.0), (0.0, 0.0, 2.0)))
    got = gradient_angles(model, pixels, labels, teacher, mix=LossMix(none + 1, none, first, last))
    plain = gradient_angles(model, pixels, labels, teacher)
    torch.testing.assert_close(got.head, plain.head)
    for r in range(RUNS):
        for s, head in enumerate((model.main, model.linear, model.nonlinear)):
            w, b = model.backbone.parameters()
            h = model.features(pixels.unsqueeze(1))
            p, q = torch.sigmoid(teacher / 2), torch.sigmoid(head(h) / 2)
            kl = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log())[r, s].sum(-1).mean()
            ce = cross_entropy(model.logits(h)[r, s], labels[r])
            slopes = [torch.autograd.grad(x, (w, b), retain_graph=True) for x in (ce, kl)]
            want = cosine(*(torch.cat([g[r, s].flatten() for g in x]) for x in slopes))
            assert got.backbone[r, s].item() == pytest.approx(want, rel=1e-9)
            if s == 0:
                assert plain.backbone[r, s].item() == pytest.approx(want, rel=1e-9)


def test_a_mix_on_heads_that_are_missing_is_refused() -> None:
    zero, one = torch.zeros(COUNT), torch.ones(COUNT)
    with pytest.raises(ValueError, match="mix: got a weight on an auxiliary head"):
        gradient_angles(*case(), mix=LossMix(one, zero, one, zero))
