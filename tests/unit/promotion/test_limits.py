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
        {"min_accuracy": -0.1},
        {"min_accuracy": 1.1},
        {"calibration_margin": -0.1},
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


@pytest.mark.parametrize(
    "values", [{"confidence": 0.5}, {"confidence": 0.999}, {"min_gain": 0}, {"max_latency_ms": 0.5}, {"worn_after": 1}]
)
def test_the_strictest_and_the_most_lenient_limits_are_taken(values):
    assert Limits(**values).model_dump().items() >= values.items()


def test_the_limits_are_those_of_the_documentation_unless_they_are_set():
    assert Limits().model_dump() == {
        "confidence": 0.95,
        "min_gain": 0.01,
        "min_accuracy": 0,
        "class_margin": 0.03,
        "calibration_margin": 0.05,
        "max_latency_ms": None,
        "max_size_mb": None,
        "worn_after": 20,
    }


def test_each_limit_explains_itself_in_the_form():
    for name, field in Limits.model_json_schema()["properties"].items():
        assert field["title"], name
        assert field["description"].endswith("."), name
