"""What preparations of a line that were interrupted, or never recorded, have left: objects that nothing refers to."""

import re
from collections import Counter

from cifar_tasks.data.lines.line_log import ROOT, read_line_log
from cifar_tasks.data.versions import load_version, shards_of
from cifar_tasks.storage.s3 import ObjectEntry, S3Store

KEPT_SECONDS = 7 * 86_400.0
"""A preparation that goes on may need what is younger. It writes all its objects, also those that are there already."""


def unused_objects(store: S3Store, line: str, kept_seconds: float = KEPT_SECONDS) -> list[ObjectEntry]:
    """What no version in the log of the line refers to: manifests first, so that none of them lacks shards meanwhile.

    A version that was rejected stands in the log. Needs the permission to delete.
    """
    oldest = _now(store, line) - kept_seconds
    log = read_line_log(store, line)
    versions = {entry.dataset.uri for entry in log.entries}
    used = {entry.dataset.index for entry in log.entries}
    used |= {key for uri in versions for key in _shards(store, uri)}
    unused = {
        entry.key: entry
        for kind in ("shards", "index")
        for entry in store.entries(f"{ROOT}/{line}/{kind}/")
        if entry.key not in used
    }
    old = {key for key, entry in unused.items() if entry.modified < oldest}
    manifests, all_manifests = [], _manifests(store)
    in_folder = Counter(_folder(manifest) for manifest in all_manifests)
    for manifest in all_manifests:
        if (uri := store.uri(manifest.key)) in versions or not (own := _shards(store, uri) & unused.keys()):
            continue
        # The same images under another name are found by the first manifest of their folder.
        if own <= old and manifest.modified < oldest and in_folder[_folder(manifest)] == 1:
            manifests.append(manifest)
        else:
            old -= own
    return [*manifests, *(unused[key] for key in sorted(old))]


def _shards(store: S3Store, uri: str) -> set[str]:
    arrays = shards_of(store, load_version(store, uri))
    return {ref.key for refs in arrays.values() for ref in refs}


def _manifests(store: S3Store) -> list[ObjectEntry]:
    return [entry for entry in store.entries("datasets/") if re.search(r"/manifest(-[0-9a-f]{8})?\.json$", entry.key)]


def _folder(manifest: ObjectEntry) -> str:
    return manifest.key.rpartition("/")[0]


def _now(store: S3Store, line: str) -> float:
    """By the clock of S3, which wrote the objects."""
    key = f"{ROOT}/{line}/watch/now.json"
    store.put(key, b"{}")
    (entry,) = store.entries(key)
    store.delete(key)
    return entry.modified
