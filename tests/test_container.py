"""The container, as far as it can be checked without building one: all it names exists, and its pins are the book's."""

from __future__ import annotations

import fnmatch
import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from tools import environment

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")
LINES = [line for line in re.sub(r"\\\n\s*", "", TEXT).splitlines() if line and not line.startswith("#")]
IGNORED = [line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if not line.startswith("#")]
TARGETS = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def instructions(name: str) -> list[str]:
    return [line.removeprefix(f"{name} ") for line in LINES if line.startswith(f"{name} ")]


def copied() -> list[str]:
    """What the image copies, as paths in the repository."""
    return [source for copy in instructions("COPY") for source in copy.split()[1:-1]]


def is_ignored(path: str) -> bool:
    return any(fnmatch.fnmatch(path, pattern.removeprefix("**/").rstrip("/")) for pattern in IGNORED)


@pytest.mark.parametrize("path", copied())
def test_what_is_copied_exists_and_is_sent(path: str) -> None:
    assert (ROOT / path).exists()
    assert not is_ignored(path)


def test_every_instruction_is_one_and_in_order() -> None:
    kinds = [line.split()[0] for line in LINES]
    assert set(kinds) <= {"FROM", "RUN", "ARG", "USER", "WORKDIR", "ENV", "COPY", "EXPOSE", "CMD"}
    assert kinds[0] == "FROM"
    assert kinds[-1] == "CMD"
    assert json.loads(instructions("CMD")[0])[:2] == ["jupyter", "lab"]


def test_environment_is_made_by_make_from_the_pins_before_the_rest_comes() -> None:
    before = LINES[: LINES.index("RUN make environment-test")]
    there = [source for line in before if line.startswith("COPY") for source in line.split()[1:-1]]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {*environment.RUNS, "Makefile", "pyproject.toml", project["readme"]} <= set(there)
    assert {path.name for path in ROOT.glob("LICENSE*")} <= set(there)
    assert "." not in there
    assert set(re.findall(r"\bmake ([a-z-]+)", TEXT)) <= set(TARGETS)


def test_python_is_one_that_is_tested() -> None:
    (version,) = re.findall(r"^python:(\d+\.\d+)-", instructions("FROM")[0])
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8"))
    assert version in workflow["jobs"]["test"]["strategy"]["matrix"]["python"]


def test_what_git_ignores_is_not_sent() -> None:
    patterns = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    assert {pattern.rstrip("/") for pattern in [*patterns, ".git/"]} <= {
        p.removeprefix("**/").rstrip("/") for p in IGNORED
    }


def test_dev_container_is_the_same_image() -> None:
    folder = ROOT / ".devcontainer"
    facts = json.loads((folder / "devcontainer.json").read_text(encoding="utf-8"))
    assert (folder / facts["build"]["dockerfile"]).resolve() == ROOT / "Dockerfile"
    assert (folder / facts["build"]["context"]).resolve() == ROOT
    user = facts["remoteUser"]
    assert f"NB_USER={user}" in instructions("ARG")
    workplace = instructions("WORKDIR")[0].replace("${NB_USER}", user)
    assert facts["workspaceFolder"] == workplace, "the environment knows the folder that it was made in"
    assert f"target={workplace},type=bind" in facts["workspaceMount"]
    assert any(f"target={workplace}/.venv,type=volume" in mount for mount in facts["mounts"])
    assert facts["postCreateCommand"].removeprefix("make ") in TARGETS
