"""What all tests share: shapes checked at every call, a pretend accelerator, the devices of this machine.

The only file of the project that may name a library's private parts.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings
from jaxtyping import install_import_hook
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

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
