"""Pairs that differ in one token, and the scores of their responses."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lib.gradient_entanglement import CharTransformer, minimal_pairs, response_logps


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def model(seed: int = 0) -> CharTransformer:
    return CharTransformer(9, generator=generator(seed), context=12, width=8, inner=10)


def test_a_response_is_scored_token_by_token_after_its_prompt() -> None:
    net, rows = model().double(), torch.randint(9, (3, 10), generator=generator())
    want = torch.zeros(3, dtype=torch.float64)
    for i in range(4, 10):
        want += net(rows[:, :i])[:, -1].log_softmax(-1)[torch.arange(3), rows[:, i]]
    torch.testing.assert_close(response_logps(net, rows, 4), want)


def test_minimal_pairs_differ_in_the_best_other_token_at_one_place() -> None:
    net, rows = model().double(), torch.randint(9, (20, 10), generator=generator())
    for position, place in ((0, 4), (3, 7), (-1, 9)):
        pairs = minimal_pairs(net, rows, 4, position)
        assert torch.equal(pairs.chosen, rows)
        differs = pairs.chosen != pairs.rejected
        assert torch.equal(differs.nonzero()[:, 1], torch.full((20,), place))
        scores = net(rows[:, :place])[:, -1].scatter(-1, rows[:, place, None], -torch.inf)
        assert torch.equal(pairs.rejected[:, place], scores.argmax(-1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: minimal_pairs(model(), torch.zeros(2, 6).long(), 4, 2), "prompt and position"),
        (lambda: minimal_pairs(model(), torch.zeros(2, 6).long(), 0, 0), "prompt and position"),
    ],
)
def test_what_is_wrong_is_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_both_run_on_an_accelerator_without_a_host_sync(fake_gpu: str) -> None:
    with torch.device(fake_gpu):
        net = torch.nn.Sequential(torch.nn.Embedding(9, 4), torch.nn.Linear(4, 9))
    rows = torch.empty(3, 10, dtype=torch.int64, device=fake_gpu)
    assert str(response_logps(net, rows, 4).device) == fake_gpu
    assert str(minimal_pairs(net, rows, 4, 2).rejected.device) == fake_gpu
