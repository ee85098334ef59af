"""What the functions of labelled logits and of predictions refuse alike."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lib.temperature_scaling import (
    binned_calibration_error,
    fit_affine_scaling,
    fit_temperature,
    logit_gap,
    proper_scores,
    smooth_calibration_error,
    top_label,
)

GOOD = {"logits": [[1.0, 2.0], [0.0, 1.0], [3.0, 0.0]], "labels": [0, 1, 0]}
WRONG = [
    ({"logits": [[1.0, math.nan]] * 3}, "logits"),
    ({"logits": [[1.0, math.inf]] * 3}, "logits"),
    ({"logits": 1.0}, "logits"),
    ({"logits": [["a", "b"]] * 3}, "logits"),
    ({"logits": [[], [], []]}, "logits"),
    ({"logits": [[1.0]] * 3}, "logits"),
    ({"labels": [0, 1, 2]}, "labels"),
    ({"labels": [0, -1, 1]}, "labels"),
    ({"labels": [0.0, 1.0, 0.0]}, "labels"),
    ({"labels": [True, False, True]}, "labels"),
    ({"labels": [0, 1]}, "labels"),
    ({"labels": 0}, "labels"),
]


@pytest.mark.parametrize(("change", "name"), WRONG)
def test_what_is_wrong_with_logits_or_labels_is_named(change: dict[str, object], name: str) -> None:
    for call in (fit_temperature, fit_affine_scaling, top_label, proper_scores, logit_gap):
        with pytest.raises(ValueError, match=rf"^{name}: got .*want "):
            call(**GOOD | change)  # type: ignore[arg-type]


def test_no_rows_are_refused_where_a_mean_is_wanted() -> None:
    empty = np.zeros((0, 3)), np.zeros(0, dtype=np.int64)
    for call in (fit_temperature, fit_affine_scaling, proper_scores):
        with pytest.raises(ValueError, match=r"^logits: got shape \(0, 3\), want "):
            call(*empty)


@pytest.mark.parametrize("T", [0.0, -1.0, math.nan, math.inf, [1.0, 2.0]])
def test_a_temperature_that_is_none_is_named(T: object) -> None:
    for call in (top_label, proper_scores):
        with pytest.raises(ValueError, match=r"temperature.*: got .*want "):
            call(**GOOD, temperature=T)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"confidence": [0.5, 1.1]}, "confidence"),
        ({"confidence": [0.5, -0.1]}, "confidence"),
        ({"confidence": [0.5, math.nan]}, "confidence"),
        ({"confidence": 0.5}, "confidence"),
        ({"confidence": [], "outcome": []}, "confidence"),
        ({"outcome": [0, 2]}, "outcome"),
        ({"outcome": [0, math.nan]}, "outcome"),
        ({"outcome": [0, 1, 1]}, "outcome"),
        ({"outcome": []}, "outcome"),
        ({"outcome": "ab"}, "outcome"),
    ],
)
def test_what_is_wrong_with_predictions_is_named(change: dict[str, object], name: str) -> None:
    for call in (binned_calibration_error, smooth_calibration_error):
        with pytest.raises(ValueError, match=rf"^{name}: got .*want "):
            call(**{"confidence": [0.5, 0.7], "outcome": [0, 1]} | change)  # type: ignore[arg-type]
