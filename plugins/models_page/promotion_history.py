"""The promotion log of a registered model, the newest entry first, and how often test images were used.

Entries never change, so that they are read again only when the listing has another one.
"""

from functools import lru_cache

from cifar_tasks.storage.promotion_log import ROOT, Entry, read_log, uses_of
from models_page.reading import Cached, store


def _listing() -> tuple[str, ...]:
    return tuple(store().keys(f"{ROOT}/"))


@lru_cache(maxsize=32)
def _read(name: str, listing: tuple[str, ...]) -> tuple[Entry, ...]:
    return tuple(reversed(read_log(store(), name).entries))


@lru_cache(maxsize=32)
def _count(test_set: str, listing: tuple[str, ...]) -> int:
    return uses_of(store(), test_set)


entries = Cached("S3", lambda name: _read(name, _listing()))
uses = Cached("S3", lambda test_set: _count(test_set, _listing()))
"""Decisions on the test images with this digest."""
