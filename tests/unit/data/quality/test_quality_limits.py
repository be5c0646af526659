"""Which limits are possible."""

import pytest
from pydantic import ValidationError

from cifar_tasks.data.quality.quality_limits import QualityLimits

SHARES = [name for name in QualityLimits.model_fields if name.startswith("max_") and name != "max_class_psi"]


@pytest.mark.parametrize("name", SHARES)
def test_a_share_is_between_0_and_1(name):
    assert getattr(QualityLimits(**{name: 1}), name) == 1
    least = 0.5 if name == "max_drift" else 0
    assert getattr(QualityLimits(**{name: least}), name) == least
    for value in (least - 0.01, 1.01):
        with pytest.raises(ValidationError, match=name):
            QualityLimits(**{name: value})


def test_an_index_of_stability_has_no_upper_limit_and_is_not_negative():
    assert QualityLimits(max_class_psi=99).max_class_psi == 99
    with pytest.raises(ValidationError):
        QualityLimits(max_class_psi=-0.01)
