"""Times in the answers of S3, of which a listing has one for each object."""

import pytest
from botocore.utils import parse_timestamp

from cifar_tasks.storage.s3 import _timestamp


@pytest.mark.parametrize(
    "text",
    [
        "2026-02-03T04:05:06Z",
        "2026-02-03T04:05:06.789Z",
        "2026-02-03T04:05:06+05:30",
        "2026-02-03T04:05:06",
        "Tue, 03 Feb 2026 04:05:06 GMT",
        "1770091506",
        1770091506,
    ],
)
def test_a_time_is_the_one_that_boto3_reads(text: str | int) -> None:
    assert _timestamp(text) == parse_timestamp(text)
    assert _timestamp(text).utcoffset() == parse_timestamp(text).utcoffset()


def test_what_is_no_time_is_refused_as_boto3_does() -> None:
    with pytest.raises(ValueError, match="Invalid timestamp"):
        _timestamp("yesterday")
