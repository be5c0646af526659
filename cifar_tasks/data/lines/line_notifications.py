"""Which dataset lines a notification of a changed object is meant for."""

import posixpath
from collections.abc import Iterable, Mapping

from pydantic import AliasChoices, BaseModel, Field

from cifar_tasks.data.lines.line_settings import DatasetLine

BUCKETS = "/buckets/"
"""Folder of the buckets in the file system of SeaweedFS."""


class _Entry(BaseModel):
    name: str = ""


class _Message(BaseModel):
    new_parent_path: str = ""
    new_entry: _Entry | None = None


class Notification(BaseModel):
    """As SeaweedFS sends it, or with `key` alone; MinIO writes `Key`. Other fields are ignored."""

    key: str = Field(validation_alias=AliasChoices("key", "Key"), max_length=4096)
    """`/buckets/BUCKET/KEY`, `s3://BUCKET/KEY`, `BUCKET/KEY`, or the absolute path of a file."""
    message: _Message | None = None

    def objects(self) -> list[str]:
        """The key, and after a renaming the new one."""
        moved = self.message
        if not moved or not moved.new_parent_path or not moved.new_entry:
            return [self.key]
        return [self.key, posixpath.join(moved.new_parent_path, moved.new_entry.name)]


def notified_lines(lines: Mapping[str, DatasetLine], objects: Iterable[str]) -> list[str]:
    """The lines for whose source one of the objects matters.

    A line with a marker waits for it whatever else is written: only the marker matters, and the source itself.
    """
    changed = {_path(each) for each in objects}
    sources = {name: _path(line.source) for name, line in lines.items() if line.source.startswith(("/", "~", "s3://"))}
    return [name for name, source in sources.items() if any(_matters(lines[name], source, each) for each in changed)]


def _matters(line: DatasetLine, source: str, changed: str) -> bool:
    if changed == source:
        return True
    inside = changed.startswith(f"{source}/")
    return inside and line.marker in (None, changed.removeprefix(f"{source}/"))


def _path(name: str) -> str:
    """One spelling: S3 objects as SeaweedFS names them."""
    name = posixpath.expanduser(name)
    if name.startswith("s3://"):
        name = BUCKETS + name.removeprefix("s3://")
    elif not name.startswith("/"):
        name = BUCKETS + name
    return posixpath.normpath(name)
