"""The promotion log: one append-only log of decisions for each registered model, `promotions/<registered model>/`."""

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from cifar_tasks.errors import IntegrityError
from cifar_tasks.storage.append_only_log import Chain, LogEntry, LogPlace, append_to, decide_entry, read_chain
from cifar_tasks.storage.s3 import S3Store

ROOT = "promotions"
Action = Literal["promote", "keep", "reject", "rollback", "manual"]
"""`reject`: a person said no, or nobody answered in time. `manual`: somebody moved an alias in MLflow."""

_log = logging.getLogger(__name__)


class Outcome(BaseModel):
    """What was decided, and where the aliases are afterwards. Numbers are those of model versions."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    action: Action
    candidate: int | None
    """The version that was decided about."""
    champion: int | None
    previous: int | None
    challenger: int | None
    registry_created: int | None = None
    """When MLflow created the registered model, in ms: another one of the same name has other versions."""
    mode: str = ""
    reason: str = ""
    """Written by the person who started it."""
    who: str | None = None
    """The person who decided; none if a run did."""
    answer_reason: str = ""
    """Written by the person who was asked."""
    answered: datetime | None = None
    """When that person answered."""
    workflow: str | None = None
    """The run that decided; its retry finds this entry."""
    url: str | None = None
    """Of that run, or of the comparison."""
    test_set: str | None = None
    """Digest of the test images that were used."""
    uses: int = 0
    """Decisions with these test images so far, this one included."""
    decision: dict[str, Any] = {}
    """Evidence, limits and checks."""
    reasons: tuple[str, ...] = ()

    def aliases(self) -> dict[str, int | None]:
        return {"champion": self.champion, "previous": self.previous, "challenger": self.challenger}


def challenger_after(last: Outcome | None, champion: int) -> int | None:
    """The challenger once `champion` has become the champion.

    An alias is never deleted: if that version was the challenger, the champion that it replaces takes its place, and
    without one it keeps both aliases.
    """
    if last is None or last.challenger != champion:
        return last.challenger if last else None
    return last.champion or champion


class Entry(Outcome, LogEntry):
    """An outcome in its place in the log."""

    registered_model: str

    @property
    def earlier_champion(self) -> int | None:
        """What a rollback without a version makes the champion again."""
        return None if self.previous == self.champion else self.previous


@dataclass(frozen=True)
class Log(Chain[Entry]):
    """The entries of one registered model."""

    registered_model: str

    def of_workflow(self, workflow: str) -> Entry | None:
        """What a run decided. An alias that it noticed is not its decision."""
        return next((e for e in self.entries if e.workflow == workflow and e.action != "manual"), None)


def key(name: str, number: int) -> str:
    return _place(name).key(number)


def read_log(store: S3Store, name: str) -> Log:
    """Read and verify the log; `IntegrityError` names the entry that is missing or was altered.

    Of the last entry only the anchor in MLflow can tell that (`cifar_tasks.tracking.aliases`).
    """
    return _log_of(name, read_chain(store, _place(name)))


def append(store: S3Store, log: Log, outcome: Outcome) -> Log | None:
    """The log with one more entry; none if another process has written that entry meanwhile."""
    name = log.registered_model
    written = append_to(store, _place(name), log, dict(outcome))
    return None if written is None else _log_of(name, written)


def decide_and_append(store: S3Store, name: str, workflow: str, decide: Callable[[Log], Outcome]) -> Entry:
    """Decide on the log as it is and write the entry. If another process was first, `decide` is called again with the
    log that has its entry. The entry that an earlier try of the same run has written is returned as it is."""

    def outcome(chain: Chain[Entry]) -> dict[str, Any] | Entry:
        log = _log_of(name, chain)
        return log.of_workflow(workflow) or dict(decide(log))

    return decide_entry(store, _place(name), outcome)


def logged_models(store: S3Store) -> list[str]:
    """Names of the registered models that have a promotion log."""
    found = (re.fullmatch(rf"{ROOT}/([^/]+)/\d{{6}}\.json", key) for key in store.keys(f"{ROOT}/"))
    return sorted({each[1] for each in found if each})


def uses_of(store: S3Store, test_digest: str) -> int:
    """How many decisions, about all registered models, have used these test images.

    A damaged log is left out: it stops the promotions of its own model, and of no other.
    """
    uses = 0
    for name in logged_models(store):
        try:
            entries = read_log(store, name).entries
        except IntegrityError as error:
            _log.warning("its decisions are not counted: %s", error)
            continue
        uses += sum(
            entry.test_set == test_digest and entry.action in ("promote", "keep", "reject") for entry in entries
        )
    return uses


def altered(store: S3Store, name: str, number: int, what: str = "was altered") -> IntegrityError:
    """The error that names an entry and what to do."""
    return _place(name).altered(store, number, what)


def _place(name: str) -> LogPlace[Entry]:
    remedy = (
        f"To begin a new log move the folder {ROOT}/{name} away, and delete the tag cifar.promotion of the registered "
        "model in MLflow."
    )
    owner = {"registered_model": name}
    return LogPlace(f"{ROOT}/{name}", owner, Entry, f"the promotion log of {name}", remedy)


def _log_of(name: str, chain: Chain[Entry]) -> Log:
    return Log(chain.entries, chain.digests, name)
