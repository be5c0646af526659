"""Files of pretrained weights: fetched once per machine, and never opened before their digest is right."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from cifar_tasks.errors import WeightsError
from cifar_tasks.models import ModelSpec
from cifar_tasks.settings import Settings
from cifar_tasks.storage.locks import exclusive
from cifar_tasks.storage.s3 import S3Store, split_s3_url

TIMEOUT_SECONDS = (5, 30)
"""To connect, and between two pieces of the file."""
MIN_DIGITS = 8
"""Of a digest, as publishers shorten it in a file's name."""


def fetch_weights(spec: ModelSpec, settings: Settings, report: Callable[[str], None]) -> tuple[Path, str]:
    """The verified file of a model's pretrained weights, and its SHA-256.

    It comes from where the settings say, else from the publisher; a copy stays in `weights/` of the settings' home.
    Raises `WeightsError` if it is not available or is not the expected file.
    """
    if spec.pretrained is None:
        raise WeightsError(f"the model {spec.name} has no pretrained weights: choose pretrained = none.")
    own = settings.pretrained_weights.get(spec.name)
    source, expected = (own.source, own.sha256) if own else (spec.pretrained.url, spec.pretrained.sha256)
    if own and not source.startswith("s3://"):
        path = Path(source).expanduser()
        if not path.is_file():
            raise WeightsError(f"there are no weights at {path}. Correct CIFAR_PRETRAINED_WEIGHTS.")
        with _file_errors(spec.name, source):
            return path, _verified(path, source, expected)
    path = settings.home / "weights" / f"{spec.name}-{expected[:16]}{Path(source).suffix}"
    with _file_errors(spec.name, source):
        path.parent.mkdir(parents=True, exist_ok=True)
        with exclusive(path):
            if path.exists() and not _has_digest(path, expected):
                report(f"{path} is damaged: it is fetched again")
                path.unlink()
            if not path.exists():
                report(f"fetching the pretrained weights of {spec.name} ({source})")
                draft = path.with_name(f"{path.name}.part")
                _fetch(source, draft)
                _verified(draft, source, expected)
                draft.replace(path)
            return path, _verified(path, source, expected)


def _fetch(source: str, draft: Path) -> None:
    if source.startswith("s3://"):
        bucket, key = split_s3_url(source)
        S3Store(bucket).download(key, draft)
        return
    with requests.get(source, stream=True, timeout=TIMEOUT_SECONDS) as response, draft.open("wb") as file:
        response.raise_for_status()
        for chunk in response.iter_content(2**20):
            file.write(chunk)


@contextmanager
def _file_errors(model: str, source: str) -> Iterator[None]:
    """`requests` raises an `OSError` too."""
    try:
        yield
    except (KeyError, OSError) as error:
        raise WeightsError(
            f"the pretrained weights of {model} are not available from {source} ({error}). Name a file or s3:// URL "
            "and its SHA-256 in CIFAR_PRETRAINED_WEIGHTS, or choose pretrained = none."
        ) from error


def _has_digest(path: Path, expected: str) -> bool:
    return len(expected) >= MIN_DIGITS and _sha256(path).startswith(expected.lower())


def _verified(path: Path, source: str, expected: str) -> str:
    if not _has_digest(path, expected):
        raise WeightsError(
            f"the weights from {source} have SHA-256 {_sha256(path)}, expected {expected}. Fetch the file again, or "
            "correct the digest in CIFAR_PRETRAINED_WEIGHTS."
        )
    return _sha256(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
