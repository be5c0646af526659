"""Immutable data set versions in object storage, named by the digest of their content.

`datasets/<first 16 hex digits>/` holds an images and a labels array a split, and a manifest that is written last and
alone makes the version exist. `sources/<digest>.json` remembers which version a source became; it may be lost.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cifar_tasks.data.images import LabelledImages, RawDataset
from cifar_tasks.data.source import Source
from cifar_tasks.data.splits import split_indices
from cifar_tasks.data.validation import image_groups, validate
from cifar_tasks.errors import ConfigError, IntegrityError
from cifar_tasks.storage.s3 import ObjectRef, ObjectStore, canonical_json, read, sha256_hex

FORMAT = 1
"""Raised when the same source would be read or resized into other pixels, or the manifest changes its shape."""
SPLITS = ("train", "validation", "test")
VALIDATION_FRACTION = 0.1


@dataclass(frozen=True)
class DatasetVersion:
    """What tasks hand to one another in place of the images."""

    uri: str
    """Of the manifest."""
    digest: str
    """SHA-256 over class names and the digests of all arrays."""
    name: str
    classes: tuple[str, ...]
    counts: Mapping[str, Mapping[str, int]]
    """Images by split and class."""
    stand_in: bool
    """Not CIFAR-10 but in its place: results carry `STAND_IN_BANNER`."""
    warnings: tuple[str, ...]

    def size(self, split: str) -> int:
        return sum(self.counts[split].values())

    def as_dict(self) -> dict[str, Any]:
        """JSON values only; `from_dict` is the way back."""
        return asdict(self) | {"classes": list(self.classes), "warnings": list(self.warnings)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "DatasetVersion":
        return cls(**{**fields, "classes": tuple(fields["classes"]), "warnings": tuple(fields["warnings"])})


@dataclass(frozen=True)
class Dataset:
    """A version and those of its splits that were asked for: whoever must not see the test set does not load it."""

    version: DatasetVersion
    splits: Mapping[str, LabelledImages]

    @property
    def train(self) -> LabelledImages:
        return self.splits["train"]

    @property
    def validation(self) -> LabelledImages:
        return self.splits["validation"]

    @property
    def test(self) -> LabelledImages:
        return self.splits["test"]


def prepare(
    source: Source,
    store: ObjectStore,
    seed: int,
    report: Callable[[str], None],
    validation_fraction: float = VALIDATION_FRACTION,
) -> DatasetVersion:
    """The version of this source, seed and fraction: found if it exists and is whole, else read, checked and written.

    Safe to break off and to run twice at the same time: what is written depends on the content alone.
    """
    pointer = _pointer_key(source, seed, validation_fraction)
    found = _pointed_at(store, pointer)
    if found is not None:
        report(f"data set {found.digest[:16]} is prepared already: {found.uri}")
        return found
    raw = source.load(report)
    warnings = validate(raw)
    for warning in warnings:
        report(f"warning: {warning}")
    version = _write(store, raw, _split(raw, validation_fraction, seed), source.stand_in, warnings)
    store.put(pointer, canonical_json({"digest": version.digest}))
    sizes = ", ".join(f"{version.size(split):,} {split}" for split in SPLITS)
    report(f"data set {version.digest[:16]}: {sizes} images: {version.uri}")
    return version


def find_prepared(
    source: Source, store: ObjectStore, seed: int, validation_fraction: float = VALIDATION_FRACTION
) -> DatasetVersion | None:
    """The version that an earlier `prepare` made, if its manifest and all its objects are there."""
    return _pointed_at(store, _pointer_key(source, seed, validation_fraction))


def load_version(store: ObjectStore, uri_or_digest: str) -> DatasetVersion:
    """By URI of manifest or folder, or by digest (at least 16 hex digits).

    Raises `ConfigError` if there is none, `IntegrityError` if its manifest was altered.
    """
    home = store.uri("datasets/")
    short = re.fullmatch(r"([0-9a-f]{16})(?:[0-9a-f]*|/.*)", uri_or_digest.removeprefix(home))
    if short is None:
        raise ConfigError(f"{uri_or_digest!r} names no data set version: give {home}DIGEST/manifest.json or its digest")
    try:
        version = _version(store, _manifest(store, short[1]))
    except KeyError:
        raise ConfigError(f"there is no data set version {uri_or_digest!r} in {home}: prepare the data first") from None
    if re.fullmatch(r"[0-9a-f]+", uri_or_digest) and not version.digest.startswith(uri_or_digest):
        raise ConfigError(f"there is no data set version {uri_or_digest!r}, only {version.digest}")
    return version


def load_dataset(store: ObjectStore, version: DatasetVersion, splits: Sequence[str] = SPLITS) -> Dataset:
    """The images of these splits, every byte verified. Raises `IntegrityError` for a damaged or missing object."""
    refs = _refs(_manifest(store, version.digest))
    loaded = {}
    for split in splits:
        images, labels = (_array(store, refs[f"{split}-{part}"]) for part in ("images", "labels"))
        loaded[split] = LabelledImages(images, labels)
    return Dataset(version, loaded)


def _pointed_at(store: ObjectStore, pointer: str) -> DatasetVersion | None:
    try:
        return _whole_version(store, json.loads(store.get(pointer))["digest"])
    except (KeyError, ValueError):
        return None


def _split(raw: RawDataset, validation_fraction: float, seed: int) -> dict[str, LabelledImages]:
    groups = image_groups(raw.train.images)
    kept, held_out = split_indices(raw.train.labels, validation_fraction, seed, groups)
    return {"train": raw.train.take(kept), "validation": raw.train.take(held_out), "test": raw.test}


def _write(
    store: ObjectStore,
    raw: RawDataset,
    splits: Mapping[str, LabelledImages],
    stand_in: bool,
    warnings: Sequence[str],
) -> DatasetVersion:
    """Objects first, the manifest last, and only what is not there yet."""
    contents = {f"{split}-{part}": _npy(array) for split, both in splits.items() for part, array in _arrays(both)}
    digest = _digest(raw.classes, {name: sha256_hex(content) for name, content in contents.items()})
    with suppress(KeyError):
        return _whole_version(store, digest)
    refs = {name: store.put(f"{_folder(digest)}/{name}.npy", content) for name, content in contents.items()}
    manifest = {
        "format": FORMAT,
        "digest": digest,
        "name": raw.name,
        "classes": list(raw.classes),
        "counts": {split: _counts(part, raw.classes) for split, part in splits.items()},
        "stand_in": stand_in,
        "warnings": list(warnings),
        "objects": {name: ref.as_dict() for name, ref in refs.items()},
    }
    # The same images may be there under another name, or being prepared right now: whoever wrote first is right.
    with suppress(IntegrityError):
        store.put_new(f"{_folder(digest)}/manifest.json", canonical_json(manifest))
    return _version(store, _manifest(store, digest))


def _whole_version(store: ObjectStore, digest: str) -> DatasetVersion:
    """Raises `KeyError` when the manifest or one of its objects is missing."""
    manifest = _manifest(store, digest)
    for ref in _refs(manifest).values():
        if not store.exists(ref.key):
            raise KeyError(ref.key)
    return _version(store, manifest)


def _manifest(store: ObjectStore, digest: str) -> dict[str, Any]:
    """Raises `KeyError` when there is none, `IntegrityError` when it does not say what its own digest covers."""
    key = f"{_folder(digest)}/manifest.json"
    content = store.get(key)
    try:
        manifest: dict[str, Any] = json.loads(content)
        covered = _digest(manifest["classes"], {name: ref.sha256 for name, ref in _refs(manifest).items()})
        intact = manifest["digest"] == covered and covered.startswith(digest)
    except (ValueError, TypeError, KeyError):
        intact = False
    if not intact:
        raise IntegrityError(f"{store.uri(key)} is damaged or was altered. Delete it and prepare the data again.")
    return manifest


def _version(store: ObjectStore, manifest: Mapping[str, Any]) -> DatasetVersion:
    fields = {name: manifest[name] for name in ("digest", "name", "classes", "counts", "stand_in", "warnings")}
    return DatasetVersion.from_dict({"uri": store.uri(f"{_folder(manifest['digest'])}/manifest.json"), **fields})


def _refs(manifest: Mapping[str, Any]) -> dict[str, ObjectRef]:
    return {name: ObjectRef(**ref) for name, ref in manifest["objects"].items()}


def _array(store: ObjectStore, ref: ObjectRef) -> NDArray[Any]:
    try:
        return np.load(BytesIO(read(store, ref)), allow_pickle=False)  # type: ignore[no-any-return]
    except KeyError:
        raise IntegrityError(f"{store.uri(ref.key)} is missing. Prepare the data again to restore it.") from None


def _npy(array: NDArray[Any]) -> bytes:
    buffer = BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def _arrays(part: LabelledImages) -> list[tuple[str, NDArray[Any]]]:
    return [("images", part.images), ("labels", part.labels)]


def _counts(part: LabelledImages, classes: Sequence[str]) -> dict[str, int]:
    numbers = np.bincount(part.labels, minlength=len(classes))
    return {name: int(number) for name, number in zip(classes, numbers, strict=True)}


def _digest(classes: Sequence[str], arrays: Mapping[str, str]) -> str:
    return sha256_hex(canonical_json({"classes": list(classes), "arrays": dict(arrays)}))


def _folder(digest: str) -> str:
    return f"datasets/{digest[:16]}"


def _pointer_key(source: Source, seed: int, validation_fraction: float) -> str:
    request = [FORMAT, source.fingerprint(), seed, validation_fraction]
    return f"sources/{sha256_hex(canonical_json(request))}.json"
