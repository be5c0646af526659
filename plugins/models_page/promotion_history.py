"""The promotion log of a registered model, the newest entry first."""

from cifar_tasks.storage.promotion_log import Entry, read_log
from models_page.reading import Cached, store


def _entries(name: str) -> tuple[Entry, ...]:
    return tuple(reversed(read_log(store(), name).entries))


entries = Cached("S3", _entries)
