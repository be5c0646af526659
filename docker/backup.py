"""The buckets as one tar, and the manifest that makes a folder a backup: `backup.py COMMAND`, called by backup.sh.

All data comes and goes through standard input and output, so that no folder is mounted and no user of the host matters.
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

from deployment import BUCKETS

FORMAT = 1
MANIFEST, OBJECTS, SUMMARY = "manifest.json", "objects.tar", "summary.json"
FILES = {"airflow.dump", "mlflow.dump", "optuna.dump", OBJECTS}
PACKAGES = ("apache-airflow", "mlflow-skinny", "optuna")
"""Those whose tables are in a backup: they bring old tables up to date, never new ones back."""
STEPS_BUCKET = "cifar"
HEADER = "comment"
"""The PAX header, passed over by tar, with what S3 knows of an object: bucket, key, content type, metadata."""
CHUNK = 1 << 20


@dataclass
class Summary:
    """What `objects.tar` holds; its last member."""

    objects: dict[str, int] = field(default_factory=lambda: dict.fromkeys(BUCKETS, 0))
    bytes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(BUCKETS, 0))
    left_out: int = 0
    """Deleted since they were listed, or results of steps that are newer than the databases."""
    damaged: list[str] = field(default_factory=list)
    """Content without the SHA-256 that it was written with: in the backup as found."""

    def add(self, bucket: str, size: int) -> None:
        self.objects[bucket] += 1
        self.bytes[bucket] += size


class Hashed:
    """Hashes and counts what is read through it."""

    def __init__(self, source: Any, progress: "Progress | None" = None) -> None:
        self.source, self.progress, self.size = source, progress, 0
        self._digest = hashlib.sha256()

    def read(self, size: int = CHUNK) -> bytes:
        data: bytes = self.source.read(size)
        self._digest.update(data)
        self.size += len(data)
        if self.progress:
            self.progress.add(len(data))
        return data

    def finish(self) -> dict[str, Any]:
        """Size and SHA-256 of all of it, what nobody has read included."""
        while self.read():
            pass
        return {"bytes": self.size, "sha256": self._digest.hexdigest()}


class Progress:
    """A line every five seconds."""

    def __init__(self, words: str, total: int | None = None) -> None:
        self.words, self.total, self.done = words, total, 0
        self.began = self.told = time.monotonic()

    def add(self, size: int) -> None:
        self.done += size
        if (now := time.monotonic()) - self.told >= 5:
            self.told = now
            of = f" of {_mb(self.total)}" if self.total else ""
            say(f"  {self.words}: {_mb(self.done)}{of}, {now - self.began:.0f} s")


def pull(until: str) -> None:
    """Buckets to a tar. Of the steps' results only those written until then (Unix time, by the clock of this machine).

    A step that finds its result does nothing more, so the tracking server's rows of it must be in the backup as well.
    """
    s3, summary = _s3(), Summary()
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
            if bucket == STEPS_BUCKET and written > float(until):
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
    """A tar of the backup's files to their manifest. A fact is NAME=VALUE; `rows.DATABASE.TABLE=3` goes to `rows`."""
    said = dict(fact.split("=", 1) for fact in facts)
    _, files, summary = _read(Progress("reading back"))
    if missing := FILES - set(files):
        sys.exit(f"error: {', '.join(sorted(missing))}: not written")
    rows = {name.removeprefix("rows."): int(said.pop(name)) for name in list(said) if name.startswith("rows.")}
    packages = {name: version(name) for name in PACKAGES}
    finished = datetime.now(UTC).isoformat(timespec="seconds")
    manifest = {"format": FORMAT, **said, "finished": finished, "packages": packages, "rows": rows}
    print(json.dumps({**manifest, "files": files, "buckets": asdict(summary)}, indent=2))  # noqa: T201
    for uri in summary.damaged:
        say(f"warning: {uri} is damaged in storage, and so it is in the backup")
    meanwhile = f"; {summary.left_out} left out, which came or went meanwhile" if summary.left_out else ""
    say(f"  {_counted(summary)}{meanwhile}")


def verify() -> None:
    """A tar of the backup's files, the manifest first: is all of it there and whole? Prints the rows it must have."""
    manifest, files, summary = _read(Progress("verified"))
    if manifest is None:
        sys.exit(f"error: {MANIFEST} is missing: this is no backup, or its writing was broken off")
    if manifest["format"] != FORMAT:
        sys.exit(f"error: the backup has format {manifest['format']}, this version reads {FORMAT}")
    for name, expected in manifest["files"].items():
        if name not in files:
            sys.exit(f"error: {name} is missing")
        if files[name] != expected:
            found = "{bytes} bytes, SHA-256 {sha256:.12}…"
            sys.exit(f"error: {name} is damaged: {found.format(**files[name])} instead of {found.format(**expected)}")
    _refuse_older_packages(manifest["packages"])
    say(f"  whole: taken {manifest['began']}, {_counted(summary)}")
    for name, count in manifest["rows"].items():
        print(*name.split("."), count)  # noqa: T201


def push() -> None:
    """`objects.tar` to the buckets, which then hold just that: what else lies there is deleted."""
    s3, kept, progress = _s3(), {bucket: dict[str, int]() for bucket in BUCKETS}, Progress("objects")
    there = {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]}
    for bucket in BUCKETS:
        if bucket not in there:
            s3.create_bucket(Bucket=bucket)
    for about, _, content in _members(sys.stdin.buffer):
        if about:
            extra = {"ContentType": about["type"], "Metadata": about["metadata"]}
            hashed = Hashed(content, progress)
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
    """How many objects the buckets hold."""
    s3 = _s3()
    there = {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]}
    print(sum(1 for bucket in BUCKETS if bucket in there for _ in _entries(s3, bucket)))  # noqa: T201


def _read(progress: Progress) -> tuple[dict[str, Any] | None, dict[str, Any], Summary]:
    """The tar of a backup's files on standard input: its manifest, size and digest of each file, what is in OBJECTS."""
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
    """That of OBJECTS, if it is what the tar holds."""
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
    """What S3 knows of each object in OBJECTS, its size and content; of SUMMARY nothing is known."""
    with tarfile.open(fileobj=source, mode="r|", bufsize=CHUNK) as tar:
        for member in tar:
            yield json.loads(member.pax_headers.get(HEADER, "{}")), member.size, tar.extractfile(member)


def _member(name: str, size: int, written: float, about: dict[str, Any]) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mtime, member.mode = size, int(written), 0o600
    if about:
        member.pax_headers = {HEADER: json.dumps(about)}
    return member


def _refuse_older_packages(wanted: dict[str, str]) -> None:
    from packaging.version import Version

    for name, theirs in wanted.items():
        if Version(version(name)) < Version(theirs):
            sys.exit(f"error: the backup is of {name} {theirs}, whose tables {version(name)} here cannot read")


def _entries(s3: Any, bucket: str) -> Iterator[tuple[str, int]]:
    """Keys and sizes."""
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        yield from ((found["Key"], found["Size"]) for found in page.get("Contents", []))


def _s3() -> Any:
    import boto3
    from botocore.config import Config

    return boto3.client("s3", config=Config(retries={"mode": "standard", "total_max_attempts": 6}))


def _counted(summary: Summary) -> str:
    return ", ".join(
        f"{bucket}: {summary.objects[bucket]} objects of {_mb(summary.bytes[bucket])}" for bucket in BUCKETS
    )


def _mb(size: int | None) -> str:
    return f"{(size or 0) / 1e6:.1f} MB"


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)  # noqa: T201


COMMANDS = {command.__name__: command for command in (pull, seal, verify, push, count)}

if __name__ == "__main__":
    try:
        COMMANDS[sys.argv[1]](*sys.argv[2:])
    except tarfile.TarError as error:
        sys.exit(f"error: the files could not be read: {error}")
