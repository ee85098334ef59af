"""Buttons that lead to the public repository: all of them where it is named, none where it is not."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml

from tools import repository
from tools.build import build
from tools.options import Options
from tools.problems import Problem

from .conftest import Toy

ROOT = Path(__file__).resolve().parents[2]
URL = "https://github.com/somebody/some.theory"
AWAY = re.compile(r'href="(https?://[^"]*(?:github\.com|mybinder|colab)[^"]*)"')


def named(toy: Toy, url: str) -> dict[str, object]:
    """The configuration of a project that names its repository, as it is staged."""
    path = toy.root / "_config.yml"
    config = yaml.safe_load(path.read_text(encoding="utf-8")) | {"repository": {"url": url, "branch": "trunk"}}
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return repository.with_buttons(config)


def test_this_book_can_be_built_in_both_states() -> None:
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    assert set(config["repository"]) == {"url", "branch"}
    for url in ("", URL):
        config["repository"]["url"] = url
        made = repository.with_buttons(config)
        assert {made["html"][button] for button in repository.BUTTONS} == {bool(url)}
        assert ("launch_buttons" in made, "repository" in made) == (bool(url), bool(url))


@pytest.mark.parametrize(
    "url", ["github.com/a/b", "http://github.com/a/b", f"{URL}/", f"{URL}.git/tree", "https://github.com/a", "x"]
)
def test_a_wrong_address_is_refused(url: str, toy: Toy) -> None:
    with pytest.raises(Problem, match=r"_config\.yml: repository: url: got '.*', want https://github\.com/owner/name"):
        named(toy, url)


def test_pages_of_an_unnamed_repository_lead_nowhere_and_those_of_a_named_one_do(toy: Toy) -> None:
    page = toy.root / "build/html/chapters/apple.html"
    named(toy, "")
    build(toy.root, Options(chapters=("apple",)))
    assert AWAY.findall(page.read_text(encoding="utf-8")) == []
    named(toy, URL)
    build(toy.root, Options(chapters=("apple",)))
    assert set(AWAY.findall(page.read_text(encoding="utf-8"))) >= {
        URL,
        f"{URL}/edit/trunk/chapters/apple.ipynb",
        "https://mybinder.org/v2/gh/somebody/some.theory/trunk?urlpath=lab/tree/chapters/apple.ipynb",
        "https://colab.research.google.com/github/somebody/some.theory/blob/trunk/chapters/apple.ipynb",
    }


def test_the_page_on_use_has_its_section_only_where_it_is_true(toy: Toy) -> None:
    page = toy.root / "book" / "how_to_use.md"
    for url in ("", URL):
        shutil.copy(ROOT / "book" / "how_to_use.md", page)
        repository.write_section({"repository": {"url": url}}, toy.root)
        text = page.read_text(encoding="utf-8")
        assert ("### In the browser" in text, f"git+{URL}" in text) == (bool(url), bool(url))
