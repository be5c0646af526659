"""What may be asked of dataset lines, before anything runs."""

import pytest
from pydantic import ValidationError

from cifar_tasks.steps.line_payloads import LineRequest


def test_all_lines_are_checked_unless_one_is_named() -> None:
    assert LineRequest.model_validate({}) == LineRequest(line=None, event_only=False)
    assert LineRequest.model_validate({"line": "pets"}).event_only is False


def test_an_event_alone_is_sent_for_one_line() -> None:
    assert LineRequest.model_validate({"line": "pets", "event_only": True}).event_only is True
    with pytest.raises(ValidationError, match="event_only needs a dataset line"):
        LineRequest.model_validate({"event_only": True})
