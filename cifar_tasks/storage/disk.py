"""The disk of this machine, where it is full or not writable."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cifar_tasks.errors import DiskError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@contextmanager
def disk_errors(folder: Path | str, variable: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DiskError(
            f"{folder} cannot be used: {error.strerror or error}. Make room there, or set {variable} to another folder."
        ) from error
