"""What a training run leaves behind, and a warning if it ran away."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.checks import may_hold
from lib.shapes import Float, Int


@dataclass(frozen=True)
class Trajectory:
    """Losses and overlaps before each step and after the last: entry t belongs to the weights before step t."""

    train: Float[Tensor, "*b times"]
    test: Float[Tensor, "*b times"]
    overlap: Float[Tensor, "*b times N N"]
    alignment: Float[Tensor, "*b times N"]

    @property
    def finite_steps(self) -> Int[Tensor, "*b"]:
        """How many leading entries are finite in both losses; all of them if the run did not diverge."""
        return finite_entries(self.train, self.test)


@dataclass(frozen=True)
class MomentTrajectory:
    """Losses, the three parts of the test loss, mean squared weight tr M / D and alignment of M with the target,
    before each step and after the last; and the last moments.
    """

    train: Float[Tensor, "*b times"]
    test: Float[Tensor, "*b times"]
    linear: Float[Tensor, "*b times"]
    misalignment: Float[Tensor, "*b times"]
    trace: Float[Tensor, "*b times"]
    norm: Float[Tensor, "*b times"]
    alignment: Float[Tensor, "*b times"]
    mean: Float[Tensor, "*b D"]
    second: Float[Tensor, "*b D D"]

    @property
    def finite_steps(self) -> Int[Tensor, "*b"]:
        """How many leading entries are finite in both losses; all of them if the run did not diverge."""
        return finite_entries(self.train, self.test)


def finite_entries(*curves: Tensor) -> Tensor:
    """Number of leading entries along the last axis that are finite in every curve."""
    finite = torch.stack([curve.isfinite() for curve in curves]).all(0)
    return finite.to(torch.int64).cumprod(-1).sum(-1)


def warn_if_diverged(*curves: Tensor) -> None:
    """Warn with the first step that is not finite; reads data, so only on the CPU."""
    kept = finite_entries(*curves)
    if not may_hold(kept == curves[0].shape[-1]):
        first = int(kept.min())
        warnings.warn(
            f"lr: a run is not finite from step {first} on (see finite_steps); stable_step_size gives the largest "
            "step size that is stable at the start, and features that grow lower it",
            RuntimeWarning,
            3,
        )


__all__ = ["MomentTrajectory", "Trajectory"]
