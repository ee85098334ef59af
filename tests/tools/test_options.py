"""Options: read from the environment, and refused in one line with exit code 2 before anything starts."""

from __future__ import annotations

import pytest
import torch

from tools import options
from tools.options import Options
from tools.problems import Misuse, Problem, finish

from .conftest import Toy


def test_nothing_set_means_as_the_chapters_have_it(toy: Toy) -> None:
    empty = dict.fromkeys(("SCALE", "SEED", "DEVICE", "CHAPTERS", "SEEDS", "SCHEDULER"), "")
    assert options.read(toy.root, {}) == options.read(toy.root, empty) == Options()
    assert Options().parameters() == {}


def test_everything_set(toy: Toy) -> None:
    got = options.read(
        toy.root,
        {"SCALE": "full", "SEED": "0", "DEVICE": "cpu", "CHAPTERS": "pear  apple pear", "SEEDS": "7", "SCHEDULER": "tcp://a:1"},
    )  # fmt: skip
    assert got == Options(("pear", "apple"), "full", 0, "cpu", 7, "tcp://a:1")
    assert got.parameters() == {"seed": 0, "scale": "full", "device": "cpu"}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("CHAPTERS", "apple plum", "CHAPTERS: got 'plum', want some of apple, pear"),
        ("SCALE", "Full", "SCALE: got 'Full', want laptop or full"),
        ("DEVICE", "tpu", "DEVICE: got 'tpu', want auto or cpu or cuda"),
        ("SEED", "-1", "SEED: got '-1', want a whole number >= 0"),
        ("SEED", "1.5", "SEED: got '1.5', want a whole number >= 0"),
        ("SEED", "²", "SEED: got '²', want a whole number >= 0"),
        ("SEEDS", "0", "SEEDS: got '0', want a whole number >= 1"),
        ("SCHEDULER", "node7", "SCHEDULER: got 'node7', want an address like tcp://host:8786"),
    ],
)
def test_a_wrong_one_is_one_line_and_exit_code_2(
    name: str, value: str, message: str, toy: Toy, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        finish(lambda: print(options.read(toy.root, {name: value})))
    assert end.value.code == 2
    assert capsys.readouterr() == ("", message + "\n")


def test_cuda_is_refused_where_there_is_none(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(
        Misuse, match="DEVICE: got 'cuda', want 'cpu' or 'auto': this machine has no usable CUDA device"
    ):
        options.read(toy.root, {"DEVICE": "cuda"})


def test_a_problem_ends_with_1_and_an_interruption_with_130(capsys: pytest.CaptureFixture[str]) -> None:
    def trouble() -> None:
        raise Problem("the sky fell")

    def interrupted() -> None:
        raise KeyboardInterrupt

    for main, code, message in ((trouble, 1, "the sky fell\n"), (interrupted, 130, "interrupted\n")):
        with pytest.raises(SystemExit) as end:
            finish(main)
        assert end.value.code == code
        assert capsys.readouterr().err == message
