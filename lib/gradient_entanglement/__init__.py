"""Gradient entanglement: what one inner product says about both log-probabilities of a preference pair."""

from lib.gradient_entanglement.categorical import distribution_change, single_token_step
from lib.gradient_entanglement.formulas import ObjectiveFormula, objective_formulas
from lib.gradient_entanglement.gram import PairGram, gram_from_gradients, pair_gram
from lib.gradient_entanglement.layerwise import layerwise_kernel, layerwise_pair_gram
from lib.gradient_entanglement.model import CharTransformer, initialise, pretrain
from lib.gradient_entanglement.movement import (
    GradientCondition,
    LogProbChanges,
    WeightRatioBand,
    gradient_condition,
    log_prob_changes,
    normalized_weights,
    weight_ratio_band,
)
from lib.gradient_entanglement.objectives import OBJECTIVES, MarginObjective, margin_objective
from lib.gradient_entanglement.pairs import PreferencePairs, minimal_pairs, response_logps
from lib.gradient_entanglement.preference import PreferenceRun, pair_steps, train_on_pairs
from lib.gradient_entanglement.sequences import sequence_logps
from lib.gradient_entanglement.step_size import CertifiedStep, TaylorChange, certified_step, taylor_change
from lib.gradient_entanglement.suffix import critical_suffix_length, suffix_gram
from lib.gradient_entanglement.text import decode, letter_chain, python_manual, text_rows
from lib.gradient_entanglement.tokens import ches_score, token_changes, token_gram
from lib.gradient_entanglement.trajectory import Trajectory, frozen_kernel_trajectory

__all__ = [
    "OBJECTIVES",
    "CertifiedStep",
    "CharTransformer",
    "GradientCondition",
    "LogProbChanges",
    "MarginObjective",
    "ObjectiveFormula",
    "PairGram",
    "PreferencePairs",
    "PreferenceRun",
    "TaylorChange",
    "Trajectory",
    "WeightRatioBand",
    "certified_step",
    "ches_score",
    "critical_suffix_length",
    "decode",
    "distribution_change",
    "frozen_kernel_trajectory",
    "gradient_condition",
    "gram_from_gradients",
    "initialise",
    "layerwise_kernel",
    "layerwise_pair_gram",
    "letter_chain",
    "log_prob_changes",
    "margin_objective",
    "minimal_pairs",
    "normalized_weights",
    "objective_formulas",
    "pair_gram",
    "pair_steps",
    "pretrain",
    "python_manual",
    "response_logps",
    "sequence_logps",
    "single_token_step",
    "suffix_gram",
    "taylor_change",
    "text_rows",
    "token_changes",
    "token_gram",
    "train_on_pairs",
    "weight_ratio_band",
]
