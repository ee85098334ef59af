"""Temperature scaling where classes overlap: its exact risk, its limits, Mixup's minimiser, and calibration errors."""

from lib.temperature_scaling.affine import AffineFit, fit_affine_scaling
from lib.temperature_scaling.bootstrap import bootstrap_calibration_error
from lib.temperature_scaling.calibration import binned_calibration_error, classwise_calibration_error
from lib.temperature_scaling.decomposition import KLDecomposition, kl_decomposition
from lib.temperature_scaling.interpolation import PartialInterpolation, partial_interpolation
from lib.temperature_scaling.intervals import (
    IntervalMixture,
    overlap_intervals,
    posterior_intervals,
    sample_intervals,
)
from lib.temperature_scaling.mixup import mixup_batch
from lib.temperature_scaling.mixup_gaussian import mixup_minimizer_gaussian
from lib.temperature_scaling.mixup_intervals import mixup_minimizer_intervals
from lib.temperature_scaling.networks import Networks, train_networks
from lib.temperature_scaling.overlap import OverlapRisks, overlap_risks, temperature_lower_bound
from lib.temperature_scaling.scores import ProperScores, logit_gap, proper_scores, top_label
from lib.temperature_scaling.smooth import smooth_calibration_error
from lib.temperature_scaling.temperature import TemperatureFit, fit_temperature

__all__ = [
    "AffineFit",
    "IntervalMixture",
    "KLDecomposition",
    "Networks",
    "OverlapRisks",
    "PartialInterpolation",
    "ProperScores",
    "TemperatureFit",
    "binned_calibration_error",
    "bootstrap_calibration_error",
    "classwise_calibration_error",
    "fit_affine_scaling",
    "fit_temperature",
    "kl_decomposition",
    "logit_gap",
    "mixup_batch",
    "mixup_minimizer_gaussian",
    "mixup_minimizer_intervals",
    "overlap_intervals",
    "overlap_risks",
    "partial_interpolation",
    "posterior_intervals",
    "proper_scores",
    "sample_intervals",
    "smooth_calibration_error",
    "temperature_lower_bound",
    "top_label",
    "train_networks",
]
