"""Preference training against plain descent on the loss itself, and what is recorded along the way."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from lib.gradient_entanglement import (
    CharTransformer,
    PreferencePairs,
    frozen_kernel_trajectory,
    log_prob_changes,
    margin_objective,
    pair_steps,
    response_logps,
    train_on_pairs,
)
from tests.gradient_entanglement.oracle import gradients

PROMPT, B = 4, 5


def setting() -> tuple[CharTransformer, PreferencePairs]:
    generator = torch.Generator().manual_seed(0)
    model = CharTransformer(9, generator=generator, context=12, width=8, inner=10).double()
    chosen, rejected = torch.randint(9, (2, B, 10), generator=generator)
    rejected[:, :PROMPT] = chosen[:, :PROMPT]
    return model, PreferencePairs(chosen, rejected, PROMPT)


def logps(model: CharTransformer, pairs: PreferencePairs) -> Tensor:
    return response_logps(model, torch.cat([pairs.chosen, pairs.rejected]), PROMPT)


@pytest.mark.parametrize("objective", ["dpo", "orpo", "sppo"])
def test_it_descends_the_mean_loss(objective: str) -> None:
    model, pairs = setting()
    own = copy.deepcopy(model)
    start = logps(own, pairs).detach()
    known: dict[str, Any] = {"ref_w": start[:B], "ref_l": start[B:], "len_w": 6, "len_l": 6}
    want = [start]
    for _ in range(3):
        now = logps(own, pairs)
        loss = margin_objective(objective, now[:B], now[B:], **known).loss.mean()
        slopes = torch.autograd.grad(loss, list(own.parameters()))
        with torch.no_grad():
            for parameter, slope in zip(own.parameters(), slopes, strict=True):
                parameter.sub_(1e-3 * slope)
        want.append(logps(own, pairs).detach())
    run = train_on_pairs(model, pairs, objective, lr=1e-3, steps=3)
    torch.testing.assert_close(run.logps, torch.stack(want), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(run.chosen, run.logps[:, :B])
    torch.testing.assert_close(run.rejected, run.logps[:, B:])
    assert all(x is None for x in (run.kernel, run.gram, run.first, run.second, run.own))


def test_the_recorded_kernel_and_first_order_are_those_of_formed_gradients() -> None:
    model, pairs = setting()
    J = gradients(model, lambda m, y: response_logps(m, y, PROMPT), torch.cat([pairs.chosen, pairs.rejected]))
    run = train_on_pairs(model, pairs, "cpo", lr=1e-4, steps=2, record_kernel=True, record_curvature=True, lam=0.3)
    assert run.kernel is not None
    assert run.gram is not None
    assert run.first is not None
    assert run.own is not None
    assert run.second is not None
    torch.testing.assert_close(run.kernel, J @ J.T, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(run.gram.wl[0], (J[:B] * J[B:]).sum(-1), rtol=1e-10, atol=1e-10)
    push = torch.cat([run.d_w[0], -run.d_l[0]])
    torch.testing.assert_close(run.first[0], 1e-4 / B * J @ (J.T @ push), rtol=1e-9, atol=1e-12)
    alone = 1e-4 / B * (run.d_w[0] * (J[:B] ** 2).sum(-1) - run.d_l[0] * (J[:B] * J[B:]).sum(-1))
    torch.testing.assert_close(run.own[0, :B], alone, rtol=1e-9, atol=1e-12)
    real = run.logps.diff(dim=0)
    first, second = ((x - real).norm() / real.norm() for x in (run.first, run.second))
    assert second < first / 20
    frozen = frozen_kernel_trajectory(
        run.kernel, run.chosen[0], run.rejected[0], objective="cpo", lr=1e-4, steps=2, lam=0.3
    )
    torch.testing.assert_close(frozen.d_w[0], run.d_w[0])


def test_the_second_order_is_that_of_a_step_twice_as_large() -> None:
    """Second order minus first grows fourfold with a doubled step, and does not depend on the pairs' weights."""
    model, pairs = setting()
    terms = []
    for lr in (1e-3, 2e-3):
        run = train_on_pairs(
            copy.deepcopy(model), pairs, "dpo", lr=lr, steps=1, record_kernel=True, record_curvature=True
        )
        assert run.first is not None
        assert run.second is not None
        terms.append(run.second[0] - run.first[0])
    torch.testing.assert_close(terms[1], 4 * terms[0], rtol=1e-2, atol=1e-9)


def test_normalised_weights_are_one_over_the_norms() -> None:
    model, pairs = setting()
    J = gradients(model, lambda m, y: response_logps(m, y, PROMPT), torch.cat([pairs.chosen, pairs.rejected]))
    run = train_on_pairs(model, pairs, "normalized", lr=1e-3, steps=1)
    torch.testing.assert_close(run.d_w[0], 1 / J[:B].norm(dim=1))
    torch.testing.assert_close(run.d_l[0], 1 / J[B:].norm(dim=1))


def test_another_optimiser_takes_over() -> None:
    model, pairs = setting()
    before = [p.detach().clone() for p in model.parameters()]
    train_on_pairs(model, pairs, "dpo", lr=1.0, steps=1, optimiser=lambda p: torch.optim.Adam(p, lr=1e-3))
    moved = max((p - b).abs().max().item() for p, b in zip(model.parameters(), before, strict=True))
    assert moved == pytest.approx(1e-3, rel=1e-2)


def test_each_pair_steps_alone_from_the_same_model() -> None:
    model, pairs = setting()
    before = [p.detach().clone() for p in model.parameters()]
    d_w, d_l = torch.rand(2, B, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 0.5
    got = pair_steps(model, pairs, d_w, d_l, 1e-3)
    for i in range(B):
        own = copy.deepcopy(model)
        one = PreferencePairs(pairs.chosen[i : i + 1], pairs.rejected[i : i + 1], PROMPT)
        now = logps(own, one)
        slopes = torch.autograd.grad(d_w[i] * now[0] - d_l[i] * now[1], list(own.parameters()))
        with torch.no_grad():
            for parameter, slope in zip(own.parameters(), slopes, strict=True):
                parameter.add_(1e-3 * slope)
        moved = logps(own, one) - now
        assert got.chosen[i].item() == pytest.approx(moved[0].item(), rel=1e-9)
        assert got.rejected[i].item() == pytest.approx(moved[1].item(), rel=1e-9)
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))


def test_small_steps_are_those_of_the_theorem() -> None:
    model, pairs = setting()
    run = train_on_pairs(copy.deepcopy(model), pairs, "dpo", lr=0.0, steps=1, record_kernel=True)
    assert run.gram is not None
    gram = type(run.gram)(run.gram.ww[0], run.gram.wl[0], run.gram.ll[0])
    d = torch.ones(B, dtype=torch.float64)
    real, told = pair_steps(model, pairs, d, d, 1e-7), log_prob_changes(gram, 1.0, 1.0, 1e-7)
    torch.testing.assert_close(real.chosen, told.chosen, rtol=1e-3, atol=1e-12)
    torch.testing.assert_close(real.rejected, told.rejected, rtol=1e-3, atol=1e-12)


def test_no_step_is_refused() -> None:
    model, pairs = setting()
    with pytest.raises(ValueError, match="steps: got 0"):
        train_on_pairs(model, pairs, "dpo", lr=0.1, steps=0)
    with pytest.raises(ValueError, match="name: got 'best'"):
        train_on_pairs(model, pairs, "best", lr=0.1, steps=1)


def test_steps_and_training_run_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    with torch.device(fake_gpu):
        net = torch.nn.Sequential(torch.nn.Embedding(9, 4), torch.nn.Linear(4, 9))
    rows = torch.empty(B, 10, dtype=torch.int64, device=fake_gpu)
    pairs, d = PreferencePairs(rows, rows, PROMPT), torch.empty(B, device=fake_gpu)
    assert str(pair_steps(net, pairs, d, d, 0.1).chosen.device) == fake_gpu
    assert str(train_on_pairs(net, pairs, "dpo", lr=0.1, steps=2).chosen.device) == fake_gpu
