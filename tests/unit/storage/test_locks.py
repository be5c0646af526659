"""Waiting for another process has an end."""

import pytest
from filelock import FileLock

from cifar_tasks.errors import StorageError
from cifar_tasks.storage import locks


def test_a_lock_that_is_never_given_back_ends_in_an_error_that_names_it(monkeypatch, tmp_path):
    monkeypatch.setattr(locks, "LOCK_SECONDS", 0.2)
    with (
        FileLock(tmp_path / "file.lock", is_singleton=False),
        pytest.raises(StorageError, match=r"file\.lock for 0\.2 s"),
        locks.exclusive(tmp_path / "file"),
    ):
        pass
    with locks.exclusive(tmp_path / "file"):
        assert (tmp_path / "file.lock").exists()
