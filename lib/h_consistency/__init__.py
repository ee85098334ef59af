"""H-consistency: what a small surrogate risk promises about errors, and naive Bayes against logistic regression."""

from lib.h_consistency.comp_sum import comp_sum_transform, mae_transform
from lib.h_consistency.conditional import (
    ConditionalOptimum,
    calibration_gap,
    conditional_optimum,
    logistic_risk,
    zero_one_regret,
)
from lib.h_consistency.crossing import ErrorExpansion, crossing_samples, logistic_expansion, naive_bayes_expansion
from lib.h_consistency.linear import LinearClassifier, gaussian_mixture_error, predict_scores
from lib.h_consistency.logistic_fit import LogisticFit, fit_logistic
from lib.h_consistency.margin import margin_transform, margin_transform_closed
from lib.h_consistency.minimizability import minimizability_gap
from lib.h_consistency.naive_bayes import NaiveBayes, fit_bernoulli_nb, fit_gaussian_nb
from lib.h_consistency.nb_theory import nb_expected_error, nb_sample_bound
from lib.h_consistency.transform import (
    h_consistency_bound,
    inverse_logistic_transform,
    logistic_dead_zone,
    logistic_transform,
)

__all__ = [
    "ConditionalOptimum",
    "ErrorExpansion",
    "LinearClassifier",
    "LogisticFit",
    "NaiveBayes",
    "calibration_gap",
    "comp_sum_transform",
    "conditional_optimum",
    "crossing_samples",
    "fit_bernoulli_nb",
    "fit_gaussian_nb",
    "fit_logistic",
    "gaussian_mixture_error",
    "h_consistency_bound",
    "inverse_logistic_transform",
    "logistic_dead_zone",
    "logistic_expansion",
    "logistic_risk",
    "logistic_transform",
    "mae_transform",
    "margin_transform",
    "margin_transform_closed",
    "minimizability_gap",
    "naive_bayes_expansion",
    "nb_expected_error",
    "nb_sample_bound",
    "predict_scores",
    "zero_one_regret",
]
