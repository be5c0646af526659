"""Sources of images: the protocol, and the names, paths and URLs that a user may give."""

import tempfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Protocol

from cifar_tasks.data.archives import open_archive
from cifar_tasks.data.cifar10 import Cifar10Source, holds_batches, read_batches
from cifar_tasks.data.digits import DigitsSource
from cifar_tasks.data.download import unreachable
from cifar_tasks.data.folders import read_class_folders
from cifar_tasks.data.images import ImageStream, Report
from cifar_tasks.data.messages import readable
from cifar_tasks.data.progress import progress
from cifar_tasks.data.source_names import line_of
from cifar_tasks.data.trees import DirectoryTree, FileTree, StoredTree
from cifar_tasks.errors import ConfigError, DataError, SourceChanged
from cifar_tasks.settings import Settings
from cifar_tasks.storage.disk import disk_errors
from cifar_tasks.storage.hosts import without_login
from cifar_tasks.storage.s3 import ObjectEntry, S3Store, canonical_json, sha256_hex, split_s3_url

PROBE_SECONDS = 10.0
"""How long `auto` waits for the host of CIFAR-10."""

PLACEHOLDER_BANNER = (
    "PLACEHOLDER DATA: scikit-learn's 8×8 handwritten digits take the place of CIFAR-10. "
    "Accuracies of this run are not CIFAR-10 accuracies."
)
"""Shown wherever a result on `digits` is shown: terminal, Airflow log, MLflow."""

ACCEPTED = (
    "Give auto, cifar10, digits, a folder with train/<class>/ and test/<class>/ or with <class>/ alone, "
    "a zip or tar of one, cifar-10-python.tar.gz, or the s3:// URL of any of these."
)


class Source(Protocol):
    @property
    def name(self) -> str:
        """For people and manifests."""

    @property
    def placeholder(self) -> bool:
        """Whether these images take CIFAR-10's place: show `PLACEHOLDER_BANNER`."""

    def fingerprint(self) -> str:
        """A digest of the content that costs no decoding, so that preparing the same again is noticed at once."""

    def read(self, report: Report) -> ImageStream: ...


class TreeSource:
    """Images in a folder or archive: class folders, or the official batches; the file names decide."""

    placeholder = False

    def __init__(self, name: str, tree: FileTree) -> None:
        self.name = name
        self.tree = tree

    def fingerprint(self) -> str:
        return self.tree.fingerprint()

    def read(self, report: Report) -> ImageStream:
        with progress(report, lambda: f"{self.name}: listing the files"):
            names = self.tree.names()
        if holds_batches(names):
            return read_batches(self.tree, names, report)
        return read_class_folders(self.tree, names, self.name)


class StoredArchiveSource:
    """An archive that is an object. It is fetched only when its images are needed."""

    placeholder = False

    def __init__(self, store: S3Store, entry: ObjectEntry) -> None:
        self.name = PurePosixPath(entry.key).name
        self._store = store
        self._entry = entry

    def mark(self) -> str:
        """See `FileTree.marks`."""
        return f"{self._entry.etag}-{self._entry.size}"

    def fingerprint(self) -> str:
        entry = self._entry
        return f"object-{sha256_hex(canonical_json([self._store.uri(entry.key), entry.size, entry.etag]))}"

    def read(self, report: Report) -> ImageStream:
        return self.fetch(report).read(report)

    def fetch(self, report: Report) -> TreeSource:
        """The archive, as a file of this machine as long as this source is there."""
        where = self._store.uri(self._entry.key)
        total = f"{self._entry.size / 1e6:,.1f} MB"
        report(f"{where}: fetching {total}")
        self._folder = tempfile.TemporaryDirectory(prefix="cifar-")  # deleted together with this source
        path = Path(self._folder.name) / "archive"
        path.touch()
        with (
            disk_errors(self._folder.name, "TMPDIR"),
            progress(report, lambda: f"{where}: fetched {path.stat().st_size / 1e6:,.1f} of {total}"),
        ):
            self._store.download(self._entry.key, path)
        if self._entry.etag not in {entry.etag for entry in self._store.entries(self._entry.key)}:
            raise SourceChanged(f"{where} was changed while it was read. Start again.")
        return TreeSource(self.name, open_archive(path, where))


def open_source(
    spec: str,
    settings: Settings,
    report: Report,
    *,
    is_prepared: Callable[[Source], bool] = lambda _: False,
    open_bucket: Callable[[str], S3Store] = S3Store,
) -> Source:
    """The source that `spec` names; only its `read` reads images.

    `is_prepared`: whether a dataset version of a source exists already, so that `auto` does not need its host.
    Raises `ConfigError` for a word, path or URL that names nothing, `DataError` for a file that is no archive.
    """
    if spec == "digits":
        return _announced(DigitsSource(), report)
    if spec in ("cifar10", "auto"):
        official = Cifar10Source(settings.cifar10_url, settings.home / "downloads")
        return official if spec == "cifar10" else _automatic(official, report, is_prepared)
    if spec.startswith("s3://"):
        return _open_stored(spec, open_bucket)
    path = _local_path(spec)
    if path.is_dir():
        return TreeSource(path.resolve().name, DirectoryTree(path))
    if path.is_file():
        return TreeSource(path.name, open_archive(path))
    raise ConfigError(f"data source {spec!r} is no plain file and no folder. {ACCEPTED}")


def absolute_source(spec: str) -> str:
    """The same source for a process that works in another folder; `ConfigError` for what names nothing."""
    if spec in ("auto", "cifar10", "digits") or spec.startswith("s3://") or line_of(spec):
        return spec
    return str(_local_path(spec).resolve())


def _local_path(spec: str) -> Path:
    """Raises `ConfigError` for what names nothing that can be read."""
    try:
        path = Path(spec).expanduser()
        path.stat()
        if path.is_file():
            path.open("rb").close()
        spec.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"the path {readable(spec)} of the data is not UTF-8. Rename the file or folder.") from None
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise ConfigError(
            f"data source {readable(spec)!r} is no known word and no such file or folder exists. {ACCEPTED}"
        ) from None
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error).rstrip(".")
        raise ConfigError(f"data source {readable(spec)!r} cannot be read: {reason}. {ACCEPTED}") from None
    if not spec:
        raise ConfigError(f"data source '' is no known word and no such file or folder exists. {ACCEPTED}")
    return path


def _automatic(official: Cifar10Source, report: Report, is_prepared: Callable[[Source], bool]) -> Source:
    if is_prepared(official) or official.archive.exists():
        return official
    reason = unreachable(official.url, PROBE_SECONDS)
    if reason is None:
        return official
    report(f"CIFAR-10 cannot be downloaded from {without_login(official.url)}: {reason}.")
    return _announced(DigitsSource(), report)


def _announced(digits: DigitsSource, report: Report) -> DigitsSource:
    report(PLACEHOLDER_BANNER)
    return digits


def _open_stored(url: str, open_bucket: Callable[[str], S3Store]) -> Source:
    bucket, key = split_s3_url(url)
    store = open_bucket(bucket)
    prefix = key if not key or key.endswith("/") else f"{key}/"
    for entry in store.entries(key):
        if entry.key == key and not key.endswith("/"):
            return StoredArchiveSource(store, entry)
        if entry.key.startswith(prefix):
            return TreeSource(PurePosixPath(key).name or bucket, StoredTree(store, prefix))
    raise DataError(f"nothing is stored at {readable(url)}, taken literally. {ACCEPTED}")
