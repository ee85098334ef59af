"""Temperature against Brent's root, affine maps against logistic regression, scores against definitions."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss

from lib.temperature_scaling import (
    affine,
    fit_affine_scaling,
    fit_temperature,
    logit_gap,
    overlap_risks,
    proper_scores,
    top_label,
)

from . import oracle


def problem(seed: int, n: int = 200, k: int = 5, scale: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from their softmax at another temperature."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, k))
    labels = (z + rng.gumbel(size=(n, k))).argmax(-1)
    return scale * z, labels


@pytest.mark.parametrize("scale", [0.01, 0.3, 1.0, 30.0])
@pytest.mark.parametrize(("n", "k"), [(3, 2), (200, 5), (5_000, 40)])
def test_the_temperature_is_the_root_of_the_slope(scale: float, n: int, k: int, device: str) -> None:
    z, labels = problem(0, n, k, scale)
    got = fit_temperature(torch.tensor(z, device=device), torch.tensor(labels, device=device))
    want = oracle.temperature(z, labels)
    assert got.temperature.item() == pytest.approx(want, rel=1e-8)
    assert got.nll.item() == pytest.approx(oracle.nll_at(1 / want, z, labels), rel=1e-12)
    if 1e-3 < want < 1e3:
        assert abs(got.gradient.item()) < 1e-10 * max(scale, 1)


def test_large_problems_use_all_their_rows() -> None:
    z, labels = problem(1, 70_001, 6, 5.0)
    z[-2_000:] *= -1  # the last rows are unlike the first: a fit of a subset would miss them
    got = fit_temperature(z, labels)
    assert got.temperature.item() == pytest.approx(oracle.temperature(z, labels), rel=1e-9)
    assert abs(got.gradient.item()) < 1e-10


def test_constant_gaps_have_the_closed_form() -> None:
    k, wrong, n, gap = 10, 60, 300, 12.0
    labels = np.arange(n) % k
    guess = np.where(np.arange(n) < wrong, (labels + 1) % k, labels)
    got = fit_temperature(gap * np.eye(k)[guess], labels)
    assert gap / got.temperature.item() == pytest.approx(math.log(0.8 * 9 / 0.2), rel=1e-10)
    assert got.nll.item() == pytest.approx(overlap_risks(0.4, k).scaled_nll.item(), rel=1e-12)


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.floats(0.02, 50), st.floats(-100, 100))
def test_shift_changes_nothing_and_scale_multiplies_the_temperature(seed: int, scale: float, shift: float) -> None:
    z, labels = problem(seed, 60, 4, 1.0)
    plain, moved = fit_temperature(z, labels), fit_temperature(scale * z + shift, labels)
    if 0.1 < plain.temperature < 10:
        assert (moved.temperature / plain.temperature).item() == pytest.approx(scale, rel=1e-7)
        assert moved.nll.item() == pytest.approx(plain.nll.item(), rel=1e-10)


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.floats(0.05, 20))
def test_no_other_temperature_does_better(seed: int, factor: float) -> None:
    z, labels = problem(seed, 30, 3, 2.0)
    got = fit_temperature(z, labels)
    assert got.nll.item() <= oracle.nll_at(factor / got.temperature.item(), z, labels) + 1e-12


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6, 1e30])
def test_separable_data_end_at_the_lower_bound_and_worse_than_chance_at_the_upper(scale: float) -> None:
    z, right, wrong = scale * np.eye(3), np.arange(3), (np.arange(3) + 1) % 3
    for labels, end, sign in ((right, 1e-3, -1), (wrong, 1e3, 1)):
        got = fit_temperature(z, labels)
        assert got.temperature.item() == pytest.approx(end, rel=1e-12)
        assert got.nll.item() == pytest.approx(oracle.nll_at(1 / end, z, labels), rel=1e-12, abs=1e-300)
        assert got.gradient.item() * sign >= 0
        assert math.isfinite(got.gradient.item())
        assert fit_temperature(z, labels, bounds=(0.1, 10.0)).temperature.item() == pytest.approx(
            {-1: 0.1, 1: 10}[sign]
        )


def test_flat_logits_and_single_rows_give_numbers() -> None:
    flat = fit_temperature(np.ones((4, 3)), [0, 1, 2, 0])
    assert flat.nll.item() == pytest.approx(math.log(3), rel=1e-14)
    assert flat.gradient.item() == 0
    assert flat.temperature.item() == pytest.approx(1e-3)
    assert fit_temperature([[2.0, 1.0]], [0]).temperature.item() == pytest.approx(1e-3)
    assert fit_temperature([[2.0, 1.0]], [1]).temperature.item() == pytest.approx(1e3)


def test_badly_scaled_rows_do_not_throw_the_search_off() -> None:
    rng = np.random.default_rng(2)
    for seed in range(20):
        z, labels = problem(seed, 50, 4, 1.0)
        z *= np.exp(rng.normal(0, 3, size=(50, 1)))
        got = fit_temperature(z, labels)
        assert got.temperature.item() == pytest.approx(oracle.temperature(z, labels), rel=1e-7)


def test_the_fit_of_a_batch_is_the_loop() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(2, 3, 40, 4)) * np.exp(rng.normal(size=(2, 3, 1, 1)))
    labels = rng.integers(4, size=(2, 3, 40))
    labels[:, 0] = z[:, 0].argmax(-1)  # separable
    got = fit_temperature(z, labels)
    for i in np.ndindex(2, 3):
        alone = fit_temperature(z[i], labels[i])
        for name in ("temperature", "nll", "gradient"):
            assert getattr(got, name).shape == (2, 3)
            assert getattr(got, name)[i].item() == pytest.approx(getattr(alone, name).item(), rel=1e-9, abs=1e-12)


def test_batch_axes_of_logits_and_labels_broadcast() -> None:
    z, labels = problem(0, 40, 4)
    many = np.stack([labels, np.roll(labels, 1)])
    got = fit_temperature(z, many)
    assert got.temperature.shape == (2,)
    for i in range(2):
        assert got.temperature[i].item() == pytest.approx(oracle.temperature(z, many[i]), rel=1e-8)
    assert fit_temperature(np.stack([z, 2 * z]), labels).temperature.shape == (2,)


@pytest.mark.parametrize("size", [100, 40_000])
def test_float32_is_kept_and_agrees_with_float64(size: int) -> None:
    z, labels = problem(3, size, 10, 4.0)
    single = torch.tensor(z, dtype=torch.float32)
    got, want = fit_temperature(single, torch.tensor(labels)), fit_temperature(single.double(), torch.tensor(labels))
    assert {x.dtype for x in (got.temperature, got.nll, got.gradient)} == {torch.float32}
    torch.testing.assert_close(got.temperature.double(), want.temperature, rtol=2e-6, atol=0)
    torch.testing.assert_close(got.nll.double(), want.nll, rtol=2e-6, atol=0)
    assert fit_temperature(z.tolist()[:50], labels.tolist()[:50]).temperature.dtype == torch.float64


AFFINE_KINDS = ["matrix", "vector"]


def planted(seed: int, n: int = 3000, k: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose labels follow an affine map of them, which no diagonal one equals."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, k))
    true = z @ (np.eye(k) + 0.7 * rng.normal(size=(k, k))) + rng.normal(size=k)
    return z, (true + rng.gumbel(size=(n, k))).argmax(-1)


def test_matrix_scaling_is_logistic_regression(device: str) -> None:
    z, labels = planted(0)
    got = fit_affine_scaling(torch.tensor(z, device=device), torch.tensor(labels, device=device))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        peer = LogisticRegression(C=1e8, tol=1e-10, max_iter=5000).fit(z, labels)
    assert got.nll.item() == pytest.approx(log_loss(labels, peer.predict_proba(z)), abs=1e-6)
    weight, bias = got.weight.cpu().numpy(), got.bias.cpu().numpy()
    assert (weight.shape, bias.shape) == ((4, 4), (4,))
    mine = oracle.softmax(z @ weight.T + bias)
    np.testing.assert_allclose(mine, peer.predict_proba(z), atol=1e-3)
    assert got.nll.item() == pytest.approx(log_loss(labels, mine), rel=1e-9)


@pytest.mark.parametrize("kind", AFFINE_KINDS)
def test_the_fit_is_stationary_and_no_neighbour_is_better(kind: str) -> None:
    z, labels = planted(1, 400, 3)
    got = fit_affine_scaling(z, labels, kind=kind, ridge=1e-6)
    assert got.gradient_norm.item() < 1e-6
    weight, bias, rng = got.weight.numpy(), got.bias.numpy(), np.random.default_rng(0)
    if kind == "vector":
        assert np.count_nonzero(weight - np.diag(np.diag(weight))) == 0
    for _ in range(50):
        step = 0.02 * rng.normal(size=weight.shape) * (np.eye(3) if kind == "vector" else 1)
        other = oracle.nll_at(1.0, z @ (weight + step).T + bias + 0.02 * rng.normal(size=3), labels)
        assert other >= got.nll.item() - 1e-6
    assert got.nll.item() <= fit_temperature(z, labels).nll.item() + 1e-9


def test_more_freedom_fits_better_and_vectors_cannot_do_what_matrices_can() -> None:
    z, labels = planted(2)
    vector, matrix = (fit_affine_scaling(z, labels, kind=kind).nll.item() for kind in ("vector", "matrix"))
    assert matrix < vector - 0.01
    assert vector < fit_temperature(z, labels).nll.item() - 0.01


def test_matrices_escape_the_overlap_and_vectors_do_not() -> None:
    k, n, rng = 10, 20_000, np.random.default_rng(0)
    labels = rng.integers(k, size=n)
    guess = np.where(rng.random(n) < 0.4, labels - labels % 2 + rng.integers(2, size=n), labels)
    matrix, vector = (fit_affine_scaling(5.0 * np.eye(k)[guess], labels, kind=kind).nll.item() for kind in AFFINE_KINDS)
    table = np.zeros((k, k))
    np.add.at(table, (labels, guess), 1 / n)
    lookup = -float(special.xlogy(table, table / table.sum(0)).sum())  # of labels given guesses, in this sample
    assert matrix == pytest.approx(lookup, abs=2e-4)
    scaled = oracle.confidence_nll(float(np.trace(table)), float(1 - np.trace(table)), k)
    assert scaled - 40 / n < vector < scaled  # 20 numbers more than one temperature has
    want, spread = overlap_risks(0.4, k), 4 * math.sqrt(0.2 * 0.8 / n)
    assert matrix == pytest.approx(want.recalibrated_nll.item(), abs=spread * math.log(4))
    assert vector == pytest.approx(want.scaled_nll.item(), abs=spread * math.log(36))


@pytest.mark.parametrize("kind", AFFINE_KINDS)
def test_a_heavy_ridge_and_separable_data_stay_finite(kind: str) -> None:
    z, labels = np.eye(3).repeat(4, 0), np.arange(3).repeat(4)
    got = fit_affine_scaling(z, labels, kind=kind)
    for x in (got.weight, got.bias, got.nll, got.gradient_norm):
        assert bool(x.isfinite().all())
    assert 0 <= got.nll.item() < 1e-2
    heavy = fit_affine_scaling(z, labels, kind=kind, ridge=1.0)
    assert heavy.nll.item() > got.nll.item()


@pytest.mark.parametrize("kind", AFFINE_KINDS)
def test_affine_fits_of_a_batch_are_the_loop(kind: str) -> None:
    pairs = [planted(seed, 150, 3) for seed in range(3)]
    z, labels = np.stack([p[0] for p in pairs]), np.stack([p[1] for p in pairs])
    got = fit_affine_scaling(z, labels, kind=kind)
    assert (got.weight.shape, got.bias.shape, got.nll.shape) == ((3, 3, 3), (3, 3), (3,))
    for i in range(3):
        alone = fit_affine_scaling(z[i], labels[i], kind=kind)
        assert got.nll[i].item() == pytest.approx(alone.nll.item(), rel=1e-8)
        torch.testing.assert_close(got.weight[i], alone.weight, rtol=1e-4, atol=1e-4)


def test_affine_fits_keep_float32() -> None:
    z, labels = planted(3, 500, 3)
    single = fit_affine_scaling(torch.tensor(z, dtype=torch.float32), torch.tensor(labels))
    assert {x.dtype for x in (single.weight, single.bias, single.nll, single.gradient_norm)} == {torch.float32}
    assert single.nll.item() == pytest.approx(fit_affine_scaling(z, labels).nll.item(), rel=1e-4)


@pytest.mark.parametrize("shape", [(7, 4), (2, 3, 7, 4)])
def test_the_gap_is_the_label_above_the_best_other(shape: tuple[int, ...], device: str) -> None:
    rng = np.random.default_rng(0)
    z, labels = rng.normal(size=shape), rng.integers(4, size=shape[:-1])
    given = torch.tensor(z, device=device)
    with_labels = logit_gap(given, torch.tensor(labels, device=device))
    without = logit_gap(given)
    assert with_labels.shape == without.shape == shape[:-1]
    for i in np.ndindex(shape[:-1]):
        others = np.delete(z[i], labels[i])
        assert with_labels[i].item() == pytest.approx(z[i][labels[i]] - others.max(), abs=1e-14)
        first, second = np.sort(z[i])[::-1][:2]
        assert without[i].item() == pytest.approx(first - second, abs=1e-14)


def test_gaps_of_ties_are_zero_and_have_gradients() -> None:
    assert logit_gap([[2.0, 2.0, 1.0]]).tolist() == [0]
    assert logit_gap([[2.0, 2.0, 1.0]], [1]).tolist() == [0]
    assert logit_gap([[2.0, 5.0, 1.0]], [0]).tolist() == [-3]
    z = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: (logit_gap(z), logit_gap(z, torch.tensor([0, 1, 2, 0]))), (z,))


@pytest.mark.parametrize("T", [0.1, 1.0, 7.0])
def test_the_top_label_is_the_largest_probability_and_whether_it_is_right(T: float, device: str) -> None:
    z, labels = problem(0, 300, 6)
    got = top_label(torch.tensor(z, device=device), torch.tensor(labels, device=device), T)
    p = oracle.softmax(z, T)
    np.testing.assert_allclose(got[0].cpu().numpy(), p.max(-1), atol=1e-14)
    np.testing.assert_array_equal(got[1].cpu().numpy().astype(bool), p.argmax(-1) == labels)


def test_a_batch_of_temperatures_is_the_loop() -> None:
    z, labels = np.random.default_rng(0).normal(size=(3, 20, 4)), np.random.default_rng(1).integers(4, size=(3, 20))
    temperatures = [0.5, 1.0, 3.0]
    confidence, correct = top_label(z, labels, temperatures)
    scores = proper_scores(z, labels, temperatures)
    for i, T in enumerate(temperatures):
        alone = top_label(z[i], labels[i], T)
        torch.testing.assert_close((confidence[i], correct[i]), alone)
        one = proper_scores(z[i], labels[i], T)
        for name in ("nll", "brier", "accuracy"):
            assert getattr(scores, name)[i].item() == pytest.approx(getattr(one, name).item(), abs=1e-14)


@pytest.mark.parametrize("scale", [1e4, 1e30])
def test_huge_logits_and_tiny_temperatures_do_not_overflow(scale: float) -> None:
    z, labels = scale * np.array([[1.0, 0.0], [0.0, 1.0]]), [0, 1]
    confidence, correct = top_label(z, labels, 1e-3)
    assert confidence.tolist() == [1, 1]
    assert correct.tolist() == [1, 1]
    got = proper_scores(z, labels)
    assert (got.nll.item(), got.brier.item(), got.accuracy.item()) == (0, 0, 1)
    assert proper_scores(z, [1, 0]).nll.item() == pytest.approx(scale)


@pytest.mark.parametrize("T", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("k", [2, 7])
def test_scores_are_those_of_sklearn(T: float, k: int, device: str) -> None:
    z, labels = problem(5, 400, k)
    got = proper_scores(torch.tensor(z, device=device), torch.tensor(labels, device=device), T)
    p = oracle.softmax(z, T)
    assert got.nll.item() == pytest.approx(log_loss(labels, p, labels=range(k)), rel=1e-12)
    brier = brier_score_loss(labels, p, labels=list(range(k)), scale_by_half=False)
    assert got.brier.item() == pytest.approx(brier, rel=1e-12)
    assert got.accuracy.item() == pytest.approx((p.argmax(-1) == labels).mean(), rel=1e-15)


def test_scores_have_the_gradient_of_finite_differences() -> None:
    z, labels = problem(6, 8, 3, 1.0)
    logits, T = torch.tensor(z, requires_grad=True), torch.tensor(1.7, dtype=torch.float64, requires_grad=True)

    def scores(logits: torch.Tensor, T: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        got = proper_scores(logits, torch.tensor(labels), T)
        return got.nll, got.brier

    assert torch.autograd.gradcheck(scores, (logits, T))


@pytest.mark.parametrize("size", [50, 30_000])
def test_scores_and_top_labels_keep_float32(size: int) -> None:
    z, labels = problem(7, size, 5)
    single, double = (torch.tensor(z, dtype=dtype) for dtype in (torch.float32, torch.float64))
    y = torch.tensor(labels)
    assert top_label(single, y)[0].dtype == torch.float32
    torch.testing.assert_close(top_label(single, y)[0].double(), top_label(double, y)[0], rtol=0, atol=1e-6)
    one, two = proper_scores(single, y), proper_scores(double, y)
    for name in ("nll", "brier", "accuracy"):
        assert getattr(one, name).dtype == torch.float32
        torch.testing.assert_close(getattr(one, name).double(), getattr(two, name), rtol=1e-6, atol=1e-7)
    assert proper_scores(z.tolist()[:9], labels.tolist()[:9]).nll.dtype == torch.float64


@pytest.mark.parametrize("size", [9, 20_000])
def test_all_run_on_an_accelerator_without_a_host_sync(size: int, fake_gpu: str) -> None:
    z = torch.empty(2, size, 3, device=fake_gpu)
    labels = torch.empty(2, size, dtype=torch.int64, device=fake_gpu)
    fit, scores = fit_temperature(z, labels), proper_scores(z, labels, torch.empty(2, device=fake_gpu))
    for got in (fit.temperature, fit.nll, fit.gradient, scores.nll, scores.brier, scores.accuracy):
        assert (str(got.device), got.dtype, got.shape) == (fake_gpu, torch.float32, (2,))
    for got in (logit_gap(z), logit_gap(z, labels), top_label(z, labels)[0]):
        assert (str(got.device), got.dtype, got.shape) == (fake_gpu, torch.float32, (2, size))


@pytest.mark.parametrize("kind", AFFINE_KINDS)
def test_affine_fits_run_on_an_accelerator_without_a_host_sync(
    kind: str, fake_gpu: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(affine, "STEPS", 5)  # of 100: none is left out there, and pretending is slow
    labels = torch.empty(9, dtype=torch.int64, device=fake_gpu)
    got = fit_affine_scaling(torch.empty(9, 3, device=fake_gpu), labels, kind=kind)
    assert str(got.weight.device) == fake_gpu
    assert (got.weight.shape, got.bias.shape, got.nll.shape) == ((3, 3), (3,), ())


GOOD = {"logits": [[1.0, 2.0], [0.0, 1.0], [3.0, 0.0]], "labels": [0, 1, 0]}
WRONG = [
    ({"logits": [[1.0, math.nan]] * 3}, "logits"),
    ({"logits": [[1.0, math.inf]] * 3}, "logits"),
    ({"logits": 1.0}, "logits"),
    ({"logits": [["a", "b"]] * 3}, "logits"),
    ({"logits": [[], [], []]}, "logits"),
    ({"logits": [[1.0]] * 3}, "logits"),
    ({"labels": [0, 1, 2]}, "labels"),
    ({"labels": [0, -1, 1]}, "labels"),
    ({"labels": [0.0, 1.0, 0.0]}, "labels"),
    ({"labels": [True, False, True]}, "labels"),
    ({"labels": [0, 1]}, "labels"),
    ({"labels": 0}, "labels"),
]


@pytest.mark.parametrize(("change", "name"), WRONG)
def test_what_is_wrong_with_logits_or_labels_is_named(change: dict[str, object], name: str) -> None:
    for call in (fit_temperature, fit_affine_scaling, top_label, proper_scores, logit_gap):
        with pytest.raises(ValueError, match=rf"^{name}: got .*want "):
            call(**GOOD | change)  # type: ignore[arg-type]


def test_no_rows_are_refused_where_a_mean_is_wanted() -> None:
    empty = np.zeros((0, 3)), np.zeros(0, dtype=np.int64)
    for call in (fit_temperature, fit_affine_scaling, proper_scores):
        with pytest.raises(ValueError, match=r"^logits: got shape \(0, 3\), want "):
            call(*empty)


@pytest.mark.parametrize("T", [0.0, -1.0, math.nan, math.inf, [1.0, 2.0]])
def test_a_temperature_that_is_none_is_named(T: object) -> None:
    for call in (top_label, proper_scores):
        with pytest.raises(ValueError, match=r"temperature.*: got .*want "):
            call(**GOOD, temperature=T)  # type: ignore[arg-type]


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (2.0, 1.0), (-1.0, 1.0), (1.0, 1.0), (0.1, math.inf), (math.nan, 1.0)])
def test_wrong_bounds_are_named(bounds: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"^bounds: got .*want "):
        fit_temperature(**GOOD, bounds=bounds)  # type: ignore[arg-type]


def test_other_wrong_options_are_named() -> None:
    with pytest.raises(ValueError, match=r"^steps: got 0, want "):
        fit_temperature(**GOOD, steps=0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^kind: got 'scalar', want "):
        fit_affine_scaling(**GOOD, kind="scalar")  # type: ignore[arg-type]
    for ridge in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=r"^ridge: got .*want "):
            fit_affine_scaling(**GOOD, ridge=ridge)  # type: ignore[arg-type]
