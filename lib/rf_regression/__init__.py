"""Random-feature ridge regression: its test error in closed form, at any width, ridge and sample size."""

from lib.rf_regression.effective_ridge import EffectiveRidge, learnabilities, solve_effective_ridge
from lib.rf_regression.gcv import gcv_risk
from lib.rf_regression.kernels import relu_kernel
from lib.rf_regression.optimum import OptimalRidge, optimal_ridge
from lib.rf_regression.peak import double_descent_peak
from lib.rf_regression.powerlaw import (
    critical_width,
    interpolation_noise_threshold,
    optimal_fitting_ratio,
    powerlaw_krr_risk,
    powerlaw_rf_risk,
)
from lib.rf_regression.risk import RiskCurve, RiskEstimate, krr_risk, rf_risk, rf_risk_with_tail, risk_along_gamma
from lib.rf_regression.simulation import SimulatedRisk, simulate_rf_ridge
from lib.rf_regression.spectrum import (
    EmpiricalSpectrum,
    PowerLawFit,
    empirical_spectrum,
    fit_powerlaw_exponents,
    heldout_from_pool,
)
from lib.rf_regression.task import powerlaw_tail, powerlaw_task

__all__ = [
    "EffectiveRidge",
    "EmpiricalSpectrum",
    "OptimalRidge",
    "PowerLawFit",
    "RiskCurve",
    "RiskEstimate",
    "SimulatedRisk",
    "critical_width",
    "double_descent_peak",
    "empirical_spectrum",
    "fit_powerlaw_exponents",
    "gcv_risk",
    "heldout_from_pool",
    "interpolation_noise_threshold",
    "krr_risk",
    "learnabilities",
    "optimal_fitting_ratio",
    "optimal_ridge",
    "powerlaw_krr_risk",
    "powerlaw_rf_risk",
    "powerlaw_tail",
    "powerlaw_task",
    "relu_kernel",
    "rf_risk",
    "rf_risk_with_tail",
    "risk_along_gamma",
    "simulate_rf_ridge",
    "solve_effective_ridge",
]
