"""STARC: distances between reward functions that ignore what no policy can notice, and the regret they bound."""

from lib.starc.canonical import canonicalise
from lib.starc.constants import StarcConstants, certified_constants
from lib.starc.distance import starc_distance
from lib.starc.epic import dard_distance, epic_distance
from lib.starc.mdp import random_mdp, shaping_matrix
from lib.starc.policy import PolicyValue, occupancy, policy_value
from lib.starc.preferences import Trajectories, discounted_counts, preference_reward, sample_trajectories
from lib.starc.regret import WorstCaseRegret, worst_case_regret
from lib.starc.return_range import ReturnRange, optimal_policy_regret, return_range
from lib.starc.rewards import expected_reward, potential_shaping, redistribute
from lib.starc.sampling import sampled_distance
from lib.starc.sparse import SparseCanonical, sparse_val_canonical
from lib.starc.tables import TabularProcess, gymnasium_process

__all__ = [
    "PolicyValue",
    "ReturnRange",
    "SparseCanonical",
    "StarcConstants",
    "TabularProcess",
    "Trajectories",
    "WorstCaseRegret",
    "canonicalise",
    "certified_constants",
    "dard_distance",
    "discounted_counts",
    "epic_distance",
    "expected_reward",
    "gymnasium_process",
    "occupancy",
    "optimal_policy_regret",
    "policy_value",
    "potential_shaping",
    "preference_reward",
    "random_mdp",
    "redistribute",
    "return_range",
    "sample_trajectories",
    "sampled_distance",
    "shaping_matrix",
    "sparse_val_canonical",
    "starc_distance",
    "worst_case_regret",
]
