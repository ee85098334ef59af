"""Affine maps of logits against logistic regression and tables of labels."""

from __future__ import annotations

import inspect
import math
import warnings

import numpy as np
import pytest
import torch
from scipy import special
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from lib.temperature_scaling import (
    affine,
    fit_affine_scaling,
    fit_temperature,
    overlap_risks,
)

from . import oracle

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
@pytest.mark.parametrize("scale", [1e-3, 1e3, 1e4, 1e6])
def test_the_minimum_does_not_depend_on_the_scale_of_the_logits(kind: str, scale: float) -> None:
    z, labels = planted(5, 300, 4)
    want = fit_affine_scaling(z, labels, kind=kind, ridge=0)
    got = fit_affine_scaling(scale * z, labels, kind=kind, ridge=0)  # from 1e3 on the softmax of all rows saturates
    assert got.nll.item() == pytest.approx(want.nll.item(), rel=1e-9)
    weight, bias = got.weight.numpy(), got.bias.numpy()
    np.testing.assert_allclose(
        oracle.softmax(scale * z @ weight.T + bias),
        oracle.softmax(z @ want.weight.numpy().T + want.bias.numpy()),
        atol=1e-5,
    )


@pytest.mark.parametrize("kind", AFFINE_KINDS)
@pytest.mark.parametrize(("scale", "right"), [(1e3, 0.0), (1e4, 0.0), (1e4, 0.9), (1e3, 0.99), (1e8, 0.5), (1e4, 1.0)])
def test_no_map_scores_worse_than_a_temperature_where_the_softmax_saturates(
    kind: str, scale: float, right: float
) -> None:
    rng = np.random.default_rng(0)
    z = scale * rng.normal(size=(200, 4))
    labels = np.where(rng.random(200) < right, z.argmax(-1), rng.integers(4, size=200))
    got = fit_affine_scaling(z, labels, kind=kind)
    assert got.nll.item() <= fit_temperature(z, labels, bounds=(1e-3, 1e12)).nll.item() + 1e-5
    assert got.nll.item() == pytest.approx(
        oracle.nll_at(1.0, z @ got.weight.numpy().T + got.bias.numpy(), labels), rel=1e-6, abs=1e-9
    )


@pytest.mark.parametrize("kind", AFFINE_KINDS)
def test_vmap_is_a_batch_and_an_empty_batch_has_empty_fits(kind: str) -> None:
    pairs = [planted(seed, 100, 3) for seed in range(3)]
    z, labels = (torch.tensor(np.stack(part)) for part in zip(*pairs, strict=True))
    got = torch.func.vmap(lambda a, b: vars(fit_affine_scaling(a, b, kind=kind)))(z, labels)
    want = fit_affine_scaling(z, labels, kind=kind)
    torch.testing.assert_close(got["nll"], want.nll, rtol=1e-9, atol=0)
    torch.testing.assert_close(got["weight"], want.weight, rtol=1e-4, atol=1e-4)
    none = fit_affine_scaling(z[:0], labels[:0], kind=kind)
    assert (none.weight.shape, none.bias.shape, none.nll.shape) == ((0, 3, 3), (0, 3), (0,))


def test_a_ridge_may_be_numpys_or_a_tensor_without_axes() -> None:
    z, labels = planted(4, 50, 3)
    want = fit_affine_scaling(z, labels, ridge=0.5).weight
    for ridge in (np.float32(0.5), torch.tensor(0.5)):
        got = inspect.unwrap(fit_affine_scaling)(z, labels, ridge=ridge).weight
        torch.testing.assert_close(got, want, rtol=0, atol=0)


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


@pytest.mark.parametrize("kind", AFFINE_KINDS)
def test_affine_fits_run_on_an_accelerator_without_a_host_sync(
    kind: str, fake_gpu: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(affine, "STEPS", 5)  # of 100: none is left out there, and pretending is slow
    labels = torch.empty(9, dtype=torch.int64, device=fake_gpu)
    got = fit_affine_scaling(torch.empty(9, 3, device=fake_gpu), labels, kind=kind)
    assert str(got.weight.device) == fake_gpu
    assert (got.weight.shape, got.bias.shape, got.nll.shape) == ((3, 3), (3,), ())


def test_wrong_maps_and_ridges_are_named() -> None:
    with pytest.raises(ValueError, match=r"^kind: got 'scalar', want "):
        fit_affine_scaling([[1.0, 2.0]], [0], kind="scalar")
    for ridge in (-1.0, math.nan, math.inf, True):
        with pytest.raises(ValueError, match=r"^ridge: got .*want "):
            fit_affine_scaling([[1.0, 2.0]], [0], ridge=ridge)
