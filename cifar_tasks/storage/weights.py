"""Files of pretrained weights: fetched once per machine, and never opened before their digest is right."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

from filelock import FileLock

from cifar_tasks.errors import WeightsError
from cifar_tasks.models import ModelSpec
from cifar_tasks.settings import Settings
from cifar_tasks.storage.s3 import S3Store, split_s3_url


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
        return path, _verified(path, source, expected)
    path = settings.home / "weights" / f"{spec.name}-{expected[:16]}{Path(source).suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if not path.exists():
            report(f"fetching the pretrained weights of {spec.name} ({source})")
            draft = path.with_name(f"{path.name}.part")
            _fetch(spec.name, source, draft)
            draft.replace(path)
        try:
            return path, _verified(path, source, expected)
        except WeightsError:
            path.unlink()  # the next try fetches it again
            raise


def _fetch(model: str, source: str, draft: Path) -> None:
    try:
        if source.startswith("s3://"):
            bucket, key = split_s3_url(source)
            draft.write_bytes(S3Store(bucket).get(key))
        else:
            from torch.hub import download_url_to_file

            download_url_to_file(source, str(draft), progress=False)
    except (KeyError, URLError, OSError) as error:
        raise WeightsError(
            f"the pretrained weights of {model} are not available from {source} ({error}). Name a file or s3:// URL "
            "and its SHA-256 in CIFAR_PRETRAINED_WEIGHTS, or choose pretrained = none."
        ) from error


def _verified(path: Path, source: str, expected: str) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(expected.lower()):
        raise WeightsError(
            f"the weights from {source} have SHA-256 {digest}, expected {expected}. Fetch the file again, or correct "
            "the digest in CIFAR_PRETRAINED_WEIGHTS."
        )
    return digest
