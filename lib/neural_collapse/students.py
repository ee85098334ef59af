"""Many small networks trained at once: one batched module holds every run and every mixture of losses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from lib.checks import indicator
from lib.neural_collapse.losses import sigmoid_difference
from lib.shapes import Float, Int


@dataclass(frozen=True)
class LossMix:
    """Weights of the losses of each student, shape (S,): cross-entropy and binary KL on the main head, binary KL on the
    linear and on the nonlinear auxiliary head.
    """

    ce: Float[Tensor, " S"]
    main: Float[Tensor, " S"]
    linear: Float[Tensor, " S"]
    nonlinear: Float[Tensor, " S"]


class Students(nn.Module):
    """R runs times S students of equal shape: ReLU layers, a main head, and two auxiliary heads on the same features.

    Every parameter has the leading axes (R, S). Students of one run start alike.

    Args:
        runs: R, independent starts.
        students: S, mixtures of losses.
        sizes: inputs and widths of the hidden layers; the last is d, the number of features.
        num_classes: C.
        generator: source of the start, on the CPU.
        auxiliary: hidden units of the nonlinear auxiliary head; 0 for no auxiliary heads.
    """

    def __init__(
        self,
        runs: int,
        students: int,
        sizes: tuple[int, ...],
        num_classes: int,
        *,
        generator: torch.Generator,
        auxiliary: int = 0,
    ) -> None:
        super().__init__()

        def layer(inputs: int, outputs: int) -> Affine:
            return Affine(runs, students, inputs, outputs, generator)

        self.backbone = nn.Sequential(*[m for pair in pairwise(sizes) for m in (layer(*pair), nn.ReLU())])
        self.main = layer(sizes[-1], num_classes)
        self.linear = layer(sizes[-1], num_classes) if auxiliary else nn.Identity()
        inner = [layer(sizes[-1], auxiliary), nn.ReLU(), layer(auxiliary, num_classes)] if auxiliary else []
        self.nonlinear = nn.Sequential(*inner)
        self.auxiliary = auxiliary

    def features(self, pixels: Float[Tensor, "R 1 n p"]) -> Float[Tensor, "R S n d"]:
        """Outputs of the last hidden layer."""
        h: Tensor = self.backbone(pixels)
        return h

    def logits(self, features: Float[Tensor, "R S n d"]) -> Float[Tensor, "R S n C"]:
        """Logits of the main head."""
        o: Tensor = self.main(features)
        return o


class Affine(nn.Module):
    """A linear layer of every student: `weight` (R, S, inputs, outputs) and `bias` (R, S, 1, outputs)."""

    def __init__(self, runs: int, students: int, inputs: int, outputs: int, generator: torch.Generator) -> None:
        super().__init__()
        reach = inputs**-0.5
        start = torch.rand(runs, 1, inputs + 1, outputs, generator=generator) * 2 * reach - reach
        start = start.repeat(1, students, 1, 1)
        self.weight, self.bias = nn.Parameter(start[:, :, :-1].clone()), nn.Parameter(start[:, :, -1:].clone())

    def forward(self, x: Tensor) -> Tensor:
        """Every student's own affine map."""
        return x @ self.weight + self.bias


def train_students(
    model: Students,
    pixels: Float[Tensor, "R n p"],
    labels: Int[Tensor, "R n"],
    mix: LossMix,
    teacher: Float[Tensor, "R S n C"] | None = None,
    *,
    generator: torch.Generator,
    temperature: float = 2.0,
    epochs: int = 40,
    batch: int = 64,
    lr: float = 0.05,
    watch: Callable[[Students], Any] | None = None,
    every: int = 1,
) -> list[Any]:
    r"""Train all students together by SGD with momentum, each on its own mixture of losses.

    Momentum 0.9, weight decay 5e-4 on everything, learning rate divided by ten after 60 % and 80 % of the epochs. The
    students of one run see the same batches in the same order, so that their differences can be paired.

    Args:
        model: trained in place, on the device of the pixels.
        pixels: inputs of each run, shape (R, n, p).
        labels: class of each input, shape (R, n).
        mix: which losses each student descends.
        teacher: logits of the teachers, shape (R, S, n, C); not needed where only cross-entropy has a weight.
        generator: source of the order of the batches, on the CPU.
        temperature: T of the binary KL.
        epochs: at least 1.
        batch: inputs a step; the last ones of an epoch are left out if they are fewer.
        lr: learning rate at the start.
        watch: called with the model before training and after every `every` epochs.
        every: epochs between two calls.

    Returns:
        What `watch` returned, in order; an empty list without it.

    Raises:
        ValueError: no epoch, a batch larger than the data, a weight on a binary KL without a teacher or on a head
            that the model has not got.

    Source: own construction, after the training of Yang, Zong, Huang, Feng and An, arXiv 2411.08937.

    >>> generator = torch.Generator().manual_seed(0)
    >>> model = Students(2, 1, (3, 4), 2, generator=generator)
    >>> x, y = torch.randn(2, 64, 3, generator=generator), torch.tensor([0, 1] * 32).expand(2, 64)
    >>> one, none = torch.ones(1), torch.zeros(1)
    >>> train_students(model, x, y, LossMix(one, none, none, none), generator=generator, epochs=2)
    []
    """
    rows, device = pixels.shape[1], pixels.device
    if epochs < 1 or not 1 <= batch <= rows:
        raise ValueError(f"epochs and batch: got {epochs} and {batch}, want at least 1 and at most {rows} rows")
    binary = bool((torch.stack([mix.main, mix.linear, mix.nonlinear]) != 0).any())
    if binary and teacher is None:
        raise ValueError("teacher: got None, want logits for the binary KL")
    if (mix.linear.any() or mix.nonlinear.any()) and not model.auxiliary:
        raise ValueError("mix: got a weight on an auxiliary head, want a model that has auxiliary heads")
    optimiser = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, [round(0.6 * epochs), round(0.8 * epochs)])
    seen = [] if watch is None else [watch(model)]
    for epoch in range(1, epochs + 1):
        for rows_of_run in _batches(len(pixels), rows, batch, generator):
            pick = rows_of_run.to(device)
            run = torch.arange(len(pixels), device=device).unsqueeze(-1)
            goal = None if teacher is None else teacher.gather(2, _spread(pick, teacher))
            signal = _signal(model, pixels[run, pick], labels[run, pick], mix, goal, temperature)
            optimiser.zero_grad()
            signal.backward()
            optimiser.step()
        schedule.step()
        if watch is not None and epoch % every == 0:
            seen.append(watch(model))
    return seen


def _batches(runs: int, rows: int, batch: int, generator: torch.Generator) -> Iterator[Int[Tensor, "R b"]]:
    """Row numbers of one epoch, in an order of each run's own."""
    order = torch.rand(runs, rows, generator=generator).argsort(-1)
    return (order[:, start : start + batch] for start in range(0, rows - batch + 1, batch))


def _spread(pick: Tensor, teacher: Tensor) -> Tensor:
    return pick[:, None, :, None].expand(-1, teacher.shape[1], -1, teacher.shape[-1])


def _signal(
    model: Students, pixels: Tensor, labels: Tensor, mix: LossMix, teacher: Tensor | None, temperature: float
) -> Tensor:
    """A number whose gradient is that of all losses: logits times the residuals that the losses send back."""
    h = model.features(pixels.unsqueeze(1))
    rows = labels.shape[-1]
    outputs = [model.logits(h)]
    main = outputs[0].detach()
    residuals = [mix.ce[:, None, None] * (main.softmax(-1) - indicator(labels, main.shape[-1], main).unsqueeze(1))]
    if teacher is not None:
        goal = teacher / temperature
        heads = ((mix.main, model.main), (mix.linear, model.linear), (mix.nonlinear, model.nonlinear))
        for weight, head in heads:
            if bool((weight != 0).any()):
                outputs.append(head(h))
                pull = temperature * sigmoid_difference(outputs[-1].detach() / temperature, goal)
                residuals.append(weight[:, None, None] * pull)
    return torch.stack([(o * r).sum() for o, r in zip(outputs, residuals, strict=True)]).sum() / rows
