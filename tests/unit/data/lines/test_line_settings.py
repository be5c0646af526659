"""What a dataset line may be."""

import pytest
from pydantic import ValidationError

from cifar_tasks.data.lines.line_settings import DatasetLine


def test_a_delivery_settles_for_five_minutes_unless_the_line_says_otherwise() -> None:
    assert DatasetLine(source="/pets").settle_seconds == 300
    assert DatasetLine(source="/pets", settle_seconds=0).settle_seconds == 0
    with pytest.raises(ValidationError):
        DatasetLine(source="/pets", settle_seconds=-0.5)
