"""Every public function of a chapter runs on the pretend accelerator in some test, or stands here with the reason.

The reasons are facts of the function: a reader who wants it on a GPU must know them.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = sorted(path.parent.name for path in (ROOT / "lib").glob("*/__init__.py"))
NUMBERS = "takes and gives plain numbers, texts or tables"
DRAWS = "draws from a generator, which the pretend device has not got; the sample lives where the generator does"
LOOKS = "looks which losses of the mixture have a weight, and leaves out the others"
ON_THE_HOST: dict[str, dict[str, str]] = {
    "gradient_entanglement": {
        "decode": NUMBERS,
        "initialise": DRAWS,
        "letter_chain": DRAWS,
        "objective_formulas": NUMBERS,
        "pretrain": DRAWS,
        "python_manual": NUMBERS,
        "text_rows": DRAWS,
    },
    "grokking": {
        "modular_addition": DRAWS,
        "student_teacher": DRAWS,
        "whiten": "looks once whether the rank of the rows allows what is asked",
    },
    "h_consistency": {"logistic_dead_zone": NUMBERS, "nb_sample_bound": NUMBERS},
    "neural_collapse": {"gradient_angles": LOOKS, "train_students": LOOKS},
    "rf_regression": {"simulate_rf_ridge": DRAWS},
    "starc": {
        "gymnasium_process": NUMBERS,
        "preference_reward": "minimises with scipy",
        "sample_trajectories": DRAWS,
    },
    "temperature_scaling": {
        "overlap_intervals": NUMBERS,
        "train_networks": "looks once, before it begins, how many points each network mixes",
    },
}


def public_functions(chapter: str) -> set[str]:
    package = importlib.import_module(f"lib.{chapter}")
    return {name for name in package.__all__ if inspect.isfunction(getattr(package, name))}


def named_on_the_pretend_device(chapter: str) -> set[str]:
    """Names in tests that ask for `fake_gpu`, and in what these tests name of their own file."""
    found: set[str] = set()
    for path in (ROOT / "tests" / chapter).glob("test_*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        parts = {name: node for node in tree.body for name in _bound_by(node)}
        tests = [
            part for part in parts.values() if isinstance(part, ast.FunctionDef) and "fake_gpu" in _arguments(part)
        ]
        todo: list[ast.AST] = [*tests]
        seen: set[str] = set()
        while todo:
            names = set(_names(todo.pop()))
            todo += [parts[name] for name in names - seen if name in parts]
            seen |= names
        found |= seen
    return found


def _bound_by(node: ast.AST) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _arguments(function: ast.FunctionDef) -> set[str]:
    return {argument.arg for argument in function.args.args}


def _names(node: ast.AST) -> Iterator[str]:
    for part in ast.walk(node):
        if isinstance(part, ast.Name):
            yield part.id
        elif isinstance(part, ast.Attribute):
            yield part.attr


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_public_function_runs_on_the_pretend_accelerator_or_says_why_not(chapter: str) -> None:
    missing = public_functions(chapter) - named_on_the_pretend_device(chapter) - set(ON_THE_HOST.get(chapter, ()))
    assert not missing, f"lib.{chapter}: no test on the pretend accelerator (fixture fake_gpu) names {sorted(missing)}"


@pytest.mark.parametrize("chapter", sorted(ON_THE_HOST))
def test_no_exception_is_stale(chapter: str) -> None:
    excepted = set(ON_THE_HOST[chapter])
    assert excepted <= public_functions(chapter)
    assert not excepted & named_on_the_pretend_device(chapter)
