"""Grokking as the transition from lazy to rich training: exact curves for the polynomial two-layer network."""

from lib.grokking.loss import LossParts, overlap_loss, population_loss
from lib.grokking.model import activation, network_output, target
from lib.grokking.moments import moment_output, moment_step, moments
from lib.grokking.online import online_step
from lib.grokking.training import gd_step, train, train_moments
from lib.grokking.trajectory import MomentTrajectory, Trajectory

__all__ = [
    "LossParts",
    "MomentTrajectory",
    "Trajectory",
    "activation",
    "gd_step",
    "moment_output",
    "moment_step",
    "moments",
    "network_output",
    "online_step",
    "overlap_loss",
    "population_loss",
    "target",
    "train",
    "train_moments",
]
