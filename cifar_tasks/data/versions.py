"""Immutable dataset versions in object storage, named by the digest of their content.

`datasets/<first 16 hex digits>/` holds an array of images and one of labels per split: `.npy` files, cut into shards
(`train-images.npy.000`, …). The manifest is written last, and a version without a manifest does not exist. The same
images from a source of another name have a second manifest there, `manifest-<digits>.json`, with that name.
"""

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from cifar_tasks.errors import ConfigError, IntegrityError
from cifar_tasks.storage.s3 import ObjectRef, S3Store, canonical_json, sha256_hex

FORMAT = 3
"""Raised when the same source would be decoded to other pixels or be split in another way, or the manifest changes."""
SPLITS = ("train", "validation", "test")

Shards = Mapping[str, Sequence[ObjectRef]]
"""The pieces of each array (`train-images`), in order."""


@dataclass(frozen=True)
class DatasetVersion:
    """What tasks hand to one another in place of the images."""

    uri: str
    """Of the manifest."""
    digest: str
    """SHA-256 over class names, image size, resize mode, origin of the test set and the digests of all shards."""
    name: str
    classes: tuple[str, ...]
    counts: Mapping[str, Mapping[str, int]]
    """Images by split and class."""
    image_size: int
    """Pixels; images are square."""
    resize: str
    """How images got this size, see `ImageFormat`."""
    placeholder: bool
    """Not CIFAR-10 but in its place: results carry `PLACEHOLDER_BANNER`."""
    warnings: tuple[str, ...]
    test_set: str = "given"
    """`given` by the source, or `drawn` from all of its images."""

    def size(self, split: str) -> int:
        return sum(self.counts[split].values())

    def as_dict(self) -> dict[str, Any]:
        """JSON values only."""
        return asdict(self) | {"classes": list(self.classes), "warnings": list(self.warnings)}


def load_version(store: S3Store, uri: str) -> DatasetVersion:
    """By the URI of its manifest.

    Raises `ConfigError` if there is no such version, `IntegrityError` if its manifest was altered.
    """
    named = re.fullmatch(r"(datasets/([0-9a-f]{16})/manifest(-[0-9a-f]{8})?\.json)", uri.removeprefix(store.uri("")))
    if named is None:
        raise ConfigError(f"{uri!r} names no dataset version: give {store.uri('datasets/DIGEST/manifest.json')}")
    try:
        return _read(store, named[1])[0]
    except KeyError:
        raise ConfigError(f"there is no dataset version {uri}: prepare the data first") from None


def whole_version(store: S3Store, digest: str, name: str) -> DatasetVersion:
    """Raises `KeyError` when the manifest with this name or one of the shards is missing."""
    for key in (manifest_key(digest), manifest_key(digest, name)):
        version, shards = _read(store, key)
        if version.name == name:
            _check_shards(store, shards)
            return version
    raise KeyError(name)


def whole_shards(store: S3Store, digest: str) -> Shards:
    """Of the version, whatever its name; raises `KeyError` when one is missing."""
    shards = _read(store, manifest_key(digest))[1]
    _check_shards(store, shards)
    return shards


def _check_shards(store: S3Store, shards: Shards) -> None:
    for ref in (ref for refs in shards.values() for ref in refs):
        if not store.exists(ref.key):
            raise KeyError(ref.key)


def shards_of(store: S3Store, version: DatasetVersion) -> Shards:
    return _read(store, version.uri.removeprefix(store.uri("")))[1]


def write_manifest(store: S3Store, version: DatasetVersion, shards: Shards) -> DatasetVersion:
    """Makes the version exist; returns it as the store has it."""
    described = {name: value for name, value in version.as_dict().items() if name != "uri"}
    pieces = {name: [ref.as_dict() for ref in refs] for name, refs in shards.items()}
    content = canonical_json({**described, "format": FORMAT, "shards": pieces})
    for key in (manifest_key(version.digest), manifest_key(version.digest, version.name)):
        # The same images may be there under another name, or another process prepares them: the first writer wins.
        with suppress(IntegrityError):
            store.put_if(key, content, None)
        found = _read(store, key)[0]
        if found.name == version.name:
            break
    return found


def content_digest(
    classes: Sequence[str], image_size: int, resize: str, test_set: str, sha256: Mapping[str, Sequence[str]]
) -> str:
    """`sha256`: of the shards of each array."""
    sizes = {"classes": list(classes), "image_size": image_size, "resize": resize}
    content = {**sizes, "test_set": test_set, "shards": dict(sha256)}
    return sha256_hex(canonical_json(content))


def manifest_key(digest: str, name: str | None = None) -> str:
    """Of the version, or of the version under a name that is not the first one."""
    which = f"-{sha256_hex(name.encode())[:8]}" if name else ""
    return f"datasets/{digest[:16]}/manifest{which}.json"


def _read(store: S3Store, key: str) -> tuple[DatasetVersion, Shards]:
    """Raises `KeyError` when there is no manifest, `IntegrityError` when its digest does not match its content."""
    content = store.get(key)
    try:
        said = json.loads(content)
        shards = {name: [ObjectRef(**ref) for ref in refs] for name, refs in said.pop("shards").items()}
        if said.pop("format") != FORMAT:
            raise ValueError
        version = DatasetVersion(
            store.uri(key), **{**said, "classes": tuple(said["classes"]), "warnings": tuple(said["warnings"])}
        )
        sha256 = {name: [ref.sha256 for ref in refs] for name, refs in shards.items()}
        covered = content_digest(version.classes, version.image_size, version.resize, version.test_set, sha256)
        intact = version.digest == covered and key.startswith(f"datasets/{covered[:16]}/")
    except (ValueError, TypeError, KeyError):
        intact = False
    if not intact:
        raise IntegrityError(f"{store.uri(key)} is damaged or was altered. Delete it and prepare the data again.")
    return version, shards
