"""Limits are checked when they are given."""

import pytest
from pydantic import ValidationError

from cifar_tasks.promotion.limits import Limits


@pytest.mark.parametrize(
    "values",
    [
        {"confidence": 1},
        {"confidence": 0.4},
        {"min_gain": -0.1},
        {"class_margin": 3},
        {"max_latency_ms": 0},
        {"max_size_mb": -1},
        {"worn_after": 0},
        {"min_accurracy": 0.9},
    ],
)
def test_a_limit_that_means_nothing_is_refused(values):
    with pytest.raises(ValidationError, match=next(iter(values))):
        Limits(**values)


def test_each_limit_explains_itself_in_the_form():
    for name, field in Limits.model_json_schema()["properties"].items():
        assert field["title"], name
        assert field["description"].endswith("."), name
