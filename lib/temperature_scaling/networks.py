"""Many small networks of one shape, trained at once: a seed or a setting each, one batched product for all."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from lib.checks import ArrayLike, as_float, indicator, require_shape
from lib.shapes import Float, Int, Real
from lib.temperature_scaling.setting import read_classes

Batch = tuple[Tensor, Tensor]  # inputs (networks, rows, d) and soft targets (networks, rows, k)


class Networks(nn.Module):
    """Fully connected networks with rectified units, `networks` of them side by side.

    Args:
        networks: how many.
        widths: sizes of all layers, inputs first, classes last.
        generator: source of randomness for the first weights, on the CPU.

    Raises:
        ValueError: no network, or fewer than two sizes.

    >>> nets = Networks(3, (4, 8, 2), generator=torch.Generator().manual_seed(0))
    >>> nets(torch.zeros(3, 5, 4)).shape
    torch.Size([3, 5, 2])
    """

    def __init__(self, networks: int, widths: Sequence[int], *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        if networks < 1 or len(widths) < 2 or min(widths) < 1:
            raise ValueError(f"networks and widths: got {networks} and {tuple(widths)}, want 1 or more, and two sizes")
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for fan_in, fan_out in pairwise(widths):
            edge = 1 / math.sqrt(fan_in)
            draw = torch.rand(networks, fan_in + 1, fan_out, generator=generator) * 2 * edge - edge
            self.weights.append(draw[:, :-1].clone())
            self.biases.append(draw[:, -1:].clone())

    def forward(
        self, inputs: Float[Tensor, "networks rows d"], which: slice | None = None
    ) -> Float[Tensor, "networks rows k"]:
        """Logits of every network on its own rows, or of those in the slice `which` only."""
        some = slice(None) if which is None else which
        hidden = inputs
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = torch.baddbmm(bias[some], hidden.relu() if layer else hidden, weight[some])
        return hidden


def train_networks(
    networks: Networks,
    inputs: Real[Tensor, "networks n d"] | ArrayLike,
    labels: Int[Tensor, "networks n"] | ArrayLike,
    *,
    epochs: int,
    batch_size: int = 500,
    lr: float = 1e-3,
    points: Sequence[int] | int = 1,
    generator: torch.Generator | None = None,
    after_epoch: Callable[[int], None] | None = None,
) -> Float[Tensor, " networks"]:
    r"""Train every network on its own data by Adam, on plain points or on mixtures of several.

    A network with `points` = 1 minimises the mean cross-entropy of its labels (empirical risk minimisation, ERM). With
    two points it trains on Mixup, with more on d-Mixup: each row is a convex combination of so many rows of the batch,
    with weights from the uniform law on the simplex, drawn anew for every row.

    Args:
        networks: changed in place.
        inputs: data of each network, shape (networks, n, d); becomes float32.
        labels: classes, shape (networks, n).
        epochs: passes over the data.
        batch_size: rows of a step; a rest below that size sits out one pass.
        lr: step size of Adam, which falls to zero along a cosine.
        points: points that are mixed, a number or one for each network.
        generator: source of randomness, on the CPU.
        after_epoch: called with the number of finished passes.

    Returns:
        Mean training loss of the last pass, in nats, shape (networks,).

    Raises:
        ValueError: shapes that do not fit, labels outside the classes, sizes below 1.

    Source: Zhang, Cisse, Dauphin and Lopez-Paz (ICLR 2018), arXiv 1710.09412, for the mixtures.

    >>> generator = torch.Generator().manual_seed(0)
    >>> nets = Networks(2, (1, 8, 2), generator=generator)
    >>> x = torch.linspace(-1, 1, 40).reshape(1, 40, 1).expand(2, 40, 1)
    >>> loss = train_networks(nets, x, (x[..., 0] > 0).long(), epochs=200, batch_size=20, lr=0.05, generator=generator)
    >>> bool((loss < 0.1).all())
    True
    """
    x = as_float("inputs", inputs).float()
    count = len(networks.weights[0])
    require_shape("inputs", x, x.ndim == 3 and len(x) == count, f"({count}, n, d)")
    classes = networks.weights[-1].shape[-1]
    truth = read_classes("labels", labels, classes, x.shape[1], x)
    require_shape("labels", truth, truth.shape == x.shape[:2], f"({count}, {x.shape[1]})")
    y = indicator(truth, classes, x)
    rows = min(batch_size, x.shape[1])
    if min(epochs, batch_size) < 1:
        raise ValueError(f"epochs and batch_size: got {epochs} and {batch_size}, want 1 or more of each")
    mixing = torch.as_tensor([points] * count if isinstance(points, int) else [*points])
    if len(mixing) != count or int(mixing.min()) < 1:
        raise ValueError(f"points: got {points}, want a whole number >= 1, or one for each of {count} networks")
    steps = x.shape[1] // rows
    flat = tuple(v.flatten(0, 1) for v in (x, y))  # a row of it is copied in one piece
    first = x.shape[1] * torch.arange(count, device=x.device)[:, None]  # where the rows of each network begin
    optimiser = torch.optim.Adam(networks.parameters(), lr=lr, fused=x.device.type == "cpu")
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * steps)
    loss = torch.zeros(count, device=x.device)
    for epoch in range(epochs):
        loss = torch.zeros(count, device=x.device)
        order = torch.rand(count, x.shape[1], generator=generator).argsort(-1).to(x.device)
        for part in order.split(rows, -1)[:steps]:
            drawn = (part + first).flatten()
            batch = tuple(v.index_select(0, drawn).unflatten(0, part.shape) for v in flat)
            mixed, target = mix(batch, mixing, generator)
            optimiser.zero_grad()
            each = -(target * networks(mixed).log_softmax(-1)).sum(-1).mean(-1)
            each.sum().backward()
            optimiser.step()
            schedule.step()
            loss += each.detach() / steps
        if after_epoch is not None:
            after_epoch(epoch + 1)
    return loss


def mix(batch: Sequence[Tensor], points: Tensor, generator: torch.Generator | None) -> Batch:
    """Rows of a batch mixed within each network: `points` of them, with uniform weights on the simplex."""
    x, y = batch
    most = int(points.max())
    if most == 1:
        return x, y
    count, rows = x.shape[:2]
    weight = -torch.rand(count, most, rows, generator=generator).clamp_min(1e-30).log()
    weight = weight * (torch.arange(most)[None, :, None] < points[:, None, None])
    weight = (weight / weight.sum(1, keepdim=True)).to(x.device)
    mixed, target = weight[:, 0, :, None] * x, weight[:, 0, :, None] * y
    for extra in range(1, most):
        partner = torch.randperm(rows, generator=generator).to(x.device)
        some = (points > extra).nonzero().squeeze(-1).to(x.device)  # the others have no weight left
        drawn = (rows * some[:, None] + partner).flatten()
        for total, v in ((mixed, x), (target, y)):
            part = v.flatten(0, 1).index_select(0, drawn).unflatten(0, (-1, rows))
            total.index_add_(0, some, part.mul_(weight[some, extra, :, None]))
    return mixed, target
