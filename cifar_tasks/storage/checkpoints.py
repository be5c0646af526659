"""One checkpoint per epoch in object storage: content first, then the manifest that makes it exist."""

import logging

from pydantic import TypeAdapter

from cifar_tasks.errors import IntegrityError
from cifar_tasks.storage.s3 import ObjectRef, S3Store, canonical_json
from cifar_tasks.training.callbacks import Callback, Snapshot
from cifar_tasks.training.state import TrainingState

KEEP = 2
"""The newest, and the one before in case the newest is damaged."""
CONTENT, MANIFEST = ".safetensors", ".json"

_log = logging.getLogger(__name__)


class CheckpointCallback(Callback):
    """Resumes a training from its newest checkpoint and saves one per epoch, below `prefix`."""

    def __init__(self, store: S3Store, prefix: str) -> None:
        self._store, self._prefix = store, prefix

    def on_train_start(self, state: TrainingState) -> None:
        if (data := newest_checkpoint(self._store, self._epochs(state.label))) is not None:
            state.load_bytes(data)
            _log.info("%sresuming after epoch %d", state.label, len(state.history))

    def on_epoch_end(self, snapshot: Snapshot) -> None:
        save_checkpoint(self._store, self._epochs(snapshot.label), snapshot.history[-1].epoch, snapshot.checkpoint)

    def _epochs(self, label: str) -> str:
        return f"{self._prefix}/{label}epochs"


def save_checkpoint(store: S3Store, prefix: str, epoch: int, data: bytes) -> None:
    """Write the checkpoint of `epoch` (counted from 1), then delete all but the newest two."""
    ref = store.put(f"{prefix}/epoch-{epoch:04d}{CONTENT}", data)
    store.put(f"{prefix}/epoch-{epoch:04d}{MANIFEST}", canonical_json(ref.as_dict()))
    for old in _names(store, prefix, MANIFEST)[KEEP:]:
        store.delete(old + MANIFEST)
        store.delete(old + CONTENT)


def newest_checkpoint(store: S3Store, prefix: str) -> bytes | None:
    """The newest one that is whole; a damaged one is skipped with a warning."""
    for name in _names(store, prefix, CONTENT):
        try:
            ref = TypeAdapter(ObjectRef).validate_json(store.get(name + MANIFEST), strict=True)
            return store.get(ref.key, ref.sha256)
        except KeyError:
            _log.warning("skipping checkpoint %s: writing it was interrupted", name)
        except (IntegrityError, ValueError) as error:
            _log.warning("skipping checkpoint %s: %s", name, error)
    return None


def forget_checkpoints(store: S3Store, prefix: str) -> None:
    """After training: the saved model takes their place."""
    for key in sorted(store.keys(f"{prefix}/")):  # a manifest (.json) goes before its content
        store.delete(key)


def _names(store: S3Store, prefix: str, suffix: str) -> list[str]:
    """Newest first: epochs are written with leading zeros."""
    keys = (key for key in store.keys(f"{prefix}/") if key.endswith(suffix))
    return sorted((key.removesuffix(suffix) for key in keys), reverse=True)
