"""Data of the wider settings: counts, splits and moments, from their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from lib.grokking.tasks import Task, modular_addition, student_teacher, whiten


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pairs(inputs: torch.Tensor, modulus: int) -> set[tuple[int, int]]:
    """The pairs of tokens whose one-hot vectors stand in the rows of one run."""
    a, b = inputs[:, :modulus].argmax(-1), inputs[:, modulus:].argmax(-1)
    return set(zip(a.tolist(), b.tolist(), strict=True))


@pytest.mark.parametrize("modulus", [2, 5, 8])
@pytest.mark.parametrize("mirrored", [True, False])
def test_every_pair_stands_in_exactly_one_part_with_its_sum(modulus: int, mirrored: bool) -> None:
    task = modular_addition(modulus, 0.6, 3, mirrored=mirrored, generator=source())
    for run in range(3):
        shown, rest = (pairs(part[run], modulus) for part in (task.train_inputs, task.test_inputs))
        assert not shown & rest
        assert shown | rest == {(a, b) for a in range(modulus) for b in range(modulus)}
        for x, y in ((task.train_inputs, task.train_targets), (task.test_inputs, task.test_targets)):
            torch.testing.assert_close(x[run].square().sum(-1), torch.ones(len(x[run]), dtype=torch.float64))
            torch.testing.assert_close(
                y[run].sum(-1), torch.zeros(len(y[run]), dtype=torch.float64), rtol=0, atol=1e-12
            )
            for row, target in zip(x[run], y[run], strict=True):
                a, b = int(row[:modulus].argmax()), int(row[modulus:].argmax())
                assert int(target.argmax()) == (a + b) % modulus
                assert float(target.max()) == pytest.approx(1 - 1 / modulus)


def test_mirror_images_stay_together_only_if_asked() -> None:
    kept = modular_addition(9, 0.7, 4, generator=source())
    loose = modular_addition(9, 0.7, 4, mirrored=False, generator=source())
    for run in range(4):
        shown = pairs(kept.train_inputs[run], 9)
        assert {(b, a) for a, b in shown} == shown
        shown = pairs(loose.train_inputs[run], 9)
        assert {(b, a) for a, b in shown} != shown
    assert loose.train_inputs.shape[1] == round(0.7 * 81)
    assert abs(kept.train_inputs.shape[1] - 0.7 * 81) <= 1.5
    assert not torch.equal(kept.train_inputs[0], kept.train_inputs[1])


def test_inner_product_of_two_pairs_is_half_the_number_of_shared_tokens() -> None:
    task = modular_addition(4, 0.5, 1, generator=source())
    x = torch.cat([task.train_inputs[0], task.test_inputs[0]])
    tokens = torch.stack([x[:, :4].argmax(-1), x[:, 4:].argmax(-1)], -1)
    shared = (tokens.unsqueeze(0) == tokens.unsqueeze(1)).sum(-1)
    torch.testing.assert_close(x @ x.T, shared / 2.0, check_dtype=False)


def test_a_teacher_is_a_two_layer_network_up_to_an_affine_map() -> None:
    task = student_teacher(6, 40, 60, 2, activation=torch.tanh, units=3, generator=source(3))
    generator = source(3)  # the draws in the order of the definition: inputs, hidden weights, readouts
    x, w, v = (
        torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((2, 100, 6), (2, 6, 3), (2, 3, 1))
    )
    x = x / math.sqrt(6)
    raw = torch.tanh(x @ w) @ v
    y = torch.cat([task.train_targets, task.test_targets], 1)
    torch.testing.assert_close(torch.cat([task.train_inputs, task.test_inputs], 1), x)
    torch.testing.assert_close(y, (raw - raw.mean(1, keepdim=True)) / raw.std(1, keepdim=True, correction=0))
    torch.testing.assert_close(y.square().mean(1), torch.ones(2, 1, dtype=torch.float64))


def test_inputs_of_a_teacher_have_length_about_one() -> None:
    task = student_teacher(50, 500, 500, 1, generator=source())
    assert task.train_inputs.square().sum(-1).mean().item() == pytest.approx(1, abs=0.05)


def test_white_rows_are_those_of_scikit_learn_up_to_signs() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(60, 7)) @ rng.normal(size=(7, 7)) + 3
    white = whiten(rows, 4).numpy()
    peer = PCA(4, whiten=True, svd_solver="full").fit_transform(rows) * math.sqrt(60 / 59 / 4)
    signs = np.sign((white * peer).sum(0))
    np.testing.assert_allclose(white, peer * signs, atol=1e-10)
    np.testing.assert_allclose(white.T @ white / 60, np.eye(4) / 4, atol=1e-12)
    np.testing.assert_allclose(white.mean(0), 0, atol=1e-12)


def test_white_rows_keep_dtype_and_device(device: str) -> None:
    rows = torch.randn(30, 5, generator=source()).to(device)
    white = whiten(rows, 3)
    assert white.dtype == torch.float32
    assert white.device == rows.device
    torch.testing.assert_close(white.square().sum(-1).mean().cpu(), torch.tensor(1.0), rtol=1e-4, atol=0)


def test_a_task_moves_with_all_its_parts(device: str) -> None:
    task = modular_addition(3, 0.5, 1, generator=source()).to(torch.float32).to(device)
    for part in (task.train_inputs, task.train_targets, task.test_inputs, task.test_targets):
        assert part.dtype == torch.float32
        assert part.device.type == device
    assert isinstance(task, Task)


def test_same_seed_same_task() -> None:
    first, again = (modular_addition(7, 0.5, 2, generator=source(4)) for _ in range(2))
    assert torch.equal(first.train_inputs, again.train_inputs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 0.5, 1), "modulus: got 1, want a whole number >= 2"),
        ((5, 0.5, 0), "runs: got 0, want a whole number >= 1"),
        ((5, 1.0, 1), "share: got 1.0, want a number between 0 and 1"),
        ((5, 1e-6, 1), "share: got 1e-06, want one that leaves rows"),
    ],
)
def test_bad_tables_are_named(arguments: tuple[int, float, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        modular_addition(*arguments, generator=source())


def test_bad_teachers_are_named() -> None:
    with pytest.raises(ValueError, match="dim: got 0, want a whole number >= 1"):
        student_teacher(0, 5, 5, 1, generator=source())
    with pytest.raises(ValueError, match="units: got 0"):
        student_teacher(3, 5, 5, 1, units=0, generator=source())
    with pytest.raises(ValueError, match="activation: got 0, want a teacher that is not constant"):
        student_teacher(3, 5, 5, 1, activation=torch.zeros_like, generator=source())


def test_bad_rows_are_named() -> None:
    with pytest.raises(ValueError, match=r"rows: got shape \(3,\), want \(count, features\)"):
        whiten([1.0, 2.0, 3.0], 1)
    with pytest.raises(ValueError, match="rows: got nan, want finite"):
        whiten([[1.0, 2.0], [3.0, math.nan]], 1)
    with pytest.raises(ValueError, match="dim: got 2, want at most the rank of the centred rows, 1"):
        whiten([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], 2)
