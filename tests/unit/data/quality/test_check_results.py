"""When a statistical check fails: beyond its limit, and more so than chance explains."""

import pytest

from cifar_tasks.data.quality.check_results import TESTS, not_measured, share, statistical
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


@pytest.mark.parametrize(
    ("count", "of", "value", "passed"), [(0, 0, 0, True), (1, 10, 0.1, True), (2, 10, 0.2, False), (10, 10, 1, False)]
)
def test_a_share_fails_above_its_limit(count, of, value, passed):
    row = share("copies", count, of, 0.1, "of the added images")
    assert (row.value, row.passed) == (value, passed)
    assert row.text == f"copies: {count} of {of} of the added images ({value:.1%}; at most 0.1)"


def test_what_could_not_be_measured_fails_nothing():
    row, examples = not_measured("drift", 0.65, "too few images")
    assert (row.passed, row.value, row.text, examples) == (True, None, "drift: not measured, too few images", ())
