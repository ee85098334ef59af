"""Neural collapse: the last layer at its optimum, and what two distillation losses do to one head or to two."""

from lib.neural_collapse.angles import GradientAngles, gradient_angles
from lib.neural_collapse.collapsed import CollapsedGradients, collapsed_gradients, conflict_gap
from lib.neural_collapse.distilled import DistilledOptimum, distilled_optimum
from lib.neural_collapse.gradients import PullPush, UFMGradients, align_gradient, pull_push, ufm_gradients
from lib.neural_collapse.imbalance import collapse_margin, critical_imbalance
from lib.neural_collapse.losses import (
    binary_kl,
    binary_kl_residual,
    cross_entropy_residual,
    softmax_kl,
    softmax_kl_residual,
)
from lib.neural_collapse.metrics import CollapseMetrics, collapse_metrics, streamed_collapse_metrics
from lib.neural_collapse.optimum import UFMOptimum, gap_flow_time, ufm_optimum
from lib.neural_collapse.simplex import simplex_etf
from lib.neural_collapse.students import LossMix, Students, train_students
from lib.neural_collapse.training import UFMState, train_ufm
from lib.neural_collapse.variants import smoothed_gap, squared_loss_gap

__all__ = [
    "CollapseMetrics",
    "CollapsedGradients",
    "DistilledOptimum",
    "GradientAngles",
    "LossMix",
    "PullPush",
    "Students",
    "UFMGradients",
    "UFMOptimum",
    "UFMState",
    "align_gradient",
    "binary_kl",
    "binary_kl_residual",
    "collapse_margin",
    "collapse_metrics",
    "collapsed_gradients",
    "conflict_gap",
    "critical_imbalance",
    "cross_entropy_residual",
    "distilled_optimum",
    "gap_flow_time",
    "gradient_angles",
    "pull_push",
    "simplex_etf",
    "smoothed_gap",
    "softmax_kl",
    "softmax_kl_residual",
    "squared_loss_gap",
    "streamed_collapse_metrics",
    "train_students",
    "train_ufm",
    "ufm_gradients",
    "ufm_optimum",
]
