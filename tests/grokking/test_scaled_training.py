"""Training at several output scales against loops of one network, the polynomial network and its kernel limit."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch.func import functional_call

from lib.grokking import train
from lib.grokking.networks import Dense
from lib.grokking.scaled_training import train_scaled
from lib.grokking.tasks import Task, student_teacher

Optimiser = Callable[[list[torch.Tensor]], torch.optim.Optimizer]


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(runs: int = 2, test: int = 50) -> tuple[Task, list[Dense]]:
    generator = source()
    task = student_teacher(4, 20, test, runs, generator=generator)
    return task, [Dense((4, 12, 1), torch.tanh, generator=generator) for _ in range(runs)]


def sgd(moved: list[torch.Tensor]) -> torch.optim.Optimizer:
    return torch.optim.SGD(moved, lr=0.4, momentum=0.5)


def adam(moved: list[torch.Tensor]) -> torch.optim.Optimizer:
    return torch.optim.Adam(moved, lr=0.02)


def test_gradient_descent_takes_a_step_of_lr_over_squared_scale_on_the_weights() -> None:
    task, networks = small()
    curves = train_scaled(networks, task, [0.5, 3.0], 30, every=10, optimiser=lambda u: torch.optim.SGD(u, lr=0.4))
    for k, alpha in enumerate((0.5, 3.0)):
        for run, start in enumerate(networks):
            network = Dense((4, 12, 1), torch.tanh, generator=source())
            network.load_state_dict(start.state_dict())
            x, y, power = task.train_inputs[run], task.train_targets[run], task.train_targets[run].square().mean()
            optimiser = torch.optim.SGD(network.parameters(), lr=0.4 / alpha**2)
            for t in range(31):
                f = alpha * (network(x) - start(x).detach())
                loss = (f - y).square().mean()
                if t % 10 == 0:
                    g = alpha * (network(task.test_inputs[run]) - start(task.test_inputs[run])).detach()
                    test = (g - task.test_targets[run]).square().mean() / power
                    assert curves.train[k, run, t // 10].item() == pytest.approx((loss / power).item(), rel=1e-9)
                    assert curves.test[k, run, t // 10].item() == pytest.approx(test.item(), rel=1e-9)
                    wrong = (g.sign() != task.test_targets[run].sign()).double().mean().item()
                    assert curves.test_error[k, run, t // 10].item() == pytest.approx(wrong)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()


@pytest.mark.parametrize("optimiser", [sgd, adam])
def test_a_batch_of_scales_and_runs_equals_a_loop(optimiser: Optimiser) -> None:
    task, networks = small()
    together = train_scaled(networks, task, [0.5, 3.0], 25, every=5, optimiser=optimiser)
    for k, alpha in enumerate((0.5, 3.0)):
        for run in range(2):
            parts = (task.train_inputs, task.train_targets, task.test_inputs, task.test_targets)
            alone = Task(*(part[run : run + 1] for part in parts))
            one = train_scaled(networks[run : run + 1], alone, [alpha], 25, every=5, optimiser=optimiser)
            for name in ("train", "test", "train_error", "test_error", "norm"):
                torch.testing.assert_close(getattr(together, name)[k, run], getattr(one, name)[0, 0])


@pytest.mark.parametrize("optimiser", [sgd, adam])
def test_large_scales_train_the_linearised_network(optimiser: Optimiser) -> None:
    task, networks = small(runs=1)
    curves = train_scaled(networks, task, [1e2, 1e4, 1e6], 40, optimiser=optimiser)
    start = {name: w.detach() for name, w in networks[0].named_parameters()}
    x, y = task.train_inputs[0], task.train_targets[0]
    slopes = torch.func.jacrev(lambda w: functional_call(networks[0], w, (x,)))(start)
    moved = {name: torch.zeros_like(w, requires_grad=True) for name, w in start.items()}
    stepper, losses = optimiser([*moved.values()]), []
    for _ in range(41):
        f = sum((slopes[name] * moved[name]).flatten(2).sum(-1) for name in moved)
        loss = (f - y).square().mean()
        losses.append((loss / y.square().mean()).item())
        stepper.zero_grad()
        loss.backward()
        stepper.step()
    linear = torch.tensor(losses, dtype=torch.float64)
    gaps = (curves.train[:, 0] - linear).abs().amax(-1)
    assert gaps[1] < 1e-2 * linear[0]
    assert gaps[0] > 20 * gaps[1] > 400 * gaps[2]  # the gap falls like 1 / alpha


def test_with_fixed_readouts_it_is_the_trainer_of_theory() -> None:
    class Polynomial(torch.nn.Module):
        def __init__(self, weights: torch.Tensor) -> None:
            super().__init__()
            self.weights = torch.nn.Parameter(weights)

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            h = rows @ self.weights.T
            return (h + 0.15 * h**2).mean(-1, keepdim=True)

    dim, n, units, alpha, lr = 6, 18, 5, 1.5, 0.2
    generator = source(2)
    W, X, beta = (torch.randn(*s, generator=generator, dtype=torch.float64) for s in ((units, dim), (n, dim), (dim,)))
    X = X / math.sqrt(dim)
    want = train(W, X, beta, alpha, 0.3, lr, 25)
    y = ((X @ beta) ** 2 / 2).reshape(1, n, 1)
    got = train_scaled(
        [Polynomial(W)], Task(X.unsqueeze(0), y, X.unsqueeze(0), y), [alpha], 25,
        optimiser=lambda u: torch.optim.SGD(u, lr=lr * dim * units / 2),
    )  # fmt: skip
    torch.testing.assert_close(got.train[0, 0] * y.square().mean(), want.train)
    overlap = want.overlap.diagonal(dim1=-2, dim2=-1).sum(-1)
    torch.testing.assert_close(got.norm[0, 0], overlap / overlap[0])


def test_starts_at_the_zero_function_and_leaves_the_networks_alone() -> None:
    task, networks = small()
    before = [w.detach().clone() for network in networks for w in network.parameters()]
    curves = train_scaled(networks, task, [0.5, 3.0], 10, every=4, optimiser=sgd)
    assert curves.steps.tolist() == [0, 4, 8]
    torch.testing.assert_close(curves.train[..., 0], torch.ones(2, 2, dtype=torch.float64))
    torch.testing.assert_close(curves.norm[..., 0], torch.ones(2, 2, dtype=torch.float64))
    for old, new in zip(before, (w for network in networks for w in network.parameters()), strict=True):
        assert torch.equal(old, new)


def test_an_answer_is_the_largest_of_several_outputs() -> None:
    generator = source()
    x = torch.randn(1, 30, 3, generator=generator, dtype=torch.float64)
    y = torch.nn.functional.one_hot(x.argmax(-1), 3).double()
    curves = train_scaled(
        [Dense((3, 40, 3), torch.relu, generator=generator)], Task(x, y, x, y), [0.5], 400, every=400,
        optimiser=lambda u: torch.optim.Adam(u, lr=0.02),
    )  # fmt: skip
    assert curves.train_error[0, 0].tolist() == pytest.approx(
        [(x.argmax(-1) != 0).double().mean().item(), 0.0], abs=0.1
    )
    torch.testing.assert_close(curves.train_error, curves.test_error)


def test_a_run_that_diverges_returns_what_was_computed_and_says_where() -> None:
    task, networks = small()
    with pytest.warns(RuntimeWarning, match=r"optimiser: a run is not finite at step \d+"):
        curves = train_scaled(networks, task, [1e3], 400, every=10, optimiser=lambda u: torch.optim.SGD(u, lr=1e3))
    kept = curves.finite_steps
    assert kept.shape == (1, 2)
    assert 1 < kept.min() < 41
    assert bool(curves.train[0, 0, : kept[0, 0]].isfinite().all())


def test_single_precision_agrees_with_double() -> None:
    task, networks = small()
    double = train_scaled(networks, task, [0.5, 3.0], 30, optimiser=sgd)
    single = train_scaled([n.float() for n in networks], task.to(torch.float32), [0.5, 3.0], 30, optimiser=sgd)
    assert single.train.dtype == torch.float32
    torch.testing.assert_close(single.train.double(), double.train, rtol=1e-3, atol=1e-5)


def test_trains_on_every_device(device: str) -> None:
    task, networks = small()
    want = train_scaled(networks, task, [0.5, 3.0], 10, optimiser=sgd)
    got = train_scaled([n.to(device) for n in networks], task.to(device), [0.5, 3.0], 10, optimiser=sgd)
    assert got.train.device.type == device
    torch.testing.assert_close(got.train.cpu(), want.train)


def test_runs_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    parts = [torch.empty(2, rows, size, device=fake_gpu) for rows, size in ((5, 3), (5, 1), (4, 3), (4, 1))]
    networks = [torch.nn.Linear(3, 1, device=fake_gpu) for _ in range(2)]
    curves = train_scaled(networks, Task(*parts), [0.5, 2.0], 2, optimiser=lambda u: torch.optim.SGD(u, lr=0.1))
    assert str(curves.train.device) == fake_gpu
    assert curves.train.shape == (2, 2, 3)


def test_bad_arguments_are_named() -> None:
    task, networks = small()
    with pytest.raises(ValueError, match="networks: got 1, want 2, one for each run"):
        train_scaled(networks[:1], task, [1.0], 3, optimiser=sgd)
    with pytest.raises(ValueError, match="alpha: got -1, want a positive number"):
        train_scaled(networks, task, [1.0, -1.0], 3, optimiser=sgd)
    with pytest.raises(ValueError, match=r"alpha: got shape \(1, 1\), want \(scales,\)"):
        train_scaled(networks, task, [[1.0]], 3, optimiser=sgd)
    with pytest.raises(ValueError, match="steps: got -1, want a whole number >= 0"):
        train_scaled(networks, task, [1.0], -1, optimiser=sgd)
    with pytest.raises(ValueError, match="every: got 0, want a whole number >= 1"):
        train_scaled(networks, task, [1.0], 3, every=0, optimiser=sgd)
