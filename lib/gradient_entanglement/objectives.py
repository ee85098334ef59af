"""The objectives of margin-based alignment: their losses, and how hard each pushes its two responses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

from lib.checks import ArrayLike, as_float, broadcast_batch, read_finite, require, require_positive
from lib.shapes import Float, Real


@dataclass(frozen=True)
class MarginObjective:
    r"""`loss` of each pair, its `margin`, and minus and plus the derivatives of the loss, `d_w` and `d_l`."""

    loss: Float[Tensor, "*batch"]
    margin: Float[Tensor, "*batch"]
    d_w: Float[Tensor, "*batch"]
    d_l: Float[Tensor, "*batch"]


class _Pair(NamedTuple):
    """Everything a loss may ask for: log-probabilities, log-ratios, lengths and hyperparameters."""

    u: Tensor
    v: Tensor
    a: Tensor
    b: Tensor
    len_w: Tensor
    len_l: Tensor
    beta: Tensor
    gamma: Tensor
    lam: Tensor
    alpha: Tensor
    delta: Tensor
    z_ref: Tensor
    lam_w: Tensor
    lam_l: Tensor


_Parts = tuple[Tensor, Tensor, Tensor, Tensor]  # loss, margin, d_w, d_l


def _logistic(x: Tensor, slope_w: Tensor, slope_l: Tensor) -> _Parts:
    """Loss -log sigmoid(x) of an argument with the given slopes in both log-probabilities."""
    rest = torch.sigmoid(-x)
    return softplus(-x), x, rest * slope_w, rest * slope_l


def _dpo(p: _Pair) -> _Parts:
    return _logistic(p.beta * (p.a - p.b), p.beta, p.beta)


def _rdpo(p: _Pair) -> _Parts:
    return _logistic(p.beta * (p.a - p.b) + p.alpha * (p.len_w - p.len_l), p.beta, p.beta)


def _simpo(p: _Pair) -> _Parts:
    x = p.beta * (p.u / p.len_w - p.v / p.len_l) - p.gamma
    return _logistic(x, p.beta / p.len_w, p.beta / p.len_l)


def _ipo(p: _Pair) -> _Parts:
    margin = p.a - p.b
    x = margin - 1 / (2 * p.beta)
    return x.square(), margin, -2 * x, -2 * x


def _rrhf(p: _Pair) -> _Parts:
    x = p.u / p.len_w - p.v / p.len_l
    active = (x < 0).to(x)
    return torch.relu(-x) - p.lam * p.u, x, active / p.len_w + p.lam, active / p.len_l


def _slic(p: _Pair) -> _Parts:
    x = p.u - p.v
    active = (x < p.delta).to(x)
    return torch.relu(p.delta - x) - p.lam * p.u, x, active + p.lam, active


def _cpo(p: _Pair) -> _Parts:
    loss, x, d_w, d_l = _logistic(p.beta * (p.u - p.v), p.beta, p.beta)
    return loss - p.lam * p.u, x, d_w + p.lam, d_l


def _orpo(p: _Pair) -> _Parts:
    mean_w, mean_l = p.u / p.len_w, p.v / p.len_l
    miss_w, miss_l = -torch.expm1(mean_w), -torch.expm1(mean_l)  # 1 - p without cancellation
    x = (mean_w - miss_w.log()) - (mean_l - miss_l.log())
    rest = p.lam * torch.sigmoid(-x)
    loss = -mean_w + p.lam * softplus(-x)
    return loss, x, (1 + rest / miss_w) / p.len_w, rest / (miss_l * p.len_l)


def _dpop(p: _Pair) -> _Parts:
    x = p.beta * (p.a - p.b - p.lam * torch.relu(-p.a))
    return _logistic(x, p.beta * (1 + p.lam * (p.a < 0).to(x)), p.beta)


def _kto(p: _Pair) -> _Parts:
    good, bad = p.beta * (p.a - p.z_ref), p.beta * (p.z_ref - p.b)
    value_w, value_l = p.lam_w * torch.sigmoid(good), p.lam_l * torch.sigmoid(bad)
    loss = p.lam_w * torch.sigmoid(-good) + p.lam_l * torch.sigmoid(-bad)
    return loss, value_w + value_l, p.beta * value_w * torch.sigmoid(-good), p.beta * value_l * torch.sigmoid(-bad)


def _sppo(p: _Pair) -> _Parts:
    up, down = p.a - 1 / (2 * p.beta), p.b + 1 / (2 * p.beta)
    loss = up.square() + down.square()
    return loss, -loss, -2 * up, 2 * down


_LOSSES: dict[str, Callable[[_Pair], _Parts]] = {
    "dpo": _dpo,
    "rdpo": _rdpo,
    "simpo": _simpo,
    "ipo": _ipo,
    "rrhf": _rrhf,
    "slic": _slic,
    "cpo": _cpo,
    "orpo": _orpo,
    "dpop": _dpop,
    "kto": _kto,
    "sppo": _sppo,
}
OBJECTIVES: tuple[str, ...] = tuple(_LOSSES)
NEEDS_REFERENCE = frozenset({"dpo", "rdpo", "ipo", "dpop", "kto", "sppo"})
NEEDS_LENGTHS = frozenset({"rdpo", "simpo", "rrhf", "orpo"})


def margin_objective(
    name: str,
    logp_w: Real[Tensor, "*#batch"] | ArrayLike,
    logp_l: Real[Tensor, "*#batch"] | ArrayLike,
    *,
    ref_w: Real[Tensor, "*#batch"] | ArrayLike | None = None,
    ref_l: Real[Tensor, "*#batch"] | ArrayLike | None = None,
    len_w: Real[Tensor, "*#batch"] | ArrayLike | None = None,
    len_l: Real[Tensor, "*#batch"] | ArrayLike | None = None,
    beta: Real[Tensor, "*#batch"] | ArrayLike = 0.1,
    gamma: Real[Tensor, "*#batch"] | ArrayLike = 0.5,
    lam: Real[Tensor, "*#batch"] | ArrayLike = 1.0,
    alpha: Real[Tensor, "*#batch"] | ArrayLike = 0.01,
    delta: Real[Tensor, "*#batch"] | ArrayLike = 1.0,
    z_ref: Real[Tensor, "*#batch"] | ArrayLike = 0.0,
    lam_w: Real[Tensor, "*#batch"] | ArrayLike = 1.0,
    lam_l: Real[Tensor, "*#batch"] | ArrayLike = 1.0,
) -> MarginObjective:
    r"""Loss of each preference pair under a named objective, and the weights with which it pushes both responses.

    Every objective has the form $-\big(m(h_w(\ell_w)-h_l(\ell_l))+\Lambda(\ell_w)\big)$ with the summed
    log-probabilities $\ell_w,\ell_l$ of the chosen and the rejected response; $d_w=m'h_w'+\Lambda'$ and
    $d_l=m'h_l'$. With $a=\ell_w-\ell_w^{ref}$, $b=\ell_l-\ell_l^{ref}$, lengths $|w|,|l|$ and $x$ the
    argument of $\log\sigma$:

    - `dpo`: $-\log\sigma(x)$, $x=\beta(a-b)$; `rdpo` adds $\alpha(|w|-|l|)$ to $x$;
    - `simpo`: $-\log\sigma(x)$, $x=\beta(\ell_w/|w|-\ell_l/|l|)-\gamma$;
    - `ipo`: $(a-b-\frac1{2\beta})^2$;
    - `rrhf`: $\max(0,-x)-\lambda\ell_w$, $x=\ell_w/|w|-\ell_l/|l|$; `slic`: $\max(0,\delta-x)-\lambda\ell_w$,
      $x=\ell_w-\ell_l$;
    - `cpo`: $-\log\sigma(\beta(\ell_w-\ell_l))-\lambda\ell_w$;
    - `orpo`: $-\ell_w/|w|-\lambda\log\sigma(x)$, $x$ the log odds ratio of $e^{\ell_w/|w|}$ and $e^{\ell_l/|l|}$;
    - `dpop`: $-\log\sigma(x)$, $x=\beta(a-b-\lambda\max(0,-a))$;
    - `kto`: $\lambda_w\sigma(\beta(z-a))+\lambda_l\sigma(\beta(b-z))$;
    - `sppo`: $(a-\frac1{2\beta})^2+(b+\frac1{2\beta})^2$.

    Args:
        name: one of `OBJECTIVES`.
        logp_w: $\ell_w$ in nats; all arguments broadcast to (*batch,).
        logp_l: $\ell_l$ in nats.
        ref_w: log-probability of the chosen response under the reference model, for dpo, rdpo, ipo, dpop, kto, sppo.
        ref_l: the same of the rejected response.
        len_w: tokens of the chosen response, for rdpo, simpo, rrhf, orpo.
        len_l: tokens of the rejected response.
        beta: temperature, above 0.
        gamma: target margin of simpo.
        lam: weight of the likelihood term (rrhf, slic, cpo), of the odds ratio (orpo) or of the penalty (dpop), >= 0.
        alpha: weight of the length difference in rdpo.
        delta: margin of slic.
        z_ref: reference point of kto, in nats; it counts as a constant.
        lam_w: weight of chosen responses in kto, >= 0.
        lam_l: weight of rejected responses in kto, >= 0.

    Returns:
        All of shape (*batch,), not averaged. `margin` is $x$ as above, $a-b$ for ipo, $h_w-h_l$ for kto and sppo. At
        the kink of a hinge the weights are those of its flat side.

    Raises:
        ValueError: an unknown name, a reference or lengths that the objective needs and did not get, beta not
            positive, a negative lam, a length below 1, a log-probability that is not finite (not negative for orpo),
            shapes that do not broadcast.

    Source: Yuan, Zeng, Wu, Wang, Wang and Leqi (ICLR 2025), arXiv 2410.13828, for the general form; each loss from the
    paper that introduced it.

    >>> margin_objective("dpo", -10.0, -12.0, ref_w=-11.0, ref_l=-11.0, beta=0.5)
    MarginObjective(loss=tensor(0.3133, dtype=torch.float64), margin=tensor(1., dtype=torch.float64),
                    d_w=tensor(0.1345, dtype=torch.float64), d_l=tensor(0.1345, dtype=torch.float64))
    """
    if name not in _LOSSES:
        raise ValueError(f"name: got {name!r}, want one of {', '.join(OBJECTIVES)}")
    u = read_finite("logp_w", logp_w)
    v = read_finite("logp_l", logp_l, like=u)
    if name == "orpo":
        for label, x in (("logp_w", u), ("logp_l", v)):
            require(label, x < 0, "a log-probability < 0", x)
    zero, one = torch.zeros_like(u), torch.ones_like(u)
    reference, lengths = [zero, zero], [one, one]
    if name in NEEDS_REFERENCE:
        for i, (label, given) in enumerate((("ref_w", ref_w), ("ref_l", ref_l))):
            if given is None:
                raise ValueError(f"{label}: got none, want the reference log-probability, which {name} needs")
            reference[i] = read_finite(label, given, like=u)
    if name in NEEDS_LENGTHS:
        for i, (label, given) in enumerate((("len_w", len_w), ("len_l", len_l))):
            if given is None:
                raise ValueError(f"{label}: got none, want the number of tokens, which {name} needs")
            lengths[i] = as_float(label, given, like=u)
            require(label, (lengths[i] >= 1) & lengths[i].isfinite(), "a finite number >= 1", lengths[i])
    temperature = as_float("beta", beta, like=u)
    require_positive("beta", temperature)
    weights = {"lam": lam, "lam_w": lam_w, "lam_l": lam_l}
    penalties = [as_float(label, x, like=u) for label, x in weights.items()]
    for label, x in zip(weights, penalties, strict=True):
        require(label, (x >= 0) & x.isfinite(), "a finite number >= 0", x)
    shifts = {"gamma": gamma, "alpha": alpha, "delta": delta, "z_ref": z_ref}
    g, al, de, z = (read_finite(label, x, like=u) for label, x in shifts.items())
    broadcast_batch(
        logp_w=u.shape,
        logp_l=v.shape,
        ref_w=reference[0].shape,
        ref_l=reference[1].shape,
        len_w=lengths[0].shape,
        len_l=lengths[1].shape,
        beta=temperature.shape,
        **{label: x.shape for label, x in zip((*weights, *shifts), (*penalties, g, al, de, z), strict=True)},
    )
    pair = _Pair(
        u=u,
        v=v,
        a=u - reference[0],
        b=v - reference[1],
        len_w=lengths[0],
        len_l=lengths[1],
        beta=temperature,
        gamma=g,
        lam=penalties[0],
        alpha=al,
        delta=de,
        z_ref=z,
        lam_w=penalties[1],
        lam_l=penalties[2],
    )
    parts = _LOSSES[name](pair)
    batch = torch.broadcast_shapes(v.shape, *(x.shape for x in parts))
    return MarginObjective(*(x.expand(batch) for x in parts))
