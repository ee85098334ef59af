"""What all tests share: shapes checked at every call, a pretend accelerator, the devices of this machine.

The only file of the project that may name a library's private parts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from hypothesis import settings
from jaxtyping import install_import_hook
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from tools import build
from tools.options import Options
from tools.problems import Problem

ROOT = Path(__file__).resolve().parent.parent

install_import_hook("lib", "beartype.beartype")
settings.register_profile("book", deadline=None, derandomize=True)  # a slow first call is no failure
settings.load_profile("book")
_setup_privateuseone_for_python_backend("gpu")  # a fake "cuda:0" cannot be indexed in torch's CPU build


def pytest_configure() -> None:
    """One thread a test process: xdist already runs a process a core."""
    torch.set_num_threads(1)


@pytest.fixture(
    params=[
        "cpu",
        pytest.param(
            "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")
        ),
    ]
)
def device(request: pytest.FixtureRequest) -> str:
    """Every device this machine has: the CPU, and a CUDA device where there is one."""
    return str(request.param)


@pytest.fixture
def fake_gpu() -> Iterator[str]:
    """A device without memory: raises on .item(), on a branch over data and on a mix with the CPU."""
    with FakeTensorMode():
        yield "gpu:0"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The minutes first: chapters are executed and the book is built while other test processes do all the rest."""

    def asking_for(fixture: str) -> list[pytest.Item]:
        return [item for item in items if fixture in getattr(item, "fixturenames", ())]

    chapters, pages = asking_for("executed"), asking_for("built_book")
    rest = [item for item in items if item not in chapters and item not in pages]
    items[:] = [*chapters, *pages[:1], *rest, *pages[1:]]


@pytest.fixture(scope="session")
def built_book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`build/html`, up to date and with the chapters' own parameters.

    Whichever test process needs it first builds it. The others wait; where the build failed they fail with its message
    and do not try again.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    outcome = shared / "book.txt"
    with FileLock(shared / "book.lock"):
        if not outcome.exists():
            try:
                build.build(ROOT, Options())
            except Problem as problem:
                outcome.write_text(str(problem), encoding="utf-8")
            else:
                outcome.touch()
    failure = outcome.read_text(encoding="utf-8")
    if failure:
        pytest.fail(failure, pytrace=False)
    return ROOT / "build" / "html"
