"""Whether a line's source has something new, and whether that delivery is complete. `lines/<line>/watch/` keeps:

- `handled.json`: the listing of the last delivery that became a version, or turned out to be one that is there;
- `seen.json`: the listing that was seen last. Its age, by the clock of S3, is how long the source has not changed:
  neither the clock of this machine nor the times of files take part;
- `waiter.json`: the run that waits for the delivery. A later run takes over, so that waiting runs do not pile up.
"""

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cifar_tasks.data.lines.line_log import ROOT, Delivery
from cifar_tasks.data.lines.line_settings import DatasetLine
from cifar_tasks.storage.s3 import S3Store, canonical_json

if TYPE_CHECKING:
    from cifar_tasks.data.lines.line_source import Listing

Status = Literal["unchanged", "waiting", "complete", "superseded"]
"""`superseded`: a later run waits for the same delivery."""


@dataclass(frozen=True)
class Look:
    status: Status
    reason: str


def begin_watch(store: S3Store, name: str, workflow: str) -> None:
    """This run is the one that waits for the next delivery."""
    store.put(_key(name, "waiter"), canonical_json(workflow))


def look(store: S3Store, name: str, line: DatasetLine, listing: "Listing", workflow: str | None = None) -> Look:
    """Compare the listing with what was handled and seen before."""
    objects = f"{len(listing.marks):,} objects"
    handled = _read(store, name, "handled")
    if handled.get("listing") == listing.digest:
        return Look("unchanged", f"nothing new: {objects}, as they were when the last delivery was handled")
    if workflow and (waiter := _waiter(store, name)) != workflow:
        return Look("superseded", f"the run {waiter} waits for this delivery now")
    if line.marker:
        if listing.marker and listing.marker != handled.get("marker"):
            return Look("complete", f"{objects}; {line.marker} was written")
        state = "has not been written since the last delivery" if listing.marker else "is not there"
        return Look("waiting", f"{objects}; waiting for {line.marker}, which {state}")
    settled = f"not changed for {{:.0f}} of {line.settle_seconds:g} s"
    age = _unchanged_for(store, name, listing)
    status: Status = "complete" if age >= line.settle_seconds else "waiting"
    return Look(status, f"{objects}, {settled.format(age)}")


def mark_handled(store: S3Store, name: str, delivery: Delivery) -> None:
    """A later run finds nothing new until the source changes again."""
    store.put(_key(name, "handled"), canonical_json(delivery.model_dump(mode="json")))


def _unchanged_for(store: S3Store, name: str, listing: "Listing") -> float:
    """Seconds since this listing was seen first."""
    key, content = _key(name, "seen"), canonical_json({"listing": listing.digest})
    with suppress(KeyError):
        seen = store.snapshot(key)
        # Below -1 the clock of S3 went back: wait once more from now on, not until the clock has caught up.
        if seen.data == content and seen.age > -1:
            return max(0.0, seen.age)
    store.put(key, content)
    return 0.0


def _waiter(store: S3Store, name: str) -> str | None:
    try:
        return str(json.loads(store.get(_key(name, "waiter"))))
    except KeyError:
        return None


def _read(store: S3Store, name: str, what: str) -> dict[str, str | None]:
    try:
        return dict(json.loads(store.get(_key(name, what))))
    except KeyError:
        return {}


def _key(name: str, what: str) -> str:
    return f"{ROOT}/{name}/watch/{what}.json"
