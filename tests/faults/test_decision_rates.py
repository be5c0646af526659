"""How often the promotion decision is right about simulated models whose true accuracies are known. Takes a minute."""

import numpy as np
import pytest

from benchmarks.simulated_promotions import LABELS, NAMES, TRUTHS, Truth, decision_on, simulate

DECISIONS = 40


@pytest.mark.parametrize("truth", TRUTHS, ids=lambda truth: truth.what)
def test_of_simulated_models_the_right_ones_are_promoted(truth: Truth) -> None:
    random = np.random.default_rng(0)
    decisions = [decision_on(*simulate(random, truth.gains), LABELS, NAMES) for _ in range(DECISIONS)]
    right = sum(decision.promote == truth.promote for decision in decisions)
    assert right >= truth.wanted * DECISIONS
