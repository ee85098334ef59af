"""Residuals of both losses against scipy, mpmath and automatic differentiation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import special
from torch import Tensor

from lib.neural_collapse import (
    binary_kl,
    binary_kl_residual,
    cross_entropy_residual,
    softmax_kl,
    softmax_kl_residual,
)

from . import oracle

VARIANTS = ("plain", "norm")
logits = st.floats(-30, 30)
heats = st.floats(0.3, 30)


def two(seed: int, *shape: int, size: float = 3.0) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    student, teacher = (torch.tensor(size * rng.normal(size=shape)) for _ in range(2))
    return student, teacher


@pytest.mark.parametrize("size", [0.1, 3.0, 40.0])
def test_cross_entropy_residual_is_softmax_minus_label(size: float, device: str) -> None:
    z, _ = two(0, 30, 7, size=size)
    labels = np.random.default_rng(1).integers(0, 7, 30)
    got = cross_entropy_residual(z.to(device), torch.tensor(labels, device=device))
    assert got.device.type == device
    np.testing.assert_allclose(got.cpu(), oracle.cross_entropy_residual(z.numpy(), labels), rtol=1e-12, atol=1e-15)


def test_cross_entropy_residual_is_the_derivative_of_the_loss() -> None:
    z, labels = two(0, 5, 4)[0].requires_grad_(), torch.tensor([0, 3, 3, 1, 2])
    loss = torch.nn.functional.cross_entropy(z, labels, reduction="sum")
    torch.testing.assert_close(cross_entropy_residual(z, labels), torch.autograd.grad(loss, z)[0], rtol=0, atol=1e-15)


def test_cross_entropy_residual_of_huge_logits_and_of_a_batch() -> None:
    got = cross_entropy_residual([[1e4, 0.0], [-1e4, 0.0], [1e300, -1e300]], [0, 0, 1])
    torch.testing.assert_close(got, torch.tensor([[0.0, 0], [-1, 1], [1, -1]], dtype=torch.float64), rtol=0, atol=1e-15)
    z, _ = two(2, 2, 3, 5, 4)
    labels = torch.tensor([0, 1, 2, 3, 0])
    assert cross_entropy_residual(z, labels).shape == (2, 3, 5, 4)
    own = torch.tensor(np.random.default_rng(0).integers(0, 4, (2, 3, 5)))
    for given_labels in (labels, own):
        got = cross_entropy_residual(z, given_labels)
        for i, j in np.ndindex(2, 3):
            alone = labels if given_labels is labels else own[i, j]
            torch.testing.assert_close(got[i, j], cross_entropy_residual(z[i, j], alone), rtol=1e-14, atol=1e-16)


def test_the_residual_of_the_true_class_keeps_digits_where_it_is_tiny() -> None:
    for gap in (20.0, 36.0, 45.0, 300.0):
        got = cross_entropy_residual([[gap, 0.0, 0.0]], [0])[0]
        assert got[1].item() == pytest.approx(math.exp(-gap), rel=1e-9)
        assert got.sum().item() == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 20.0])
def test_binary_kl_is_a_sum_of_divergences_of_coins(temperature: float, variant: str, device: str) -> None:
    z, tau = two(3, 8, 5)
    got = binary_kl(z.to(device), tau.to(device), temperature, variant=variant)
    assert got.device.type == device
    assert got.shape == ()
    assert got.item() == pytest.approx(oracle.binary_kl(z.numpy(), tau.numpy(), temperature, variant), rel=1e-12)


@given(logits, logits, heats, st.sampled_from(VARIANTS))
def test_one_logit_agrees_with_sixty_digits(z: float, tau: float, heat: float, variant: str) -> None:
    want = float(oracle.precise_binary_kl(z, tau, heat, variant))
    got = binary_kl([[z, 0.0]], [[tau, 0.0]], heat, variant=variant).item()
    assert got == pytest.approx(want, rel=1e-9, abs=1e-13 * heat**2 * (1 + abs(z) + abs(tau)))
    want = oracle.precise_binary_kl_residual(z, tau, heat, variant)
    got = binary_kl_residual([[z, 0.0]], [[tau, 0.0]], heat, variant=variant)[0, 0].item()
    assert got == pytest.approx(want, rel=1e-9, abs=1e-15 * heat)


@pytest.mark.parametrize(
    ("z", "tau"), [(1e4, -1e4), (-1e4, 1e4), (1e4, 1e4), (-1e4, -1e4), (1e4, 0.0), (0.0, -1e4), (1e4, 9e3)]
)
def test_logits_of_ten_thousand_keep_value_and_slope(z: float, tau: float) -> None:
    # sigma(tau) is 0, 1/2 or 1 to more digits than a float has: the divergence is softplus, by hand
    p = 0.5 if tau == 0 else float(tau > 0)
    entropy = math.log(2) if tau == 0 else 0.0
    want = p * max(-z, 0.0) + (1 - p) * max(z, 0.0) - entropy + (math.log(2) if z == 0 else 0.0)
    assert binary_kl([[z, 0.0]], [[tau, 0.0]], 1.0).item() == pytest.approx(want, rel=1e-12, abs=1e-12)
    slope = binary_kl_residual([[z, 0.0]], [[tau, 0.0]], 1.0)[0, 0].item()
    assert slope == pytest.approx((0.5 if z == 0 else float(z > 0)) - p, abs=1e-15)
    leaf = torch.tensor([[z, 0.0]], dtype=torch.float64, requires_grad=True)
    binary_kl(leaf, [[tau, 0.0]], 1.0).backward()
    assert leaf.grad is not None
    assert leaf.grad[0, 0].item() == pytest.approx(slope, abs=1e-12)


@given(st.lists(st.tuples(logits, logits), min_size=2, max_size=6), heats)
def test_it_is_zero_at_equality_and_positive_elsewhere(pairs: list[tuple[float, float]], heat: float) -> None:
    z, tau = ([pair[i] for pair in pairs] for i in (0, 1))
    for variant in VARIANTS:
        assert abs(binary_kl([z], [z], heat, variant=variant).item()) <= 1e-13 * heat**2 * len(z)
        assert (binary_kl_residual([z], [z], heat, variant=variant) == 0).all()
        assert binary_kl([z], [tau], heat, variant=variant) >= -1e-13 * heat**2 * len(z)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_residual_is_the_derivative_a_sample(variant: str) -> None:
    z, tau = two(4, 6, 3)
    z.requires_grad_()
    loss = binary_kl(z, tau, 2.0, variant=variant)
    want = 6 * torch.autograd.grad(loss, z)[0]
    torch.testing.assert_close(binary_kl_residual(z, tau, 2.0, variant=variant), want, rtol=1e-12, atol=1e-14)
    tau.requires_grad_()
    assert torch.autograd.gradcheck(lambda z, tau: binary_kl(z, tau, 2.0, variant=variant), (z, tau))
    assert torch.autograd.gradcheck(lambda z, tau: binary_kl_residual(z, tau, 2.0, variant=variant), (z, tau))


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_bends_as_it_should_where_student_and_teacher_agree(variant: str) -> None:
    # second derivative sigma'(z/T) there: T times the slope of a difference of sigmoids that is zero
    z, _ = two(9, 4, 3)
    leaf = z.clone().requires_grad_()
    (bend,) = torch.autograd.grad(binary_kl_residual(leaf, z, 2.0, variant=variant).sum(), leaf)
    at = torch.zeros_like(z) if variant == "norm" else z / 2
    torch.testing.assert_close(bend, torch.sigmoid(at) * torch.sigmoid(-at), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("variant", VARIANTS)
def test_high_temperatures_leave_an_eighth_of_the_squared_error(variant: str) -> None:
    z, tau = two(5, 9, 4)
    limit = ((z - tau) ** 2).sum(-1).mean() / 8
    errors = [abs(binary_kl(z, tau, T, variant=variant) / limit - 1).item() for T in (1e2, 1e3)]
    assert errors[1] < 1e-4
    assert errors[1] < errors[0] / 9  # and approaches it like 1/T or faster


def test_losses_of_a_batch_are_those_of_its_members() -> None:
    z, tau = two(6, 2, 3, 5, 4)
    for variant in VARIANTS:
        loss = binary_kl(z, tau[0], 1.5, variant=variant)
        slope = binary_kl_residual(z, tau[0], 1.5, variant=variant)
        assert (loss.shape, slope.shape) == ((2, 3), (2, 3, 5, 4))
        for i, j in np.ndindex(2, 3):
            torch.testing.assert_close(loss[i, j], binary_kl(z[i, j], tau[0, j], 1.5, variant=variant))
            torch.testing.assert_close(slope[i, j], binary_kl_residual(z[i, j], tau[0, j], 1.5, variant=variant))


def test_temperatures_of_a_batch() -> None:
    z, tau = two(7, 3, 5, 4)
    heats = [0.5, 1.0, 4.0]
    loss, slope = binary_kl(z, tau, heats), binary_kl_residual(z, tau, heats)
    for i, T in enumerate(heats):
        torch.testing.assert_close(loss[i], binary_kl(z[i], tau[i], T))
        torch.testing.assert_close(slope[i], binary_kl_residual(z[i], tau[i], T))


def test_single_precision_is_kept_and_agrees_with_double() -> None:
    z, tau = two(8, 20, 6)
    labels = torch.arange(20) % 6
    for variant in VARIANTS:
        single = binary_kl(z.float(), tau.float(), 2.0, variant=variant)
        assert single.dtype == torch.float32
        assert single.item() == pytest.approx(binary_kl(z, tau, 2.0, variant=variant).item(), rel=1e-5)
        low = binary_kl_residual(z.float(), tau.float(), 2.0, variant=variant)
        assert low.dtype == torch.float32
        torch.testing.assert_close(low.double(), binary_kl_residual(z, tau, 2.0, variant=variant), rtol=1e-5, atol=1e-6)
    low = cross_entropy_residual(z.float(), labels)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low.double(), cross_entropy_residual(z, labels), rtol=1e-5, atol=1e-6)


def test_lists_and_whole_numbers_become_float64() -> None:
    assert cross_entropy_residual([[1, 0]], [0]).dtype == torch.float64
    for got in (binary_kl([[1, 0]], [[0, 1]], 2), binary_kl_residual([[1, 0]], [[0, 1]], 2)):
        assert got.dtype == torch.float64


def test_they_run_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    z, tau = torch.rand(3, 5, 4, device=fake_gpu), torch.rand(5, 4, device=fake_gpu)
    labels = torch.zeros(5, dtype=torch.int64, device=fake_gpu)
    for variant in VARIANTS:
        loss, slope = (f(z, tau, 2.0, variant=variant) for f in (binary_kl, binary_kl_residual))
        assert (str(loss.device), loss.shape, loss.dtype) == (fake_gpu, (3,), torch.float32)
        assert (str(slope.device), slope.shape, slope.dtype) == (fake_gpu, (3, 5, 4), torch.float32)
    slope = cross_entropy_residual(z, labels)
    assert (str(slope.device), slope.shape, slope.dtype) == (fake_gpu, (3, 5, 4), torch.float32)


FINE: dict[str, Any] = {"student": [[1.0, 0.0]], "teacher": [[0.0, 1.0]], "temperature": 2.0}


@pytest.mark.parametrize("function", [binary_kl, binary_kl_residual, softmax_kl, softmax_kl_residual])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"student": [1.0, 0.0]}, r"student: got shape \(2,\), want"),
        ({"student": [[math.nan, 0.0]]}, "student: got nan, want"),
        ({"student": "one"}, "student: got str"),
        ({"teacher": [[0.0, 1.0, 2.0]]}, r"teacher: got shape \(1, 3\), want .*2"),
        ({"teacher": [[0.0], [1.0]]}, r"teacher: got shape \(2, 1\), want"),
        ({"teacher": [[0.0, math.inf]]}, "teacher: got inf, want"),
        ({"temperature": 0.0}, "temperature: got 0, want"),
        ({"temperature": -1}, "temperature: got -1, want"),
        ({"temperature": math.nan}, "temperature: got nan, want"),
        ({"temperature": math.inf}, "temperature: got inf, want"),
        ({"student": [[1.0]], "teacher": [[1.0]]}, r"student: got shape \(1, 1\), want"),
        ({"student": [FINE["student"]] * 2, "teacher": [FINE["teacher"]] * 3}, r"student \(2,\), teacher \(3,\)"),
    ],
)
def test_what_is_wrong_is_named(function: Any, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        function(**(FINE | change))


@pytest.mark.parametrize("function", [binary_kl, binary_kl_residual])
def test_an_unknown_variant_is_named(function: Any) -> None:
    with pytest.raises(ValueError, match=r"variant: got 'softmax', want .*plain"):
        function(**FINE, variant="softmax")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0, 0.0], [0]), r"logits: got shape \(2,\), want"),
        (([[math.nan, 0.0]], [0]), "logits: got nan, want"),
        (([[1.0, 0.0]], [0, 1]), r"labels: got shape \(2,\), want .*1"),
        (([[1.0, 0.0]], [2]), "labels: got 2, want"),
        (([[1.0, 0.0]], [-1]), "labels: got -1, want"),
        (([[1.0, 0.0]], [0.0]), "labels: got .*float64, want whole numbers"),
    ],
)
def test_what_is_wrong_with_a_labelled_sample_is_named(arguments: tuple[Any, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cross_entropy_residual(*arguments)


def softmax_divergence(student: np.ndarray, teacher: np.ndarray, heat: float) -> float:
    p, q = (special.softmax(x / heat, -1) for x in (teacher, student))
    return float(heat**2 * special.rel_entr(p, q).sum(-1).mean())


@pytest.mark.parametrize("temperature", [0.5, 2.0, 20.0])
def test_softmax_kl_and_its_residual_are_those_of_the_definition(temperature: float, device: str) -> None:
    z, tau = two(10, 8, 5)
    got = softmax_kl(z.to(device), tau.to(device), temperature)
    assert got.item() == pytest.approx(softmax_divergence(z.numpy(), tau.numpy(), temperature), rel=1e-10)
    z.requires_grad_()
    want = 8 * torch.autograd.grad(softmax_kl(z, tau, temperature), z)[0]
    slope = softmax_kl_residual(z.detach().to(device), tau.to(device), temperature)
    torch.testing.assert_close(slope.cpu(), want, rtol=1e-11, atol=1e-13)
    assert slope.sum(-1).abs().max() < 1e-13 * temperature


def test_softmax_kl_is_blind_to_a_common_shift_and_finite_at_huge_logits() -> None:
    z, tau = two(11, 6, 4)
    torch.testing.assert_close(softmax_kl(z + 7.0, tau - 3.0, 2.0), softmax_kl(z, tau, 2.0), rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(softmax_kl_residual(z + 7.0, tau, 2.0), softmax_kl_residual(z, tau, 2.0))
    assert softmax_kl([[1e4, 0.0]], [[0.0, 1e4]], 1.0).item() == pytest.approx(1e4)
    assert softmax_kl_residual([[1e4, 0.0]], [[0.0, 1e4]], 1.0).tolist() == [[1, -1]]


def test_softmax_kl_of_a_batch_in_single_precision_and_of_lists() -> None:
    z, tau = two(12, 3, 5, 4)
    heats = [0.5, 1.0, 4.0]
    loss, slope = softmax_kl(z, tau[0], heats), softmax_kl_residual(z, tau[0], heats)
    for i, T in enumerate(heats):
        torch.testing.assert_close(loss[i], softmax_kl(z[i], tau[0], T))
        torch.testing.assert_close(slope[i], softmax_kl_residual(z[i], tau[0], T))
    low, low_slope = (f(z.float(), tau.float(), 2.0) for f in (softmax_kl, softmax_kl_residual))
    assert (low.dtype, low_slope.dtype) == (torch.float32, torch.float32)
    torch.testing.assert_close(low.double(), softmax_kl(z, tau, 2.0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(low_slope.double(), softmax_kl_residual(z, tau, 2.0), rtol=1e-5, atol=1e-6)
    assert {f([[1, 0]], [[0, 1]], 2).dtype for f in (softmax_kl, softmax_kl_residual)} == {torch.float64}


def test_softmax_kl_runs_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    z, tau = torch.rand(3, 5, 4, device=fake_gpu), torch.rand(5, 4, device=fake_gpu)
    loss, slope = softmax_kl(z, tau, 2.0), softmax_kl_residual(z, tau, 2.0)
    assert (str(loss.device), loss.shape, loss.dtype) == (fake_gpu, (3,), torch.float32)
    assert (str(slope.device), slope.shape, slope.dtype) == (fake_gpu, (3, 5, 4), torch.float32)
