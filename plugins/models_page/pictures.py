"""Test images, and figures for the person who is asked, as PNG."""

import io
from functools import lru_cache

from numpy.typing import NDArray
from PIL import Image

from cifar_tasks.data.loading import load_split
from cifar_tasks.data.versions import load_version, manifest_key
from cifar_tasks.settings import Settings
from cifar_tasks.tracking.approval_figures import read_figure
from models_page.reading import asking, store


def png(dataset: str, number: int) -> bytes:
    """A test image of a dataset version; `IndexError` if there is none of this number, `ConfigError` for no version."""
    images = _test_images(dataset)
    if not 0 <= number < len(images):
        raise IndexError(number)
    file = io.BytesIO()
    Image.fromarray(images[number]).save(file, "PNG")
    return file.getvalue()


def figure_png(sha256: str) -> bytes:
    """What a task has kept under this digest; `KeyError` if there is none."""
    with asking("S3"):
        return read_figure(store(), sha256)


@lru_cache(maxsize=4)
def _test_images(dataset: str) -> NDArray:
    """Mapped into memory from the local copy, which was verified."""
    s3 = store()
    with asking("S3"):
        version = load_version(s3, s3.uri(manifest_key(dataset)))
        return load_split(s3, version, "test", Settings().home / "cache").images
