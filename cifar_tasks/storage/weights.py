"""Files of pretrained weights: fetched once per machine, and never opened before their digest is right."""

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import requests

from cifar_tasks.errors import WeightsError
from cifar_tasks.models import ModelSpec
from cifar_tasks.models.timm_backbone import PREFIX, published_at
from cifar_tasks.settings import Settings
from cifar_tasks.storage.disk import FULL, disk_errors
from cifar_tasks.storage.locks import exclusive
from cifar_tasks.storage.s3 import S3Store, split_s3_url

TIMEOUT_SECONDS = (5, 30)
"""To connect, and between two pieces of the file."""
MIN_DIGITS = 8
"""Of a digest, as publishers shorten it in a file's name."""
PACKAGE = "package:"
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
"""As timm names them, the first that a repository has."""

Report = Callable[[str], None]


def fetch_weights(spec: ModelSpec, settings: Settings, report: Report) -> tuple[Path, str]:
    """The verified file of a model's pretrained weights, and its SHA-256.

    It comes from where the settings say, else from the publisher; a copy stays in `weights/` of the settings' home.
    Raises `WeightsError` if it is not available or is not the expected file.
    """
    if spec.pretrained is None:
        raise WeightsError(f"the model {spec.name} has no pretrained weights: choose pretrained = none.")
    own, folder = settings.pretrained_weights.get(spec.name), settings.home / "weights"
    source, expected = (own.source, own.sha256) if own else (spec.pretrained.url, spec.pretrained.sha256)
    with _file_errors(spec.name, source, folder):
        if source.startswith(PREFIX):
            return _from_hub(source, folder / "hub", report)
        if source.startswith("s3://") or not own:
            if source.startswith(PACKAGE):
                path = _in_package(source)
                return path, _verified(path, source, expected)
            return _downloaded(spec.name, source, expected, folder, report)
        path = Path(source).expanduser()
        if not path.is_file():
            raise WeightsError(f"there are no weights at {path}. Correct CIFAR_PRETRAINED_WEIGHTS.")
        return path, _verified(path, source, expected)


def _downloaded(model: str, source: str, expected: str, folder: Path, report: Report) -> tuple[Path, str]:
    """The copy of a URL's file."""
    path = folder / f"{model.replace('/', '-')}-{expected[:16]}{Path(source).suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(path):
        if path.exists() and not _has_digest(path, expected):
            report(f"{path} is damaged: it is fetched again")
            path.unlink()
        if not path.exists():
            report(f"fetching the pretrained weights of {model} ({source})")
            draft = path.with_name(f"{path.name}.part")
            _fetch(source, draft)
            _verified(draft, source, expected)
            draft.replace(path)
        return path, _verified(path, source, expected)


def _from_hub(name: str, cache: Path, report: Report) -> tuple[Path, str]:
    """The hub's client locks its cache, and names a file by the SHA-256 that the hub tells."""
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    repository, file = published_at(name)
    for candidate in [file] if file else HUB_FILES:
        try:
            return _file_of_hub(repository, candidate, cache, report)
        except LocalEntryNotFoundError:  # the hub did not answer
            raise
        except EntryNotFoundError:
            continue
    raise FileNotFoundError(f"{repository} has none of {', '.join(HUB_FILES)}")


def _file_of_hub(repository: str, file: str, cache: Path, report: Report) -> tuple[Path, str]:
    import httpx2  # of the hub's client
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    cache.mkdir(parents=True, exist_ok=True)
    with exclusive(cache / repository.replace("/", "--")):
        cached = try_to_load_from_cache(repository, file, cache_dir=cache)
        if isinstance(cached, str) and not _named_by_digest(Path(cached)):
            report(f"{cached} is damaged: it is fetched again")
            Path(cached).resolve().unlink()
            cached = None
        if not isinstance(cached, str):
            report(f"fetching the pretrained weights {file} of {repository} from the Hugging Face hub")
            try:
                cached = hf_hub_download(repository, file, cache_dir=cache, endpoint=os.environ.get("HF_ENDPOINT"))
            except httpx2.RequestError as error:  # a proxy that refuses, a connection that breaks off
                raise OSError(str(error) or type(error).__name__) from error
        path = Path(cached)
        if not _named_by_digest(path):
            path.resolve().unlink()
            raise WeightsError(f"the weights {file} of {repository} do not have the SHA-256 that the hub tells.")
        return path, path.resolve().name


def _named_by_digest(path: Path) -> bool:
    stored = path.resolve()
    return bool(re.fullmatch("[0-9a-f]{64}", stored.name)) and _sha256(stored) == stored.name


def _in_package(source: str) -> Path:
    """A file of an installed package, which is not imported for it."""
    package, _, inner = source.removeprefix(PACKAGE).partition("/")
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise FileNotFoundError(f"the package {package} is not installed")
    return Path(found.submodule_search_locations[0], inner)


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
def _file_errors(model: str, source: str, folder: Path) -> Iterator[None]:
    """`requests` and the hub's client raise an `OSError` too."""
    try:
        yield
    except (KeyError, OSError) as error:
        if isinstance(error, OSError) and error.errno in FULL:
            with disk_errors(folder, "CIFAR_HOME"):
                raise
        reason = " ".join(str(error).split())
        raise WeightsError(
            f"the pretrained weights of {model} are not available from {source} ({reason}). Name a file or s3:// URL "
            f'and its SHA-256, CIFAR_PRETRAINED_WEIGHTS=\'{{"{model}": {{"source": "…", "sha256": "…"}}}}\', or let '
            "HTTPS_PROXY name your proxy, or choose pretrained=none for random weights."
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
