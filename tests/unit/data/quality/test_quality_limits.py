"""Which limits are possible."""

import re

import pytest
from pydantic import ValidationError

from cifar_tasks.data.quality.quality_limits import QualityLimits
from cifar_tasks.settings import PROJECT

DOCS = (PROJECT / "docs" / "dataset-quality.md").read_text()
SHARES = [name for name in QualityLimits.model_fields if name.startswith("max_") and name != "max_class_psi"]


@pytest.mark.parametrize("name", SHARES)
def test_a_share_is_between_0_and_1(name):
    assert getattr(QualityLimits(**{name: 1}), name) == 1
    least = 0.5 if name == "max_drift" else 0
    assert getattr(QualityLimits(**{name: least}), name) == least
    for value in (least - 0.01, 1.01):
        with pytest.raises(ValidationError, match=name):
            QualityLimits(**{name: value})


def test_the_defaults_are_those_of_the_docs_and_possible():
    told = {name: float(value) for name, value in re.findall(r"`(max_\w+)` \| ([\d.]+) \|", DOCS)}
    told["confidence"] = float(re.search(r"`confidence` \(([\d.]+)\)", DOCS)[1])
    defaults = QualityLimits().model_dump()
    assert {name: value for name, value in defaults.items() if not isinstance(value, bool)} == told
    assert QualityLimits(**defaults) == QualityLimits()


def test_an_index_of_stability_has_no_upper_limit_and_is_not_negative():
    assert QualityLimits(max_class_psi=99).max_class_psi == 99
    with pytest.raises(ValidationError):
        QualityLimits(max_class_psi=-0.01)
