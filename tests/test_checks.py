"""The front door: what comes in becomes float64, what is wrong is named."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from lib.checks import (
    as_device,
    as_float,
    as_whole,
    broadcast_batch,
    indicator,
    is_known,
    may_hold,
    read_count,
    read_finite,
    read_nonnegative,
    read_positive,
    read_single,
    read_size,
    read_whole,
    require,
    require_finite,
    require_nonnegative,
    require_positive,
    require_shape,
    shared_kind,
)


@pytest.mark.parametrize("value", [0.2, [0.2], np.float32(0.5), np.array([1, 2], dtype=np.int8), 3, (1, 2.5)])
def test_everything_but_a_tensor_becomes_float64(value: object) -> None:
    got = as_float("x", value)  # type: ignore[arg-type]
    assert got.dtype == torch.float64
    np.testing.assert_array_equal(got.numpy(), np.asarray(value, dtype=np.float64))


def test_a_number_keeps_all_its_digits() -> None:
    assert as_float("x", 0.2).item() == 0.2
    assert as_float("x", [0.2], like=torch.zeros(1, dtype=torch.float64)).item() == 0.2


def test_a_floating_tensor_keeps_its_dtype_and_whole_numbers_become_float64() -> None:
    assert as_float("x", torch.ones(2)).dtype == torch.float32
    assert as_float("x", torch.ones(2, dtype=torch.int32)).dtype == torch.float64
    assert as_float("x", torch.ones(2, dtype=torch.float64), like=torch.ones(1)).dtype == torch.float32


@pytest.mark.parametrize("array", [np.ones(2), [1.0, 2.0], (1.0,)])
def test_a_lone_number_of_single_precision_takes_no_digits_from_an_array(array: object) -> None:
    lone, row = torch.tensor(0.9), torch.ones(2)
    assert shared_kind(lone, array).dtype == shared_kind(array, 1.0).dtype == torch.float64
    assert (
        shared_kind(lone, 0.3).dtype == shared_kind(row, array).dtype == shared_kind(lone, row).dtype == torch.float32
    )


def test_the_input_of_the_caller_is_not_shared() -> None:
    mine = np.ones(3)[::-1]
    as_float("x", mine)[0] = 7
    assert mine.sum() == 3


NO_NUMBERS = [
    "two",
    "3",
    [1, "2"],
    b"3",
    np.datetime64("2020-01-01"),
    [[1], [1, 2]],
    [1j],
    torch.tensor(1j),
    [None],
    10**400,
]


@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
def test_what_is_no_number_is_named(value: object) -> None:
    with pytest.raises(ValueError, match=r"ridge: got .*, want real numbers"):
        as_float("ridge", value)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"ridge: got .*, want real numbers"):
        as_float("ridge", value, like=torch.zeros(1))  # type: ignore[arg-type]


def test_not_finite_is_named_also_where_sums_are_at_hand() -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, torch.inf]])
    require_finite("x", x[:1])
    require_finite("x", torch.full((2, 2), 1e308, dtype=torch.float64))  # the sum overflows, no entry does
    for sums in (None, x.sum()):
        with pytest.raises(ValueError, match="x: got inf, want finite numbers"):
            require_finite("x", x, sums)


def test_numbers_reach_a_pretend_accelerator(fake_gpu: str) -> None:
    like = torch.empty(3, device=fake_gpu)
    got = as_float("ridge", 0.5, like=like)
    require_positive("ridge", got)
    assert str(got.device) == fake_gpu
    assert got.dtype == torch.float32


def test_values_are_named_with_the_first_offender() -> None:
    with pytest.raises(ValueError, match=r"ridge: got -2, want a finite number >= 0"):
        require_nonnegative("ridge", torch.tensor([1.0, -2.0, -3.0]))
    with pytest.raises(ValueError, match=r"n: got nan, want a positive number"):
        require_positive("n", torch.tensor(float("nan")))
    with pytest.raises(ValueError, match=r"n: got inf"):
        require_positive("n", torch.tensor(float("inf")))
    require_positive("n", torch.tensor(float("inf")), finite=False)
    with pytest.raises(ValueError, match=r"p: got 2, want less than one"):
        require("p", torch.tensor([True, False]), "less than one", torch.tensor([0.0, 2.0]))
    with pytest.raises(ValueError, match=r"p: got 1\.000002, want one"):  # not 1, which was wanted
        require("p", torch.tensor(False), "one", torch.tensor(1.000002, dtype=torch.float64))


def test_shapes_are_named() -> None:
    with pytest.raises(ValueError, match=r"x: got shape \(2,\), want \(n, 3\)"):
        require_shape("x", torch.zeros(2), False, "(n, 3)")
    with pytest.raises(ValueError, match=r"n \(2,\), ridge \(3,\): got shapes that do not broadcast"):
        broadcast_batch(n=(2,), ridge=(3,))
    assert broadcast_batch(n=(2, 1), ridge=(3,)) == (2, 3)


def test_labels_are_a_row_of_whole_numbers() -> None:
    assert as_whole("labels", np.array([0, 3], dtype=np.uint8)).dtype == torch.int64
    with pytest.raises(ValueError, match=r"labels: got torch.float64, want whole numbers"):
        as_whole("labels", [0.0, 1.0])
    with pytest.raises(ValueError, match=r"labels: got shape \(1, 2\), want \(count,\)"):
        as_whole("labels", [[0, 1]])


def test_whole_numbers_of_any_shape_keep_their_device() -> None:
    got = read_whole("tokens", [[0, 3], [1, 2]], torch.device("cpu"))
    assert got.tolist() == [[0, 3], [1, 2]]
    assert got.dtype == torch.int64
    assert read_whole("tokens", torch.tensor(5, dtype=torch.int8)).item() == 5
    for kind in (">i8", "<i4", ">u2", np.uint8):  # files of images come in the other order of bytes
        assert read_whole("labels", np.array([3, 2], dtype=kind)).tolist() == [3, 2]
    for value, seen in (([0.0], "torch.float64"), ([True], "torch.bool"), (["a"], r"list \['a'\]"), ([1j], "torch.c")):
        with pytest.raises(ValueError, match=f"tokens: got {seen}.*, want whole numbers"):
            read_whole("tokens", value)


@pytest.mark.parametrize("value", [0, -3, 1.0, True, "2", None, float("nan")], ids=repr)
def test_a_size_is_one_whole_number(value: object) -> None:
    assert read_size("steps", np.int64(1), 1) == 1
    with pytest.raises(ValueError, match=f"steps: got {value!r}, want a whole number >= 1"):
        read_size("steps", value, 1)


@pytest.mark.parametrize(
    "value", [1.5, np.float32(1.5), np.array(1.5), torch.tensor(1.5), torch.tensor(1.5).double()], ids=repr
)
def test_a_single_number_may_be_numpys_or_a_tensor_without_axes(value: object) -> None:
    got = read_single("tau", value, "a number")
    assert (type(got), got) == (float, 1.5)
    assert read_single("tau", torch.tensor(2), "a number") == 2.0


@pytest.mark.parametrize(
    "value", [True, np.True_, torch.tensor(True), torch.tensor(1j), torch.ones(1), [1.5], "1.5", None, 1j], ids=repr
)
def test_what_is_no_single_number_is_named(value: object) -> None:
    with pytest.raises(ValueError, match=r"tau: got .*, want a number"):
        read_single("tau", value, "a number")


@pytest.mark.parametrize("value", [1, 2.5, [3, 1], True, float("inf"), float("nan")], ids=repr)
def test_counts_are_whole_but_kept_as_floating_numbers(value: object) -> None:
    like = torch.zeros(1, dtype=torch.float32)
    got = read_count("classes", [2, 7], like, 2)
    assert got.dtype == torch.float32
    assert got.tolist() == [2, 7]
    with pytest.raises(ValueError, match=r"classes: got .*, want a whole number >= 2"):
        read_count("classes", value, like, 2)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("read", "fine", "bad", "want"),
    [
        (read_finite, -1.5, float("inf"), "a finite number"),
        (read_positive, 0.5, 0.0, "a positive number"),
        (read_positive, 2.0, float("inf"), "a positive number"),
        (read_nonnegative, 0.0, -1e-300, "a finite number >= 0"),
        (read_nonnegative, 1.0, float("nan"), "a finite number >= 0"),
    ],
)
def test_numbers_of_a_sign_are_read(read: Any, fine: float, bad: float, want: str) -> None:
    assert read("alpha", [fine, 1.0]).tolist() == [fine, 1.0]
    assert read("alpha", fine, torch.zeros(1)).dtype == torch.float32
    with pytest.raises(ValueError, match=rf"alpha: got {bad:.6g}, want {want}"):
        read("alpha", [1.0, bad])


def test_an_indicator_is_one_hot_also_inside_vmap() -> None:
    numbers, like = torch.tensor([[0, 2], [1, 1]]), torch.zeros(1, dtype=torch.float64)
    want = torch.nn.functional.one_hot(numbers, 3).double()
    torch.testing.assert_close(indicator(numbers, 3, like), want, rtol=0, atol=0)
    torch.testing.assert_close(torch.func.vmap(lambda row: indicator(row, 3, like))(numbers), want, rtol=0, atol=0)


def test_values_pass_unread_inside_vmap() -> None:
    def half(x: torch.Tensor) -> torch.Tensor:
        require_positive("x", x)
        return x / 2

    assert torch.func.vmap(half)(torch.ones(3)).tolist() == [0.5] * 3


def test_what_is_not_read_may_hold_and_is_not_known() -> None:
    yes, no = torch.ones(3, dtype=torch.bool), torch.tensor([True, False])
    assert [may_hold(yes), may_hold(no), is_known(yes), is_known(no)] == [True, False, True, False]
    seen = []

    def look(x: torch.Tensor) -> torch.Tensor:
        seen.extend([may_hold(x), is_known(x)])
        return x

    torch.func.vmap(look)(yes)
    assert seen == [True, False]


def test_a_device_is_known_and_present() -> None:
    assert as_device("cpu") == torch.device("cpu")
    assert as_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert as_device(torch.device("cpu")) == torch.device("cpu")
    with pytest.raises(ValueError, match="device: got 'tpu', want one of 'auto', 'cpu', 'cuda'"):
        as_device("tpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_cuda_is_refused_where_there_is_none() -> None:
    with pytest.raises(ValueError, match="device: got 'cuda', want 'cpu' or 'auto'"):
        as_device("cuda")


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, lib; print(sorted({'torch', 'numpy', 'sympy', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
