"""The real data: what is in it, how it is split, how it is scaled."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.data import digits, mnist5k, one_hot_centred, standardise, stratified_split


@pytest.mark.parametrize(("load", "count", "side"), [(digits, 1797, 8), (mnist5k, 5000, 28)])
def test_images_are_grey_levels_with_ten_labels(load: type, count: int, side: int) -> None:
    images = load()
    assert images.pixels.shape == (count, side * side)
    assert images.side == side
    assert images.pixels.dtype == torch.float64
    assert (images.pixels.min(), images.pixels.max()) == (0.0, 1.0)
    assert images.labels.unique().tolist() == list(range(10))


@given(st.integers(20, 60), st.integers(20, 60), st.integers(0, 99))
def test_a_split_is_disjoint_stratified_and_repeatable(train: int, test: int, seed: int) -> None:
    labels = torch.arange(200) % 4
    split = stratified_split(labels, train, test, generator=torch.Generator().manual_seed(seed))
    again = stratified_split(labels, train, test, generator=torch.Generator().manual_seed(seed))
    assert (len(split.train), len(split.test)) == (train, test)
    assert len(set(split.train.tolist()) | set(split.test.tolist())) == train + test
    assert torch.equal(split.train, again.train)
    for part in (split.train, split.test):
        counts = labels[part].bincount(minlength=4)
        assert counts.max() - counts.min() <= 1


def test_another_seed_gives_another_split() -> None:
    labels = torch.arange(200) % 4
    parts = [stratified_split(labels, 50, 50, generator=torch.Generator().manual_seed(s)).train for s in (0, 1)]
    assert not torch.equal(*parts)


@pytest.mark.parametrize(
    ("labels", "train", "test", "message"),
    [
        ([0, 1, 0, 1], 4, 1, r"train and test: got 4 \+ 1 rows, want at most 4"),
        ([0, 1, 0, 1], 0, 1, "train: got 0, want a whole number >= 1"),
        ([0, 1, 0, 1], 2, -1, "test: got -1, want a whole number >= 1"),
        ([0, 1, 0, 1], 1, 2, "cannot be stratified"),
    ],
)
def test_a_split_that_cannot_be_is_refused(labels: list[int], train: int, test: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stratified_split(torch.tensor(labels), train, test, generator=torch.Generator())


@pytest.mark.parametrize("labels", [[0.5, 1.0], [[0, 1]], [], ["a", "b"], [True, False]])
def test_labels_that_are_no_row_of_whole_numbers_are_refused(labels: list[Any]) -> None:
    with pytest.raises(ValueError, match="labels: got "):
        stratified_split(labels, 1, 1, generator=torch.Generator())
    with pytest.raises(ValueError, match="labels: got "):
        one_hot_centred(labels, 2)


def test_standardising_uses_the_training_part_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    train, test = 3 + 2 * torch.randn(50, 4, generator=generator), torch.randn(20, 4, generator=generator)
    train[:, 3] = 7.0
    got = standardise(train, test)
    torch.testing.assert_close(got.train.mean(0), torch.zeros(4), atol=1e-6, rtol=0)
    torch.testing.assert_close(got.train[:, :3].std(0, correction=0), torch.ones(3))
    torch.testing.assert_close(got.test, (test - got.mean) / got.deviation)
    assert got.train[:, 3].abs().max() == 0
    assert got.deviation[3] == 1
    with pytest.raises(ValueError, match=r"test: got shape \(20, 3\), want \(test, 4\)"):
        standardise(train.numpy(), test[:, :3].numpy())


def test_targets_are_centred_one_hot_rows() -> None:
    got = one_hot_centred(torch.tensor([2, 0, 2]), 3)
    torch.testing.assert_close(got.sum(0), torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(got[0] - got[1], torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64))
    with pytest.raises(ValueError, match="labels: got 2, want whole numbers from 0 to 1"):
        one_hot_centred([2, 0], 2)


def test_parts_may_be_numbers_of_numpy_but_no_truth_values() -> None:
    labels, plain = torch.arange(40) % 2, inspect.unwrap(stratified_split)
    split = plain(labels, np.int64(10), np.int64(6), generator=torch.Generator().manual_seed(0))
    assert (len(split.train), len(split.test)) == (10, 6)
    with pytest.raises(ValueError, match="train: got True, want a whole number >= 1"):
        plain(labels, True, 6, generator=torch.Generator())
