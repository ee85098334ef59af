"""Chapters as files: what is wrong with one is said in one sentence, and a fingerprint follows content alone."""

from __future__ import annotations

import os

import pytest

from tools import notebooks
from tools.problems import Problem

from .conftest import Toy


def test_a_broken_file_is_named(toy: Toy) -> None:
    path = toy.chapter("apple")
    for content, message in (
        ('{"cells": [', r"chapters/apple\.ipynb: is no notebook \(Expecting value"),
        ('{"cells": [], "nbformat": 3}', r"chapters/apple\.ipynb: is no notebook of format 4"),
        ("[]", r"chapters/apple\.ipynb: is no notebook of format 4"),
        ("\xff", r"chapters/apple\.ipynb: is no notebook"),
    ):
        path.write_text(content, encoding="latin-1")
        with pytest.raises(Problem, match=message):
            notebooks.read(toy.root, "apple")


def test_a_missing_parameters_cell_is_named(toy: Toy) -> None:
    toy.chapter("apple", parameters=None)
    with pytest.raises(Problem, match=r"chapters/apple\.ipynb: got 0 code cells tagged 'parameters', want one"):
        notebooks.read(toy.root, "apple")


def test_an_incomplete_parameters_cell_is_named(toy: Toy) -> None:
    toy.chapter("apple", parameters="seed: int = 3\nscale = str(5)")
    with pytest.raises(Problem, match="the parameters cell sets no scale and no device"):
        notebooks.own_parameters(toy.root, "apple")
    toy.chapter("apple", parameters="seed = = 3")
    with pytest.raises(Problem, match="the parameters cell is no Python"):
        notebooks.own_parameters(toy.root, "apple")


def test_only_parameters_that_differ_are_given(toy: Toy) -> None:
    given: dict[str, int | str] = {"seed": 1, "scale": "full", "device": "auto"}
    assert notebooks.differing(toy.root, "apple", given) == {"scale": "full"}


@pytest.mark.parametrize(
    ("changed", "concerns"),
    [
        ("chapters/apple.ipynb", {"apple"}),
        ("lib/apple/core.py", {"apple"}),
        ("lib/apple/deeper/new.py", {"apple"}),
        ("lib/shared.py", {"apple", "pear"}),
        ("requirements.txt", {"apple", "pear"}),
        ("constraints.txt", {"apple", "pear"}),
        ("book/start.md", set()),
    ],
)
def test_a_chapter_depends_on_its_own_library_and_the_shared_rooms(changed: str, concerns: set[str], toy: Toy) -> None:
    before = {name: notebooks.fingerprint(toy.root, name, {}) for name in ("apple", "pear")}
    path = toy.root / changed
    path.parent.mkdir(exist_ok=True)
    path.write_text(path.read_text() + "\n" if path.exists() else "")
    assert {name for name in before if notebooks.fingerprint(toy.root, name, {}) != before[name]} == concerns


def test_parameters_count_and_dates_do_not(toy: Toy) -> None:
    before = notebooks.fingerprint(toy.root, "apple", {})
    for path in toy.root.rglob("*"):
        os.utime(path, (1, 1))
    assert notebooks.fingerprint(toy.root, "apple", {}) == before
    assert notebooks.fingerprint(toy.root, "apple", {"seed": 2}) != before


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(toy: Toy) -> None:
    path = toy.root / "facts.json"
    notebooks.write(path, "old")
    with pytest.raises(UnicodeEncodeError):
        notebooks.write(path, "new \ud800")
    assert path.read_text() == "old"
    assert not list(toy.root.glob(".*.part"))
