"""The check of links to other sites, against a site of our own."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tools import links
from tools.links import Link
from tools.problems import Problem

from .conftest import Toy


class _Site(BaseHTTPRequestHandler):
    """A page that is there, one that is not for programs, and nothing else."""

    def do_GET(self) -> None:
        """Answer with a number only."""
        self.send_response({"/here": 200, "/shy": 403}.get(self.path, 404))
        self.end_headers()

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def site() -> Iterator[str]:
    """Address of a small site on this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Site) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_dead_links_are_named_with_their_place(toy: Toy, site: str) -> None:
    with pytest.raises(Problem, match="there is no book in build/source yet: run make book first"):
        links.check(toy.root)
    tree = toy.root / "build" / "source"
    tree.mkdir(parents=True)
    for name in ("_config.yml", "_toc.yml", "book", "chapters"):
        copy = shutil.copytree if (toy.root / name).is_dir() else shutil.copy
        copy(toy.root / name, tree / name)
    (tree / "book" / "claims.md").write_text("# Claims\n", encoding="utf-8")
    (tree / "book" / "start.md").write_text(f"# Toy\n\n[here]({site}/here), [gone]({site}/gone)\n", encoding="utf-8")
    (toy.root / "README.md").write_text(f"See {site}/lost, or <{site}/shy>.\n", encoding="utf-8")
    found = {link.address.removeprefix(site): link for link in links.check(toy.root)}
    assert {name: (link.is_dead, link.is_unsure) for name, link in found.items()} == {
        "/here": (False, False),
        "/gone": (True, False),
        "/lost": (True, False),
        "/shy": (False, True),
    }
    assert found["/gone"].place == "book/start.md:3"


def test_addresses_end_where_the_sentence_does(toy: Toy) -> None:
    text = "(https://a.org/b), `https://c.org`, <https://d.org/e?f=g#h>. [x](https://i.org/j_k.html).\n"
    (toy.root / "README.md").write_text(text, encoding="utf-8")
    want = ["https://a.org/b", "https://c.org", "https://d.org/e?f=g#h", "https://i.org/j_k.html"]
    assert links.outside(toy.root) == {"README.md": want}


@pytest.mark.parametrize(
    ("status", "answer", "dead", "unsure"),
    [
        ("working", "", False, False),
        ("redirected", "https://elsewhere.org", False, False),
        ("broken", "404 Client Error: Not Found for url", True, False),
        ("broken", "403 Client Error: Forbidden for url", False, True),
        ("timeout", "Read timed out", False, True),
    ],
)
def test_a_server_that_does_not_answer_programs_is_no_dead_link(
    status: str, answer: str, dead: bool, unsure: bool
) -> None:
    link = Link("page.md:1", "https://a.org", status, answer)
    assert (link.is_dead, link.is_unsure) == (dead, unsure)
