"""The fit from which the learned backends' constants come."""

from __future__ import annotations

import numpy as np
import pytest

from atk_perception.correspondence import atk as matcher
from atk_perception.tracking import atk as tracker
from atk_perception.training.fit_confidence import figures, fit, fit_matcher, fit_tracker


def test_the_weights_that_made_the_labels_are_found_again() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(20_000, 3))
    probability = 1.0 / (1.0 + np.exp(-(0.5 + rows @ [1.0, -2.0, 0.0])))
    found = fit(rows, rng.random(len(rows)) < probability)
    np.testing.assert_allclose(found, [0.5, 1.0, -2.0, 0.0], atol=0.08)


def test_claims_that_are_as_often_right_as_they_say_are_called_calibrated_and_others_are_not() -> None:
    rng = np.random.default_rng(1)
    probability = rng.random(50_000)
    honest = figures(probability, rng.random(len(probability)) < probability)
    boasting = figures(np.sqrt(probability), rng.random(len(probability)) < probability)
    assert honest["calibration_error"] < 0.01 < 0.1 < boasting["calibration_error"]  # type: ignore[operator]
    assert honest["claimed"] == pytest.approx(0.5, abs=0.01)
    assert honest["confident_wrong"] == pytest.approx(0.125, abs=0.01)


def test_every_constant_of_either_backend_is_fitted() -> None:
    of_tracker = fit_tracker(clips=1, frames=4, weights=None)
    assert len(of_tracker["evidence"]) == len(tracker.EVIDENCE)  # type: ignore[arg-type]
    assert len(of_tracker["confidence"]) == len(tracker.CONFIDENCE)  # type: ignore[arg-type]
    of_matcher = fit_matcher(scenes=2, weights=None)
    assert len(of_matcher["evidence"]) == len(matcher.EVIDENCE)  # type: ignore[arg-type]
    assert len(of_matcher["confidence"]) == len(matcher.CONFIDENCE)  # type: ignore[arg-type]
