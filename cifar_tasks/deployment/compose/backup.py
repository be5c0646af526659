"""The buckets as one tar, and the manifest that makes a folder a backup: the commands of backup.sh and restore.sh.

Data comes and goes through standard input and output: no folder is mounted, and no user of the host matters.
"""

import hashlib
import json
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from io import BytesIO
from typing import Any

from packaging.version import Version

from cifar_tasks.deployment.compose import BUCKETS
from cifar_tasks.storage.s3 import s3_client

FORMAT = 1
MANIFEST, OBJECTS, SUMMARY = "manifest.json", "objects.tar", "summary.json"
FILES = {"airflow.dump", "mlflow.dump", "optuna.dump", OBJECTS}
PACKAGES = ("apache-airflow", "mlflow-skinny", "optuna")
"""The owners of the tables in a backup. A newer version migrates old tables; an older one cannot read new ones."""
STEPS_BUCKET = "cifar"
NEED_ROWS = ("runs/", "promotions/")
HEADER = "comment"
"""The PAX header, ignored by tar, with what S3 knows of an object: bucket, key, content type, metadata."""
CHUNK = 1 << 20


@dataclass
class Summary:
    """The contents of `objects.tar`, of which it is the last member."""

    objects: dict[str, int] = field(default_factory=lambda: dict.fromkeys(BUCKETS, 0))
    bytes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(BUCKETS, 0))
    left_out: int = 0
    """Deleted since they were listed, or results of steps that are newer than the databases."""
    damaged: list[str] = field(default_factory=list)
    """URIs of objects that do not have the SHA-256 in their metadata; they are in the backup as they are."""

    def add(self, bucket: str, size: int) -> None:
        self.objects[bucket] += 1
        self.bytes[bucket] += size

    def __str__(self) -> str:
        return ", ".join(f"{each}: {self.objects[each]} objects of {_mb(self.bytes[each])}" for each in BUCKETS)


class Progress:
    """Prints a line every five seconds."""

    def __init__(self, action: str, total: int | None = None) -> None:
        self.action, self.total, self.done = action, total, 0
        self.began = self.printed = time.monotonic()

    def add(self, size: int) -> None:
        self.done += size
        if (now := time.monotonic()) - self.printed >= 5:
            self.printed = now
            total = f" of {_mb(self.total)}" if self.total else ""
            say(f"  {self.action}: {_mb(self.done)}{total}, {now - self.began:.0f} s")


class Hashed:
    """Hashes and counts what is read through it."""

    def __init__(self, source: Any, progress: Progress) -> None:
        self.source, self.progress, self.size = source, progress, 0
        self._digest = hashlib.sha256()

    def read(self, size: int = CHUNK) -> bytes:
        data: bytes = self.source.read(size)
        self._digest.update(data)
        self.size += len(data)
        self.progress.add(len(data))
        return data

    def finish(self) -> dict[str, Any]:
        """Size and SHA-256 of the whole; reads what has not been read."""
        while self.read():
            pass
        return {"bytes": self.size, "sha256": self._digest.hexdigest()}


def pull(until: str) -> None:
    """Write the buckets to a tar, without what is newer than `until` (Unix time of this machine) and needs rows that
    the dump of the databases does not have.

    A step that finds its result does not run again, so a backup with the result needs MLflow's rows of it as well; an
    entry of the promotion log needs its version. All else stays, also if it was written again meanwhile: images that a
    version in use has are written again, under the same key, when the next version is prepared.
    """
    s3, summary = s3_client(), Summary()
    listed = [(bucket, key, size) for bucket in BUCKETS for key, size in _entries(s3, bucket)]
    progress = Progress("objects", sum(size for _, _, size in listed))
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|", format=tarfile.PAX_FORMAT, bufsize=CHUNK) as tar:
        for bucket, key, _ in listed:
            try:
                found = s3.get_object(Bucket=bucket, Key=key)
            except s3.exceptions.NoSuchKey:
                summary.left_out += 1
                continue
            written = found["LastModified"].timestamp()
            if bucket == STEPS_BUCKET and key.startswith(NEED_ROWS) and written > float(until):
                found["Body"].close()
                summary.left_out += 1
                continue
            about = {"bucket": bucket, "key": key, "type": found["ContentType"], "metadata": found["Metadata"]}
            content = Hashed(found["Body"], progress)
            tar.addfile(_member(f"{bucket}/{key}", found["ContentLength"], written, about), content)
            digest = content.finish()["sha256"]
            if found["Metadata"].get("sha256", digest) != digest:
                summary.damaged.append(f"s3://{bucket}/{key}")
            summary.add(bucket, content.size)
        data = json.dumps(asdict(summary)).encode()
        tar.addfile(_member(SUMMARY, len(data), time.time(), {}), BytesIO(data))


def seal(*facts: str) -> None:
    """Read a tar of the files of the backup, print its manifest. `rows.DATABASE.TABLE=3` goes to its `rows`."""
    values = dict(fact.split("=", 1) for fact in facts)
    _, files, summary = _read(Progress("reading back"))
    if missing := FILES - set(files):
        sys.exit(f"error: {', '.join(sorted(missing))}: not written")
    rows = {name.removeprefix("rows."): int(values.pop(name)) for name in list(values) if name.startswith("rows.")}
    packages = {name: version(name) for name in PACKAGES}
    finished = datetime.now(UTC).isoformat(timespec="seconds")
    manifest = {"format": FORMAT, **values, "finished": finished, "packages": packages, "rows": rows}
    print(json.dumps({**manifest, "files": files, "buckets": asdict(summary)}, indent=2))  # noqa: T201
    for uri in summary.damaged:
        say(f"warning: {uri} is damaged in storage, and therefore in the backup")
    left_out = f"; {summary.left_out} changed during the backup and are not in it" if summary.left_out else ""
    say(f"  {summary}{left_out}")


def verify() -> None:
    """Read a tar of the manifest and the files of the backup, compare all, print the rows that tables must have."""
    manifest, files, summary = _read(Progress("verified"))
    if manifest is None:
        sys.exit(f"error: {MANIFEST} is missing: this is no backup, or it was interrupted")
    if manifest["format"] != FORMAT:
        sys.exit(f"error: the backup has format {manifest['format']}, this version reads {FORMAT}")
    for name, expected in manifest["files"].items():
        if name not in files:
            sys.exit(f"error: {name} is missing")
        if files[name] != expected:
            found = "{bytes} bytes, SHA-256 {sha256:.12}…"
            sys.exit(f"error: {name} is damaged: {found.format(**files[name])} instead of {found.format(**expected)}")
    for name, theirs in manifest["packages"].items():
        if Version(version(name)) < Version(theirs):
            sys.exit(f"error: the backup is of {name} {theirs}, whose tables {version(name)} here cannot read")
    say(f"  complete: taken {manifest['began']}, {summary}")
    for name, count in manifest["rows"].items():
        print(*name.split("."), count)  # noqa: T201


def push() -> None:
    """Read `objects.tar` into the buckets, which hold just that afterwards: other objects are deleted."""
    s3, kept, progress = s3_client(), {bucket: dict[str, int]() for bucket in BUCKETS}, Progress("objects")
    for bucket in set(BUCKETS) - _existing(s3):
        s3.create_bucket(Bucket=bucket)
    for about, _, content in _members(sys.stdin.buffer):
        if about:
            extra = {"ContentType": about["type"], "Metadata": about["metadata"]}
            hashed: Any = Hashed(content, progress)
            s3.upload_fileobj(hashed, about["bucket"], about["key"], ExtraArgs=extra)
            kept[about["bucket"]][about["key"]] = hashed.size
    deleted = 0
    for bucket, keys in kept.items():
        for key, _ in list(_entries(s3, bucket)):
            if key not in keys:
                s3.delete_object(Bucket=bucket, Key=key)
                deleted += 1
        if dict(_entries(s3, bucket)) != keys:
            sys.exit(f"error: the bucket {bucket} does not hold what was written to it")
    say(f"  {sum(map(len, kept.values()))} objects, {_mb(progress.done)}; {deleted} others deleted")


def count() -> None:
    """Print the number of objects in the buckets."""
    s3 = s3_client()
    print(sum(1 for bucket in set(BUCKETS) & _existing(s3) for _ in _entries(s3, bucket)))  # noqa: T201


def _existing(s3: Any) -> set[str]:
    return {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]}


def _entries(s3: Any, bucket: str) -> Iterator[tuple[str, int]]:
    """Keys and sizes."""
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        yield from ((found["Key"], found["Size"]) for found in page.get("Contents", []))


def _read(progress: Progress) -> tuple[dict[str, Any] | None, dict[str, Any], Summary]:
    """Of the tar on standard input: the manifest, size and digest of each file, the contents of OBJECTS."""
    manifest, files, summary = None, {}, Summary()
    with tarfile.open(fileobj=sys.stdin.buffer, mode="r|", bufsize=CHUNK) as tar:
        for member in tar:
            content = tar.extractfile(member)
            if content is None:
                continue
            name = member.name.removeprefix("./")
            if name == MANIFEST:
                manifest = json.load(content)
                progress.total = sum(file["bytes"] for file in manifest["files"].values())
                continue
            hashed = Hashed(content, progress)
            if name == OBJECTS:
                summary = _summary(hashed)
            files[name] = hashed.finish()
    return manifest, files, summary


def _summary(tar: Any) -> Summary:
    """That of OBJECTS, if it is true of the tar."""
    counted, summary = Summary(), None
    try:
        for about, size, content in _members(tar):
            if about:
                counted.add(about["bucket"], size)
            else:
                summary = Summary(**json.load(content))
    except (tarfile.TarError, ValueError, TypeError) as error:
        sys.exit(f"error: {OBJECTS} is damaged: {error}")
    if summary is None or (summary.objects, summary.bytes) != (counted.objects, counted.bytes):
        sys.exit(f"error: {OBJECTS} is not complete")
    return summary


def _members(source: Any) -> Iterator[tuple[dict[str, Any], int, Any]]:
    """What S3 knows of each object in OBJECTS, its size and content. SUMMARY is no object: nothing is known of it."""
    with tarfile.open(fileobj=source, mode="r|", bufsize=CHUNK) as tar:
        for member in tar:
            yield json.loads(member.pax_headers.get(HEADER, "{}")), member.size, tar.extractfile(member)


def _member(name: str, size: int, written: float, about: dict[str, Any]) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mtime, member.mode = size, int(written), 0o600
    if about:
        member.pax_headers = {HEADER: json.dumps(about)}
    return member


def _mb(size: int | None) -> str:
    return f"{(size or 0) / 1e6:.1f} MB"


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201


COMMANDS = {command.__name__: command for command in (pull, seal, verify, push, count)}

if __name__ == "__main__":
    try:
        COMMANDS[sys.argv[1]](*sys.argv[2:])
    except tarfile.TarError as error:
        sys.exit(f"error: the files could not be read: {error}")
