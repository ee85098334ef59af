"""Networks of any form trained at several output scales and from several starts at once."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from lib.checks import ArrayLike, as_float, read_size, require_positive, require_shape
from lib.grokking.tasks import Task
from lib.grokking.trajectory import finite_entries
from lib.shapes import Float, Int, Real


@dataclass(frozen=True)
class LearningCurves:
    """Losses in units of the mean squared target, shares of wrong answers, and mean squared weights in units of the
    start, after `steps` steps.
    """

    steps: Int[Tensor, " times"]
    train: Float[Tensor, "scales runs times"]
    test: Float[Tensor, "scales runs times"]
    train_error: Float[Tensor, "scales runs times"]
    test_error: Float[Tensor, "scales runs times"]
    norm: Float[Tensor, "scales runs times"]

    @property
    def finite_steps(self) -> Int[Tensor, "scales runs"]:
        """How many leading entries are finite in both losses; all of them if the run did not diverge."""
        return finite_entries(self.train, self.test)


def train_scaled(
    networks: Sequence[nn.Module],
    task: Task,
    alpha: Real[Tensor, " scales"] | ArrayLike,
    steps: int,
    *,
    optimiser: Callable[[list[Tensor]], torch.optim.Optimizer],
    every: int = 1,
) -> LearningCurves:
    r"""Fit $f(x)=\alpha\,[g_\theta(x)-g_{\theta_0}(x)]$ by full batches, so that $\alpha$ changes the laziness alone.

    The optimiser moves $u$ in $\theta=\theta_0+u/\alpha$. For gradient descent that is a step $\propto1/\alpha^2$ on
    the weights, for Adam one $\propto1/\alpha$. As $\alpha\to\infty$ the function becomes linear in $u$,
    $f=\nabla g_{\theta_0}\cdot u$, and its training does not depend on $\alpha$ any more; weights and features then
    move by $O(1/\alpha)$. The loss is the mean over rows of the squared distance of outputs and targets.

    Args:
        networks: one a run, of one form; they are left as they are and give $\theta_0$.
        task: data of the runs.
        alpha: output scales, above 0, shape (scales,); every scale starts from the same networks.
        steps: number of steps, 0 or above.
        optimiser: called with the list of the $u$, such as `lambda u: torch.optim.SGD(u, lr=0.1)`. All runs share it
            and stay independent of each other as long as it treats each entry on its own, as `SGD` and `Adam` do.
        every: steps between two records, 1 or above.

    Returns:
        Curves at steps 0, `every`, 2 `every` and so on. An answer is the largest of several outputs, and the sign of a
        single one. A run that diverges returns what was computed and warns.

    Raises:
        ValueError: another number of networks than runs in the task, `alpha` not above 0, `steps` below 0, `every`
            below 1.

    Source: Chizat, Oyallon and Bach (NeurIPS 2019), arXiv 1812.07956, for the scale; own form of the optimiser.

    >>> from lib.grokking.networks import Dense
    >>> from lib.grokking.tasks import student_teacher
    >>> generator = torch.Generator().manual_seed(0)
    >>> task = student_teacher(5, 30, 100, 2, generator=generator)
    >>> networks = [Dense((5, 20, 1), torch.relu, generator=generator) for _ in range(2)]
    >>> curves = train_scaled(networks, task, [0.5, 8.0], 200, every=50,
    ...                       optimiser=lambda u: torch.optim.SGD(u, lr=0.05 * 20, momentum=0.9))
    >>> curves.steps.tolist(), bool((curves.train[..., -1] < 0.2).all())
    ([0, 50, 100, 150, 200], True)
    """
    read_size("steps", steps, 0)
    read_size("every", every, 1)
    runs = len(task.train_inputs)
    if len(networks) != runs:
        raise ValueError(f"networks: got {len(networks)}, want {runs}, one for each run of the task")
    scale = as_float("alpha", alpha, like=task.train_inputs)
    require_shape("alpha", scale, scale.ndim == 1 and len(scale) >= 1, "(scales,) with scales >= 1")
    require_positive("alpha", scale)
    count = len(scale)
    start = {name: w.detach() for name, w in stack_module_state([*networks])[0].items()}
    start = {name: w.repeat(count, *[1] * (w.ndim - 1)) for name, w in start.items()}
    scale = scale.repeat_interleave(runs)
    inverse = {name: (1 / scale).reshape(-1, *[1] * (w.ndim - 1)) for name, w in start.items()}
    moved = {name: torch.zeros_like(w, requires_grad=True) for name, w in start.items()}
    scale = scale.reshape(-1, 1, 1)
    x, y, x_test, y_test = (
        part.repeat(count, 1, 1)
        for part in (task.train_inputs, task.train_targets, task.test_inputs, task.test_targets)
    )
    output = vmap(lambda weights, rows: functional_call(networks[0], weights, (rows,)))
    power = y.square().sum(-1).mean(-1)
    size = sum(w.square().flatten(1).sum(-1) for w in start.values())
    with torch.no_grad():
        offset, offset_test = output(start, x), output(start, x_test)
    stepper = optimiser([*moved.values()])
    records: list[Tensor] = []
    for t in range(steps + 1):
        weights = {name: torch.addcmul(w, inverse[name], moved[name]) for name, w in start.items()}
        f = scale * (output(weights, x) - offset)
        loss = (f - y).square().sum(-1).mean(-1)
        if t % every == 0:
            with torch.no_grad():
                g = scale * (output(weights, x_test) - offset_test)
                test = (g - y_test).square().sum(-1).mean(-1)
                norm = sum(w.square().flatten(1).sum(-1) for w in weights.values()) / size
                records.append(
                    torch.stack([loss / power, test / power, _wrong(f, y), _wrong(g, y_test), norm]).detach()
                )
        if t < steps:
            stepper.zero_grad()
            loss.sum().backward()
            stepper.step()
    curves = torch.stack(records, -1).unflatten(1, (count, runs))
    result = LearningCurves(torch.arange(0, steps + 1, every, device=x.device), *curves)
    finite = result.finite_steps
    if finite.device.type == "cpu" and int(finite.min()) < len(records):
        first = int(result.steps[int(finite.min())])
        warnings.warn(
            f"optimiser: a run is not finite at step {first} (see finite_steps); a smaller step is stable",
            RuntimeWarning,
            2,
        )
    return result


def _wrong(outputs: Tensor, targets: Tensor) -> Tensor:
    """Share of rows whose answer is not that of the target."""
    if targets.shape[-1] > 1:
        return (outputs.argmax(-1) != targets.argmax(-1)).to(outputs.dtype).mean(-1)
    return (outputs.sign() != targets.sign()).to(outputs.dtype).mean((-2, -1))


__all__ = ["LearningCurves", "train_scaled"]
