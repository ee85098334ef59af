"""A frozen kernel is exact for log-probabilities that are linear in the parameters."""

from __future__ import annotations

import inspect
import math
from typing import Any

import numpy as np
import pytest
import torch

from lib.gradient_entanglement import OBJECTIVES, frozen_kernel_trajectory, margin_objective

B, P = 4, 10


def linear(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Gradients (2B, P) and log-probabilities at the start, low enough for every objective."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(2 * B, P)), -rng.uniform(4, 9, 2 * B)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_it_follows_gradient_descent_of_a_linear_model(objective: str, device: str) -> None:
    J, start = linear()
    known: dict[str, Any] = {"ref_w": start[:B], "ref_l": start[B:], "len_w": 3, "len_l": 5, "beta": 0.5}
    theta = torch.zeros(P, dtype=torch.float64, requires_grad=True)
    truth = []
    for _ in range(7):
        logps = torch.tensor(start) + torch.tensor(J) @ theta
        truth.append(logps.detach())
        loss = margin_objective(objective, logps[:B], logps[B:], **known).loss.mean()
        (g,) = torch.autograd.grad(loss, theta)
        theta = (theta - 0.02 * g).detach().requires_grad_()
    kernel = torch.tensor(J @ J.T, device=device)
    got = frozen_kernel_trajectory(kernel, start[:B], start[B:], objective=objective, lr=0.02, steps=6, **known)
    torch.testing.assert_close(got.chosen.cpu(), torch.stack(truth)[:, :B], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(got.rejected.cpu(), torch.stack(truth)[:, B:], rtol=1e-9, atol=1e-9)
    assert got.d_w.shape == got.d_l.shape == (6, B)
    again = margin_objective(objective, truth[3][:B], truth[3][B:], **known)
    torch.testing.assert_close(got.d_w[3].cpu(), again.d_w, rtol=1e-9, atol=1e-9)


def test_a_batch_of_kernels_is_what_its_members_are_and_float32_stays() -> None:
    J, start = linear()
    kernels = np.stack([J @ J.T, 2 * J @ J.T])
    rest: dict[str, Any] = {"objective": "cpo", "lr": 0.01, "steps": 3, "lam": 0.1}
    both = frozen_kernel_trajectory(kernels, start[:B], start[B:], **rest)
    assert both.chosen.shape == (4, 2, B)
    alone = frozen_kernel_trajectory(kernels[1], start[:B], start[B:], **rest)
    torch.testing.assert_close(both.rejected[:, 1], alone.rejected)
    low = frozen_kernel_trajectory(torch.tensor(kernels[1]).float(), start[:B], start[B:], **rest)
    assert low.chosen.dtype == torch.float32
    torch.testing.assert_close(low.chosen.double(), alone.chosen, rtol=1e-5, atol=1e-4)


def test_gradients_pass_through() -> None:
    J, start = linear()
    kernel = torch.tensor(J @ J.T, requires_grad=True)
    rest: dict[str, Any] = {"objective": "orpo", "lr": 0.01, "steps": 2, "len_w": 3, "len_l": 5}
    assert torch.autograd.gradcheck(
        lambda k: frozen_kernel_trajectory(k, start[:B], start[B:], **rest).chosen[-1], (kernel,)
    )


def test_it_runs_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    kernel, u = torch.empty(8, 8, device=fake_gpu), torch.empty(4, device=fake_gpu)
    got = frozen_kernel_trajectory(kernel, u, u, objective="dpo", lr=0.1, steps=2, ref_w=u, ref_l=u)
    assert got.chosen.shape == (3, 4)
    assert str(got.chosen.device) == fake_gpu
    assert got.d_w.dtype == torch.float32


EYE = np.eye(2)


@pytest.mark.parametrize(
    ("arguments", "changes", "message"),
    [
        ((np.eye(3), [-1.0], [-1.0]), {}, "kernel: got shape"),
        ((EYE, [-1.0, -2.0], [-1.0, -2.0]), {}, "kernel: got shape"),
        ((EYE, [-1.0], [-1.0, -2.0]), {}, "logp_l: got shape"),
        ((EYE, -1.0, [-1.0]), {}, "logp_w: got shape"),
        (([[math.nan, 0.0], [0.0, 1.0]], [-1.0], [-1.0]), {}, "kernel: got nan"),
        (([EYE] * 3, [[-1.0]] * 2, [[-1.0]] * 2), {}, r"kernel \(3,\), logp_w \(2,\), logp_l \(2,\): got shapes"),
        ((EYE, [[-1.0]] * 3, [[-1.0]] * 2), {}, r"logp_w \(3,\), logp_l \(2,\): got shapes that do not broadcast"),
        ((EYE, [-1.0], [-1.0]), {"steps": 0}, "steps: got 0"),
        ((EYE, [-1.0], [-1.0]), {"steps": True}, "steps: got True"),
        ((EYE, [-1.0], [-1.0]), {"steps": 2.0}, "steps: got 2.0"),
        ((EYE, [-1.0], [-1.0]), {"lr": -1.0}, "lr: got -1"),
        ((EYE, [-1.0], [-1.0]), {"lr": [0.1, 0.2]}, "lr: got shape"),
        ((EYE, [-1.0], [-1.0]), {"objective": "dpo"}, "ref_w: got none"),
        ((EYE, [-1.0], [-1.0]), {"objective": "rlhf"}, "name: got 'rlhf'"),
    ],
)
def test_what_is_wrong_is_named(arguments: Any, changes: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"objective": "cpo", "lr": 0.1, "steps": 1} | changes
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(frozen_kernel_trajectory)(*arguments, **given)  # without the tests' own checks of types


def test_steps_may_be_a_number_of_numpy() -> None:
    rest: dict[str, Any] = {"objective": "cpo", "lr": 0.1}
    got = inspect.unwrap(frozen_kernel_trajectory)(EYE, [-1.0], [-1.0], steps=np.int64(2), **rest)
    torch.testing.assert_close(got.chosen, frozen_kernel_trajectory(EYE, [-1.0], [-1.0], steps=2, **rest).chosen)
