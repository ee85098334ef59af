r"""A few hundred weighted modes that stand for a million.

Whatever the theory sums over modes is a function of $\log\lambda_i-\log\Gamma$ that is analytic in the strip
$|\mathrm{Im}|<\pi$. A polynomial through a few Chebyshev nodes of a short cell of $\log\lambda$ reproduces such a
function to rounding error, so the modes of one cell may be replaced by its nodes, weighted by their moments.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lib.rf_regression.modes import Modes, sorted_modes

CELL = 3.0  # length of a cell in log(eigenvalue)
NODES = 24  # a cell's half length 1.5 against the strip's pi: the error falls by 4.4 a node, 4e-16 with 24
FEWEST = 1000  # shorter spectra are not worth the effort
CHUNK = 1 << 15  # modes at a time, so that their polynomials stay in the processor's cache
LANES = 8  # sums side by side in each cell: one alone would wait for its own last addition


def weighted_modes(spectrum: Tensor, power: Tensor | None = None) -> Modes:
    """The modes to sum over: compressed where that pays and costs neither a gradient nor a host synchronisation.

    Args:
        spectrum: eigenvalues in any order, shape (*batch, M).
        power: squared target coefficients, shape (*batch, M); zero if not given.
    """
    with_gradient = spectrum.requires_grad and torch.is_grad_enabled()
    if spectrum.device.type == "cpu" and spectrum.shape[-1] >= FEWEST and not with_gradient:
        cells = _cell_count(spectrum)
        if 0 < 2 * cells * NODES < spectrum.shape[-1]:
            return compressed_modes(spectrum, power, cells)
    return sorted_modes(spectrum, torch.zeros_like(spectrum) if power is None else power)


def _cell_count(spectrum: Tensor) -> int:
    """Cells between the largest and the smallest positive eigenvalue; 0 where reading them is not possible."""
    positive = spectrum.detach() > 0
    level = spectrum.detach().double().log()
    smallest = torch.where(positive, level, torch.full_like(level, torch.inf)).amin(-1)
    widest = ((level.amax(-1) - smallest) / CELL).amax()
    try:
        return math.floor(float(widest)) + 1
    except RuntimeError:  # inside torch.func.vmap
        return 0


def compressed_modes(spectrum: Tensor, power: Tensor | None, cells: int) -> Modes:
    r"""`cells` cells of length 3 in $\log\lambda$, counted from the largest eigenvalue, with 24 Chebyshev nodes each.

    In a cell with modes at $t_i\in[-1,1]$ node $t_j$ gets the weight $\sum_i\ell_j(t_i)$ and the power
    $\sum_iv_i^2\ell_j(t_i)$, where $\ell_j(t)=\frac1p\sum_{k<p}(2-[k=0])T_k(t_j)T_k(t)$ is its Lagrange polynomial.

    Args:
        spectrum: eigenvalues in any order on the CPU, shape (*batch, M).
        power: squared target coefficients, shape (*batch, M); zero if not given.
        cells: enough of them to reach the smallest positive eigenvalue of every row.
    """
    if power is not None and power.ndim > 1:  # one power a row needs the cells of each row
        spectrum = spectrum.expand(torch.broadcast_shapes(spectrum.shape, power.shape))
    rows = spectrum.shape[:-1]
    level = spectrum.double().log()
    top = level.amax(-1, keepdim=True)
    depth = (top - level) / CELL
    seen = spectrum > 0
    cell = depth.floor().clamp(0, cells - 1).long()
    place = 2 * (cell.double() + 0.5 - depth)  # in [-1, 1], rising with the eigenvalue
    place = torch.where(seen, place, torch.zeros_like(place))
    first = torch.arange(rows.numel()).reshape(*rows, 1) * cells
    flat, place, seen_flat = (cell + first).flatten(), place.flatten(), seen.double().flatten()

    angle = (torch.arange(NODES, dtype=torch.float64) + 0.5) * (math.pi / NODES)
    degree = torch.arange(NODES, dtype=torch.float64).unsqueeze(-1)
    lagrange = (degree * angle).cos() * torch.where(degree > 0, 2.0, 1.0) / NODES  # (degree, node), nodes fall
    shape = (*rows, cells, NODES)
    moments = _chebyshev_moments(place, flat, seen_flat, rows.numel() * cells)
    weight, count = (moments @ lagrange).reshape(shape), moments.select(-1, 0).reshape(*rows, cells)
    if power is None:
        node_power, unseen_power = torch.zeros_like(weight), torch.zeros_like(top.squeeze(-1))
    else:
        coefficients = power.expand(spectrum.shape).double()
        unseen_power = torch.where(seen, torch.zeros_like(coefficients), coefficients).sum(-1)
        moments = _chebyshev_moments(place, flat, (coefficients * seen).flatten(), rows.numel() * cells)
        node_power = (moments @ lagrange).reshape(shape)

    def along_nodes(x: Tensor) -> Tensor:
        return x.unsqueeze(-1).expand(shape).flatten(-2).to(spectrum)

    centre = top - CELL * (torch.arange(cells, dtype=torch.float64) + 0.5)
    node_level = (centre.unsqueeze(-1) + CELL / 2 * angle.cos()).flatten(-2)
    return Modes(
        eigenvalues=node_level.exp().to(spectrum),
        log_eigenvalues=node_level.to(spectrum),
        weight=weight.flatten(-2).to(spectrum),
        power=node_power.flatten(-2).to(spectrum),
        before=along_nodes(count.cumsum(-1) - count),
        group=along_nodes(count),
        floor=along_nodes(centre - CELL / 2),
        unseen_power=unseen_power.to(spectrum),
        rank=count.sum(-1).to(spectrum),
        log_trace=level.logsumexp(-1).to(spectrum),
    )


def _chebyshev_moments(place: Tensor, cell: Tensor, values: Tensor, cells: int) -> Tensor:
    """Sum of values * T_k(place) over the modes of each cell, for all k < NODES, shape `(cells, NODES)`."""
    total = [torch.zeros(cells * LANES, dtype=torch.float64) for _ in range(NODES)]
    for start in range(0, place.shape[0], CHUNK):
        length = min(CHUNK, place.shape[0] - start)
        t, v = place.narrow(0, start, length), values.narrow(0, start, length)
        where = cell.narrow(0, start, length) * LANES + torch.arange(length) % LANES
        twice, polynomial, following = 2 * t, v.clone(), v * t
        for k in range(NODES):
            total[k] = total[k].scatter_add(0, where, polynomial)
            polynomial, following = following, polynomial.neg_().addcmul_(twice, following)
    return torch.stack(total, -1).reshape(cells, LANES, NODES).sum(1)
