"""How the user names a source of images, or a dataset line."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from cifar_tasks.config import form_schema

_SOURCE = r"auto|cifar10|digits|s3://[^/\x00]+[^\x00]*|[/~][^\x00]*"


def _source(value: str) -> str:
    if not re.fullmatch(_SOURCE, value):
        raise ValueError("give auto, cifar10, digits, an absolute path or an s3:// URL")
    return value


LINE = "line:"
_RUN_SOURCE = rf"{_SOURCE}|{LINE}[a-z0-9][a-z0-9_\-]{{0,49}}"


def _run_source(value: str) -> str:
    if not re.fullmatch(_RUN_SOURCE, value):
        raise ValueError("give auto, cifar10, digits, line:NAME, an absolute path or an s3:// URL")
    return value


def line_of(source: str) -> str | None:
    """The dataset line that a source names, if it names one."""
    return source.removeprefix(LINE) if source.startswith(LINE) else None


SourceName = Annotated[str, AfterValidator(_source), form_schema(_SOURCE)]
"""A source of images, for a process that may work in another folder."""
RunSource = Annotated[str, AfterValidator(_run_source), form_schema(_RUN_SOURCE)]
"""A source of images, or a dataset line, whose version in use is trained on."""
LineName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_\-]{0,49}$")]
"""A dataset line: part of keys in S3 and of names of Airflow's assets."""
