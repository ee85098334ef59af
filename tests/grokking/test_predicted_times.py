"""Predicted grokking times on a device that refuses to be looked at."""

from __future__ import annotations

import torch

from lib.grokking import grokking_time


def test_a_prediction_runs_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    scale, alignment = torch.empty(3, device=fake_gpu), torch.empty(2, device=fake_gpu)
    source = torch.Generator()
    got = grokking_time(
        scale, 0.2, 3.0, scale, alignment=alignment, level=0.3, steps=4, samples=200, runs=2, generator=source
    )
    for part in vars(got).values():
        assert (str(part.device), part.dtype, part.shape) == (fake_gpu, torch.float32, (3,))
