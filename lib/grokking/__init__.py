"""Grokking as the transition from lazy to rich training: exact curves for the polynomial two-layer network."""

from lib.grokking.dmft import dmft
from lib.grokking.kernel import NTKSpectrum, kernel_alignment, ntk, ntk_spectrum, population_alignment
from lib.grokking.lazy import LazyCurve, lazy_curve, lazy_limit, stable_step_size
from lib.grokking.loss import LossParts, overlap_loss, population_loss
from lib.grokking.model import activation, network_output, target
from lib.grokking.moments import moment_output, moment_step, moments
from lib.grokking.networks import AdditionTransformer, Dense
from lib.grokking.online import online_step
from lib.grokking.scaled_training import LearningCurves, train_scaled
from lib.grokking.tasks import Task, modular_addition, student_teacher, whiten
from lib.grokking.times import GrokkingTimes, crossing_time, escape_time, grokking_time
from lib.grokking.training import gd_step, train, train_moments
from lib.grokking.trajectory import MomentTrajectory, Trajectory

__all__ = [
    "AdditionTransformer",
    "Dense",
    "GrokkingTimes",
    "LazyCurve",
    "LearningCurves",
    "LossParts",
    "MomentTrajectory",
    "NTKSpectrum",
    "Task",
    "Trajectory",
    "activation",
    "crossing_time",
    "dmft",
    "escape_time",
    "gd_step",
    "grokking_time",
    "kernel_alignment",
    "lazy_curve",
    "lazy_limit",
    "modular_addition",
    "moment_output",
    "moment_step",
    "moments",
    "network_output",
    "ntk",
    "ntk_spectrum",
    "online_step",
    "overlap_loss",
    "population_alignment",
    "population_loss",
    "stable_step_size",
    "student_teacher",
    "target",
    "train",
    "train_moments",
    "train_scaled",
    "whiten",
]
