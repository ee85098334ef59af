"""The losses and the gradients of single responses, written from their definitions in numpy and plain autograd."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

Numbers = dict[str, float]
DEFAULTS: Numbers = {
    "beta": 0.1,
    "gamma": 0.5,
    "lam": 1.0,
    "alpha": 0.01,
    "delta": 1.0,
    "z_ref": 0.0,
    "lam_w": 1.0,
    "lam_l": 1.0,
}


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def loss(name: str, u: float, v: float, **given: float) -> float:
    """One pair's loss, as the paper that introduced it writes it."""
    o = DEFAULTS | {"ref_w": 0.0, "ref_l": 0.0, "len_w": 1.0, "len_l": 1.0} | given
    a, b = u - o["ref_w"], v - o["ref_l"]
    beta, lam = o["beta"], o["lam"]
    mean_w, mean_l = u / o["len_w"], v / o["len_l"]
    if name == "dpo":
        return -math.log(sigmoid(beta * (a - b)))
    if name == "rdpo":
        return -math.log(sigmoid(beta * (a - b) + o["alpha"] * (o["len_w"] - o["len_l"])))
    if name == "simpo":
        return -math.log(sigmoid(beta * (mean_w - mean_l) - o["gamma"]))
    if name == "ipo":
        return (a - b - 1 / (2 * beta)) ** 2
    if name == "rrhf":
        return max(0.0, mean_l - mean_w) - lam * u
    if name == "slic":
        return max(0.0, o["delta"] - (u - v)) - lam * u
    if name == "cpo":
        return -math.log(sigmoid(beta * (u - v))) - lam * u
    if name == "orpo":
        p_w, p_l = math.exp(mean_w), math.exp(mean_l)
        odds = p_w / (1 - p_w) / (p_l / (1 - p_l))
        return -mean_w - lam * math.log(sigmoid(math.log(odds)))
    if name == "dpop":
        return -math.log(sigmoid(beta * (a - b - lam * max(0.0, -a))))
    if name == "kto":
        up, down = sigmoid(beta * (a - o["z_ref"])), sigmoid(beta * (o["z_ref"] - b))
        return o["lam_w"] * (1 - up) + o["lam_l"] * (1 - down)
    if name == "sppo":
        return (a - 1 / (2 * beta)) ** 2 + (b + 1 / (2 * beta)) ** 2
    raise AssertionError(name)


def margin(name: str, u: float, v: float, **given: float) -> float:
    """The margin that the library reports."""
    o = DEFAULTS | {"ref_w": 0.0, "ref_l": 0.0, "len_w": 1.0, "len_l": 1.0} | given
    a, b, beta = u - o["ref_w"], v - o["ref_l"], o["beta"]
    mean_w, mean_l = u / o["len_w"], v / o["len_l"]
    p_w, p_l = math.exp(min(mean_w, -1e-12)), math.exp(min(mean_l, -1e-12))
    return {
        "dpo": beta * (a - b),
        "rdpo": beta * (a - b) + o["alpha"] * (o["len_w"] - o["len_l"]),
        "simpo": beta * (mean_w - mean_l) - o["gamma"],
        "ipo": a - b,
        "rrhf": mean_w - mean_l,
        "slic": u - v,
        "cpo": beta * (u - v),
        "orpo": math.log(p_w / (1 - p_w)) - math.log(p_l / (1 - p_l)),
        "dpop": beta * (a - b - o["lam"] * max(0.0, -a)),
        "kto": o["lam_w"] * sigmoid(beta * (a - o["z_ref"])) + o["lam_l"] * sigmoid(beta * (o["z_ref"] - b)),
        "sppo": -((a - 1 / (2 * beta)) ** 2) - (b + 1 / (2 * beta)) ** 2,
    }[name]


def gradients(model: nn.Module, logp: Any, rows: Tensor) -> Tensor:
    """The gradient of every row's log-probability in all trainable parameters, one backward pass at a time."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    found = []
    for row in rows:
        parts = torch.autograd.grad(logp(model, row.unsqueeze(0)).sum(), parameters, allow_unused=True)
        filled = [torch.zeros_like(p) if g is None else g for g, p in zip(parts, parameters, strict=True)]
        found.append(torch.cat([g.flatten() for g in filled]))
    return torch.stack(found)
