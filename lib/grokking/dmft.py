"""Dynamical mean-field theory: training with samples and dimension infinite at a fixed ratio, by Gaussian conditioning.

The state of a run is small: the coordinates of the hidden weights in a basis that grows by one direction for each unit
and step, the Gaussian coordinates of the samples in that basis, and the directions of sample space that were used.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lib.checks import ArrayLike, broadcast_batch, read_nonnegative, read_positive, read_size, require, shared_kind
from lib.grokking.lazy import stable_step_size
from lib.grokking.loss import overlap_parts
from lib.grokking.model import residual_of
from lib.grokking.setting import read_matrix, read_vector, warn_of_step
from lib.grokking.trajectory import Trajectory, warn_if_diverged
from lib.shapes import Real

PROPOSALS = 8  # of the rejection sampler for chi-square numbers: all are refused less than once in 1e10 draws


def dmft(
    overlap: Real[Tensor, "*#b N N"] | ArrayLike,
    alignment: Real[Tensor, "*#b N"] | ArrayLike,
    alpha: Real[Tensor, "*#b"] | ArrayLike,
    eps: Real[Tensor, "*#b"] | ArrayLike,
    psi: Real[Tensor, "*#b"] | ArrayLike,
    lr: Real[Tensor, "*#b"] | ArrayLike,
    steps: int,
    samples: int,
    generator: torch.Generator | None = None,
    centered: bool = True,
) -> Trajectory:
    r"""Losses and overlaps of full-batch training at $\psi=P/D$, without ever making an input or a weight.

    Each run has the law of `train` with $P$ = `samples` inputs in $D$ = `samples` / `psi` dimensions, and so tends to
    the limit $P,D\to\infty$ as `samples` grow. Time and memory do not depend on the dimension:
    about $\tfrac32SN^2T^2$ multiplications and $2SNT$ numbers for $S$ samples, $N$ units and $T$ steps.

    Args:
        overlap: $C_{ij}=w_i\cdot w_j/D$ at the start, shape ``(*b, N, N)``.
        alignment: $m_i=w_i\cdot\beta/D$ at the start, with $|\beta|^2=D$, shape ``(*b, N)``.
        alpha: output scale, above 0, shape ``(*b,)``; all leading axes broadcast to independent runs.
        eps: weight of the square in the activation, 0 or above, shape ``(*b,)``.
        psi: samples per dimension, above 0, shape ``(*b,)``.
        lr: step size in the units of `gd_step`, above 0, shape ``(*b,)``.
        steps: number of steps, 0 or above.
        samples: inputs of each run, `samples` / `psi` > 1 + N + N(steps + 1), at least 2(1 + N + N(steps + 1)).
        generator: source of randomness, on the device of the overlaps; a fixed seed of its own if none is given. On
            the CPU a batch draws what its runs would draw one after the other.
        centered: whether the initial function is subtracted from the network.

    Returns:
        `Trajectory` of shape ``(*b, steps + 1)``, ``(*b, steps + 1, N, N)`` and ``(*b, steps + 1, N)``, without
        gradients. A run that diverges returns what was computed and warns with the first step that is not finite.

    Raises:
        ValueError: dimensions that disagree, numbers out of range, too few samples for the steps, an overlap that is
            not positive definite after the target's direction is taken out.

    Source: own derivation, :prf:ref:`grokking-dmft`; the limit is that of the appendix of arXiv 2310.06110.

    >>> start = 0.9375 * torch.eye(2, dtype=torch.float64) + 0.0625
    >>> run = dmft(start, [0.25, 0.25], 1.0, 0.5, 3.0, 0.3, steps=40, samples=1500)
    >>> run.test.shape, bool(run.train[-1] < 0.5 * run.train[0])
    (torch.Size([41]), True)
    """
    read_size("steps", steps, 0)
    read_size("samples", samples, 2)
    like = shared_kind(overlap, alignment, alpha, eps, psi, lr)
    m = read_vector("alignment", alignment, like, "(*b, N)")
    units = m.shape[-1]
    c = read_matrix("overlap", overlap, like, f"(*b, {units}, {units}) as in alignment", units, units)
    scale, share = read_positive("alpha", alpha, like), read_nonnegative("eps", eps, like)
    ratio, rate = read_positive("psi", psi, like), read_positive("lr", lr, like)
    shapes = {"alpha": scale.shape, "eps": share.shape, "psi": ratio.shape, "lr": rate.shape}
    batch = broadcast_batch(overlap=c.shape[:-2], alignment=m.shape[:-1], **shapes)
    directions = 1 + units + units * (steps + 1)
    enough = torch.full((), float(samples), dtype=like.dtype, device=like.device)
    require("samples", enough >= 2 * directions, f"at least {2 * directions} for these steps and units", enough)
    wanted = f"samples / psi > {directions} for these steps and units"
    require("samples", enough / ratio > directions, wanted, enough / ratio)
    warn_of_step(rate, stable_step_size(ratio, share))
    skew = (c - c.mT).abs() <= 1e3 * torch.finfo(c.dtype).eps * c.abs().amax((-2, -1), keepdim=True)
    require("overlap", skew, "a symmetric matrix", c)
    rest, bad = torch.linalg.cholesky_ex(c - m.unsqueeze(-1) * m.unsqueeze(-2))
    require(
        "overlap", bad == 0, "overlap - alignment alignment^T positive definite", c.diagonal(dim1=-2, dim2=-1).amin(-1)
    )
    start = torch.cat([m.unsqueeze(-1).expand(*rest.shape[:-1], 1), rest], -1)
    runs = batch.numel()
    numbers = [x.detach().expand(batch).reshape(runs, 1, 1) for x in (scale, share, ratio, rate)]
    flat = start.detach().expand(*batch, units, units + 1).reshape(runs, units, units + 1)
    parts = _train(flat, numbers, steps, samples, generator, centered)
    result = Trajectory(*(part.reshape(*batch, *part.shape[1:]) for part in parts))
    warn_if_diverged(result.train, result.test)
    return result


def _train(
    a: Tensor, numbers: list[Tensor], steps: int, samples: int, generator: torch.Generator | None, centered: bool
) -> list[Tensor]:
    """The curves of all runs, (runs, steps + 1, ...); `a` holds coordinates in target and initial directions."""
    scale, share, ratio, rate = numbers
    (runs, units, known), first = a.shape, a
    size = known + units * steps
    xi, chance = _draw(a, size, samples, steps, generator)
    used = a.new_empty(runs, units * steps, samples)
    error = a.new_zeros(runs, units * steps, units * steps)  # what their Gram matrix has beside the identity
    rows = a.new_zeros(runs, 3 * units, samples)
    g, z, q = rows.split(units, 1)  # what samples ask of units, new Gaussian numbers, directions of the last step
    y, f0 = xi[:, :1].square() / 2, None
    curves: list[list[Tensor]] = [[], [], [], []]
    for t in range(steps + 1):
        h = a @ xi[:, :known]
        f = scale * (h.mean(1, keepdim=True) + share / 2 * h.square().mean(1, keepdim=True))
        f0 = f if f0 is None and centered else f0
        residual = residual_of(y, f, f0)
        now = _observe(a, first, scale, share, centered)
        for curve, value in zip(curves, (residual.square().mean((1, 2)), *now), strict=True):
            curve.append(value)
        if t == steps:
            break
        g.copy_(residual * (1 + share * h))
        z.copy_(xi[:, known : known + units])
        moved = g @ xi[:, :known].mT / samples  # what the known directions give: Stein's lemma
        length = g.norm(dim=-1, keepdim=True)
        _project(rows, used[:, : units * t], error[:, : units * t, : units * t])
        weights = _fresh_directions(g, length, q)
        used[:, units * t : units * (t + 1)] = q
        factor = _bartlett(chance[t], samples / ratio, known) / ratio.sqrt()
        # a Gaussian in what is left of sample space, and the memory of the past in what was used
        xi[:, known : known + units] = z + (factor.mT - z @ q.mT / samples) @ q
        a = torch.cat([a + rate / scale * moved, rate / scale * (weights.mT @ factor)], -1)
        known += units
    return [torch.stack(curve, 1) for curve in curves]


def _project(rows: Tensor, used: Tensor, error: Tensor) -> None:
    """Take the directions `used` out of the first two thirds of `rows`, in place; the last are the newest of them.

    Rounding leaves directions orthogonal up to `error` only. It is measured on the way, by the same pass over all
    directions that projects, and the next projection allows for it; a second pass is not needed.
    """
    known, samples = used.shape[1:]
    units = rows.shape[1] // 3
    seen = rows @ used.mT / samples
    if known:
        last = seen[:, 2 * units :]
        error[:, known - units :] = last
        error[:, :, known - units :] = last.mT
        error.diagonal(dim1=1, dim2=2).zero_()
    seen = seen[:, : 2 * units]
    rows[:, : 2 * units] -= (seen - (seen - seen @ error) @ error) @ used


def _fresh_directions(g: Tensor, length: Tensor, q: Tensor) -> Tensor:
    """Orthogonal directions of squared length S that span `g`, written to `q`, and their weights in `g` (runs, N, N).

    What is smaller than `length` by more than half of the digits is rounding: its direction is zero, so that it is
    neither learned nor remembered. Units that agree leave such rows. Spends `g`.
    """
    root, least = g.shape[-1] ** 0.5, torch.finfo(g.dtype).eps ** 0.5
    weights = []
    for j in range(g.shape[1]):
        row = g[:, j : j + 1]
        size = row.norm(dim=-1, keepdim=True)
        unit = torch.where(size > least * length[:, j : j + 1], row / size, 0.0)
        along = unit @ g.mT
        g -= along.mT @ unit
        q[:, j : j + 1] = root * unit
        weights.append(along / root)
    return torch.cat(weights, 1)


def _observe(a: Tensor, first: Tensor, scale: Tensor, share: Tensor, centered: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Test loss, overlap and alignment from coordinates."""
    overlap, alignment, start = a @ a.mT, a[..., 0], None
    if centered:
        start = (a[..., : first.shape[-1]] @ first.mT, first @ first.mT, first[..., 0])
    loss = overlap_parts(overlap, alignment, scale.flatten(), share.flatten(), 1.0, start)
    return loss.total, overlap, alignment


def _draw(
    like: Tensor, size: int, samples: int, steps: int, generator: torch.Generator | None
) -> tuple[Tensor, list[Tensor]]:
    """Standard Gaussian numbers, run by run: coordinates of the samples (runs, size, S), and a block for each step."""
    runs, units = like.shape[:2]
    block = units * (units + 2 * PROPOSALS)
    count = size * samples + steps * block
    source = torch.Generator(like.device).manual_seed(0) if generator is None else generator
    padded = -(-count // 16) * 16  # torch fills the CPU in blocks of 16
    noise = torch.randn(runs, padded, generator=source, dtype=like.dtype, device=source.device).to(like.device)
    blocks = noise[:, size * samples : count].unflatten(1, (steps, units, units + 2 * PROPOSALS)) if steps else noise
    return noise[:, : size * samples].unflatten(1, (size, samples)), [blocks[:, t] for t in range(steps)]


def _bartlett(chance: Tensor, dim: Tensor, known: int) -> Tensor:
    r"""Lower triangular factor of a Wishart matrix: N new columns seen in the D - n dimensions that are still free,
    divided by $\sqrt D$. The chi-square numbers come from Marsaglia and Tsang's rejection.
    """
    units = chance.shape[1]
    order = torch.arange(units, dtype=chance.dtype, device=chance.device)
    shift = (dim.squeeze(-1) - known - order).unsqueeze(-1) / 2 - 1 / 3
    normal, uniform = chance[..., units:].chunk(2, -1)
    cube = (1 + normal / (9 * shift).sqrt()).pow(3)
    log_cube = cube.clamp_min(torch.finfo(cube.dtype).tiny).log()
    fine = (cube > 0) & (torch.special.log_ndtr(uniform) < normal.square() / 2 + shift * (1 - cube + log_cube))
    chosen = cube.gather(-1, fine.to(torch.int64).argmax(-1, keepdim=True)).squeeze(-1)
    diagonal = (2 * shift.squeeze(-1) * chosen / dim.squeeze(-1)).sqrt()
    return torch.tril(chance[..., :units], -1) / dim.sqrt() + torch.diag_embed(diagonal)


__all__ = ["dmft"]
