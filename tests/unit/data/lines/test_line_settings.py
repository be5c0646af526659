"""What a dataset line may be."""

import pytest
from pydantic import ValidationError

from cifar_tasks.data.lines.line_settings import DatasetLine


def test_a_line_that_names_its_source_alone_is_prepared_as_cifar_10_is() -> None:
    line = DatasetLine(source="/pets")
    assert (line.image_size, line.resize, line.seed, line.marker) == (32, "crop", 0, None)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("seed", -1, "greater than or equal to 0"),
        ("marker", ".done", "hidden files are ignored"),
        ("source", "".join(["au", "to"]), "a dataset line has one source"),  # a new object, for `is`
    ],
)
def test_what_a_line_cannot_be_is_refused(field: str, value: object, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DatasetLine(**{"source": "/pets", field: value})


def test_a_delivery_settles_for_five_minutes_unless_the_line_says_otherwise() -> None:
    assert DatasetLine(source="/pets").settle_seconds == 300
    assert DatasetLine(source="/pets", settle_seconds=0).settle_seconds == 0
    with pytest.raises(ValidationError):
        DatasetLine(source="/pets", settle_seconds=-0.5)
