"""When a statistical check fails: beyond its limit, and more so than chance explains."""

import pytest

from cifar_tasks.data.quality.check_results import TESTS, statistical
from cifar_tasks.data.quality.drift import Measured
from cifar_tasks.data.quality.quality_limits import QualityLimits


@pytest.mark.parametrize(
    ("value", "p_value", "passed"),
    [
        (0.1, 0.0, True),
        (0.1001, 0.0, False),
        (0.1001, 0.1 / TESTS, True),
        (0.1001, 0.099 / TESTS, False),
        (0.0, 1.0, True),
    ],
)
def test_a_check_fails_beyond_its_limit_unless_chance_explains_it(value, p_value, passed):
    row = statistical("drift", Measured(value, p_value), 0.1, QualityLimits(confidence=0.9), "area")
    assert row.passed == passed
    assert row.text.endswith("too few images to tell it from chance") == (value > 0.1 and passed)
