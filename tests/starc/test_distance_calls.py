"""The distance as a function of tensors: gradients, batches, dtypes, devices, and what it refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lib.starc import distance, potential_shaping, starc_distance
from lib.starc.canonical import METHODS

from . import oracle

NORMS: tuple[float | str, ...] = (1, 2, math.inf, "range")
EVERY: list[tuple[str, float | str]] = [(method, norm) for method in METHODS for norm in (1, 2, math.inf)]
EVERY += [("val", "range"), ("dard", "range")]  # this norm takes policy iteration, and two stand for the rest
EACH: list[tuple[str, float | str]] = [(method, 2) for method in METHODS]
EACH += [("val", 1), ("val", math.inf), ("val", "range"), ("dard", "range")]


@pytest.mark.parametrize(("method", "norm"), EVERY)
def test_gradients_are_those_of_finite_differences(method: str, norm: float | str) -> None:
    case = oracle.case(0, 2, 2, zeros=False)
    R1, R2, P, w, gamma = (
        torch.tensor(x, requires_grad=True)
        for x in (case.R1, case.R2, np.log(case.P), np.exp(case.R2), np.array(case.gamma))
    )

    def distance(R1: torch.Tensor, R2: torch.Tensor, P: torch.Tensor, g: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return starc_distance(R1, R2, P.softmax(-1), g, method, norm, weights=w)

    assert torch.autograd.gradcheck(distance, (R1, R2, P, gamma, w), fast_mode=True)


def test_gradients_reach_the_policy_and_the_initial_distribution() -> None:
    case = oracle.case(1, 3, 2)
    pi, start = (torch.tensor(np.log(x), requires_grad=True) for x in (case.policy, case.initial))

    def distance(pi: torch.Tensor, start: torch.Tensor, norm: float | str = 2) -> torch.Tensor:
        pi, start = pi.softmax(-1), start.softmax(-1)
        return starc_distance(case.R1, case.R2, case.P, 0.9, norm=norm, metric="range", policy=pi, initial=start)

    assert torch.autograd.gradcheck(distance, (pi, start))
    assert torch.autograd.gradcheck(lambda start: distance(pi.detach(), start, "range"), (start,))


@pytest.mark.parametrize(("method", "norm"), EVERY)
def test_gradients_are_finite_for_trivial_rewards_and_impossible_transitions(method: str, norm: float | str) -> None:
    case = oracle.case(2)
    zero = np.zeros(case.P.shape)
    R1, P, trivial = (
        torch.tensor(x, requires_grad=True)
        for x in (case.R1, case.P, potential_shaping(zero, case.initial, 0.9).numpy())
    )
    for weights in (None, P):
        got = starc_distance(R1, trivial, P, 0.9, method, norm, weights=weights)
        gradients = torch.autograd.grad(got, (R1, P, trivial), materialize_grads=True)
        assert [bool(x.isfinite().all()) for x in gradients] == [True, True, True]


@pytest.mark.parametrize(
    ("method", "norm"), [("val", 2), ("minimal", 2), ("epic", 1), ("dard", math.inf), ("val", "range")]
)
@pytest.mark.parametrize(
    "shapes",
    [  # of the batch axes of R1, R2, P, gamma, weights, policy, initial
        ((3,), (), (), (), (), (), ()),
        ((), (3,), (), (), (), (), ()),
        ((), (), (3,), (), (), (), ()),
        ((), (), (), (3,), (), (), ()),
        ((), (), (), (), (3,), (), ()),
        ((), (), (), (), (), (5,), ()),
        ((), (), (), (), (), (), (3,)),
        ((1, 2), (2,), (3, 1), (), (), (), ()),
        ((1, 2), (3, 1), (2, 1, 1), (2,), (), (1,), ()),
        ((1,), (), (), (1, 1), (), (), ()),
        ((), (), (1,), (), (), (), ()),
        ((0,), (), (), (), (), (), ()),
    ],
)
def test_leading_axes_of_all_arguments_broadcast(
    shapes: tuple[tuple[int, ...], ...], method: str, norm: float | str
) -> None:
    if method == "minimal":  # a policy means nothing to it
        shapes = (*shapes[:5], (), shapes[6])
    rng = np.random.default_rng(0)
    R1, R2, w = (np.exp(rng.normal(size=(*shapes[i], 3, 2, 3))) for i in (0, 1, 4))
    P, gamma = rng.dirichlet(np.ones(3), size=(*shapes[2], 3, 2)), rng.uniform(0, 0.9, shapes[3])
    pi = rng.dirichlet(np.ones(2), size=(*shapes[5], *(() if method in ("epic", "dard") else (3,))))
    start = rng.dirichlet(np.ones(3), size=shapes[6])
    batch = np.broadcast_shapes(*shapes)
    got = starc_distance(R1, R2, P, gamma, method, norm, None, w, pi, start)
    assert got.shape == batch
    R1, R2, w, P = (np.broadcast_to(x, (*batch, 3, 2, 3)) for x in (R1, R2, w, P))
    gamma, start = np.broadcast_to(gamma, batch), np.broadcast_to(start, (*batch, 3))
    pi = np.broadcast_to(pi, (*batch, *pi.shape[len(shapes[5]) :]))
    for i in np.ndindex(batch):
        alone = starc_distance(R1[i], R2[i], P[i], float(gamma[i]), method, norm, None, w[i], pi[i], start[i])
        torch.testing.assert_close(got[i], alone, rtol=1e-10, atol=1e-12)


def test_state_weights_may_have_batch_axes_of_their_own() -> None:
    case = oracle.case(3)
    d_s = np.random.default_rng(0).dirichlet(np.ones(4), size=(5, 1))
    got = starc_distance(case.R1, case.R2, case.P, [0.1, 0.9], "epic", state_weights=d_s)
    assert got.shape == (5, 2)
    for i, j in np.ndindex(5, 2):
        alone = starc_distance(case.R1, case.R2, case.P, [0.1, 0.9][j], "epic", state_weights=d_s[i, 0])
        torch.testing.assert_close(got[i, j], alone)


@pytest.mark.parametrize(("method", "norm"), EACH)
def test_vmap_over_pairs_is_the_batch(method: str, norm: float | str) -> None:
    rng = np.random.default_rng(0)
    R1, R2 = torch.tensor(rng.normal(size=(2, 5, 3, 2, 3)))
    P = torch.tensor(rng.dirichlet(np.ones(3), size=(5, 3, 2)))

    def distance(R1: torch.Tensor, R2: torch.Tensor, P: torch.Tensor) -> torch.Tensor:
        return starc_distance(R1, R2, P, 0.9, method, norm)

    torch.testing.assert_close(torch.func.vmap(distance)(R1, R2, P), distance(R1, R2, P))
    mapped = torch.func.vmap(distance, in_dims=(0, None, None))(R1, R2[0], P[0])
    torch.testing.assert_close(mapped, distance(R1, R2[0], P[0]))


@pytest.mark.parametrize(("method", "norm"), EACH)
def test_float32_is_kept_and_agrees_with_float64(method: str, norm: float | str) -> None:
    case = oracle.case(4, 5, 3, 0.95)
    R1, R2, P = (torch.tensor(x, dtype=torch.float32) for x in (case.R1, case.R2, case.P))
    single = starc_distance(R1, R2, P, 0.95, method, norm)
    assert single.dtype == torch.float32
    double = starc_distance(case.R1, case.R2, case.P, 0.95, method, norm)
    torch.testing.assert_close(single.double(), double, rtol=0, atol=2e-5)  # 20 steps of rounding of 6e-8 of 10
    assert starc_distance(R1.tolist(), R2.tolist(), P.double().tolist(), 0.95, method, norm).dtype == torch.float64


@pytest.mark.parametrize(("method", "norm"), EACH)
def test_all_run_on_an_accelerator_without_a_host_sync(
    method: str, norm: float | str, fake_gpu: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distance, "ITERATIONS", 10)  # of 96: none is left out there, and pretending is slow
    R1, P = torch.rand(5, 4, 3, 4, device=fake_gpu), torch.rand(4, 3, 4, device=fake_gpu)
    gamma, w, d_s = (torch.rand(shape, device=fake_gpu) for shape in ((2, 1), (4, 3, 4), (4,)))
    pi = torch.rand(*((3,) if method in ("epic", "dard") else (4, 3)), device=fake_gpu)
    got = starc_distance(R1, R1[0], P, gamma, method, norm, None, w, pi, d_s, d_s)
    assert (str(got.device), got.dtype, got.shape) == (fake_gpu, torch.float32, (2, 5))


HALF, PAIR = [[[0.5, 0.5], [1.0, 0.0]]] * 2, [[[0.0, 1.0], [0.0, 0.0]]] * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "starc"}, "method: got 'starc', want one of"),
        ({"norm": 3}, "norm: got 3, want 1, 2, inf or 'range'"),
        ({"norm": "two"}, "norm: got 'two', want 1, 2, inf or 'range'"),
        ({"metric": 0.5}, "metric: got 0.5, want 1, 2, inf or 'range'"),
        ({"metric": "Range"}, "metric: got 'Range', want 1, 2, inf or 'range'"),
        ({"R1": [[[0.0]]]}, r"R1: got shape \(1, 1, 1\), want \(\*batch, 2, 2, 2\) as P has it"),
        ({"R2": [[[0.0]]]}, r"R2: got shape \(1, 1, 1\), want \(\*batch, 2, 2, 2\) as P has it"),
        ({"R1": [[[0.0, math.nan], [0.0, 0.0]]] * 2}, "R1: got nan, want finite numbers"),
        ({"R2": [[[0.0, -math.inf], [0.0, 0.0]]] * 2}, "R2: got -inf, want finite numbers"),
        ({"weights": [[[1.0]]]}, r"weights: got shape \(1, 1, 1\), want \(\*batch, 2, 2, 2\)"),
        ({"weights": [[[1.0, -1.0], [1.0, 1.0]]] * 2}, "weights: got -1, want numbers >= 0"),
        ({"weights": [[[1.0, 0.0], [1.0, 1.0]]] * 2, "method": "minimal"}, "weights: got 0, want positive numbers"),
        ({"policy": [[1.0, 1.0]] * 2}, "policy: got 2, want rows that sum to one"),
        ({"policy": [1.0]}, r"policy: got shape \(1,\), want \(\*batch, 2, 2\)"),
        ({"initial": [0.5, 0.6]}, "initial: got 1.1, want rows that sum to one"),
        ({"initial": [1.0]}, r"initial: got shape \(1,\), want \(\*batch, 2\)"),
        ({"state_weights": [1.0, 1.0], "method": "epic"}, "state_weights: got 2, want rows that sum to one"),
        ({"R1": [PAIR] * 2, "R2": [PAIR] * 3}, r"R1 \(2,\), R2 \(3,\).*: got shapes that do not broadcast"),
        ({"policy": [[[0.5, 0.5]] * 2] * 2, "R2": [PAIR] * 3}, r"policy \(2,\).*got shapes that do not broadcast"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, object], message: str) -> None:
    arguments = {"R1": PAIR, "R2": PAIR, "P": HALF, "gamma": 0.5} | change
    with pytest.raises(ValueError, match=message):
        starc_distance(**arguments)  # type: ignore[arg-type]
