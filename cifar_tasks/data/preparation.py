"""From a source to a dataset version. `sources/<digest>.json` names the version of a source; it may be deleted."""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from io import BytesIO

import numpy as np

from cifar_tasks.data.image_format import DEFAULT_FORMAT, ImageFormat
from cifar_tasks.data.images import Labels, Report
from cifar_tasks.data.progress import progress
from cifar_tasks.data.source import Source
from cifar_tasks.data.splits import Indices
from cifar_tasks.data.spool import RawDataset, spooled
from cifar_tasks.data.validation import unvalidated, validate
from cifar_tasks.data.versions import (
    FORMAT,
    SPLITS,
    DatasetVersion,
    content_digest,
    manifest_key,
    whole_shards,
    whole_version,
    write_manifest,
)
from cifar_tasks.errors import SourceChanged
from cifar_tasks.storage.s3 import ObjectRef, S3Store, canonical_json, sha256_hex

VALIDATION_FRACTION = 0.1
SHARD_BYTES = 64 * 2**20


def prepare(
    source: Source,
    store: S3Store,
    seed: int,
    report: Report,
    image_format: ImageFormat = DEFAULT_FORMAT,
    validation_fraction: float = VALIDATION_FRACTION,
) -> DatasetVersion:
    """The version of this source, seed, format and fraction: found if it is there and whole, else read and written.

    May be interrupted, and run twice at the same time: what is written depends on the content alone.
    """
    with progress(report, lambda: f"{source.name}: reading the files to see whether they are prepared already"):
        pointer = _pointer_key(source, seed, image_format, validation_fraction)
    version = _pointed_at(store, pointer)
    if version is not None:
        report(f"dataset version {version.digest[:16]} is prepared already: {version.uri}")
    else:
        with spooled(source.read(report), image_format, report) as raw:
            version = _write(store, raw, source.placeholder, validation_fraction, seed, report)
        if _pointer_key(source, seed, image_format, validation_fraction) != pointer:
            raise SourceChanged(f"{source.name} was changed while it was read. Start again.")
        store.put(pointer, canonical_json({"digest": version.digest, "name": version.name}))
        sizes = ", ".join(f"{version.size(split):,} {split}" for split in SPLITS)
        report(f"dataset version {version.digest[:16]}: {sizes} images: {version.uri}")
    for warning in version.warnings:
        report(f"warning: {warning}")
    return version


def find_prepared(
    source: Source,
    store: S3Store,
    seed: int,
    image_format: ImageFormat = DEFAULT_FORMAT,
    validation_fraction: float = VALIDATION_FRACTION,
) -> DatasetVersion | None:
    """The version that an earlier `prepare` made, if its manifest and all its shards are there."""
    return _pointed_at(store, _pointer_key(source, seed, image_format, validation_fraction))


def _pointed_at(store: S3Store, pointer: str) -> DatasetVersion | None:
    try:
        found = json.loads(store.get(pointer))
        return whole_version(store, found["digest"], found["name"])
    except (KeyError, ValueError):
        return None


def _write(
    store: S3Store, raw: RawDataset, placeholder: bool, validation_fraction: float, seed: int, report: Report
) -> DatasetVersion:
    """Shards first, the manifest last, and only what is not there yet."""
    done = "looking for duplicates"
    with progress(report, lambda: f"{raw.name}: {done}"):
        warnings = validate(raw)
        splits = raw.splits(validation_fraction, seed)
        warnings = (*warnings, *unvalidated(raw, splits["validation"]))
        arrays: dict[str, Callable[[], Iterator[bytes]]] = {}
        counts = {}
        for split, positions in splits.items():
            labels = raw.labels[positions]
            arrays[f"{split}-images"] = partial(_image_shards, raw, positions)
            arrays[f"{split}-labels"] = partial(_label_shards, labels)
            numbers = np.bincount(labels, minlength=len(raw.classes)).tolist()
            counts[split] = dict(zip(raw.classes, numbers, strict=True))
        size, resize = raw.image_format.size, raw.image_format.resize
        # The digest names the folder, so the shards are read twice instead of being held in memory.
        done = "computing the digest of the images"
        sha256 = {name: [sha256_hex(shard) for shard in shards()] for name, shards in arrays.items()}
        digest = content_digest(raw.classes, size, resize, raw.test_set, sha256)
        key = manifest_key(digest)
        version = DatasetVersion(
            store.uri(key), digest, raw.name, raw.classes, counts, size, resize, placeholder, warnings, raw.test_set
        )
        with suppress(KeyError):
            return write_manifest(store, version, whole_shards(store, digest))
        refs: dict[str, list[ObjectRef]] = {}
        for name, shards in arrays.items():
            refs[name] = []
            for number, shard in enumerate(shards()):
                done = f"storing {name}, part {number + 1} of {len(sha256[name])}"
                refs[name].append(store.put(f"{key.rpartition('/')[0]}/{name}.npy.{number:03}", shard))
        return write_manifest(store, version, refs)


def _image_shards(raw: RawDataset, positions: Indices) -> Iterator[bytes]:
    """The `.npy` file of these images, cut between images."""
    head = BytesIO()
    shape = (len(positions), *raw.image_format.shape)
    np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": shape})
    step = (SHARD_BYTES - len(head.getbuffer())) // (3 * raw.image_format.size**2)
    for start in range(0, len(positions), step):
        images = raw.read(positions[start : start + step])
        yield b"".join([b"" if start else head.getvalue(), images.data])


def _label_shards(labels: Labels) -> Iterator[bytes]:
    buffer = BytesIO()
    np.save(buffer, labels, allow_pickle=False)
    yield buffer.getvalue()


def _pointer_key(source: Source, seed: int, image_format: ImageFormat, validation_fraction: float) -> str:
    request = [
        FORMAT,
        source.name,
        source.fingerprint(),
        seed,
        image_format.size,
        image_format.resize,
        validation_fraction,
    ]
    return f"sources/{sha256_hex(canonical_json(request))}.json"
