"""The aliases of a registered model follow its promotion log. One that a person moves in MLflow is respected.

A tag of the registered model names the last entry that the aliases have followed, and its digest. So three things can
be told apart: aliases that follow, a process that was killed before it had moved them, and a person's move.
"""

import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cifar_tasks.errors import ConfigError, IntegrityError
from cifar_tasks.storage.append_only_log import ATTEMPTS
from cifar_tasks.storage.promotion_log import Log, Outcome, altered, append, read_log
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking.decisions import note_decision
from cifar_tasks.tracking.model_registry import CHALLENGER, CHAMPION, PREVIOUS, set_tag

if TYPE_CHECKING:
    from mlflow import MlflowClient

ALIASES = (PREVIOUS, CHALLENGER, CHAMPION)
"""In the order in which they move: the champion last."""
FOLLOWED = "cifar.promotion"
"""Tag of a registered model: number and SHA-256 of the last entry that its aliases have followed."""
GRACE = 1.5
"""Seconds that a difference must last before it is a person's: another process may just be moving the aliases."""

_log = logging.getLogger(__name__)

State = Literal["in line", "unfinished", "moved by hand"]


@dataclass(frozen=True)
class Registry:
    """What MLflow says of a registered model at one moment."""

    aliases: Mapping[str, int]
    followed: int
    """Number of the last entry that the aliases have followed; 0 for none."""
    digest: str
    """Of that entry."""
    created: int
    """Unix time in ms."""


def read_registry(client: "MlflowClient", name: str) -> Registry | None:
    """None if there is no such registered model."""
    from mlflow.exceptions import MlflowException

    try:
        # Not `search_model_versions`, whose versions have no aliases.
        found = client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    tag = re.fullmatch(r"(\d+) ([0-9a-f]{64})", found.tags.get(FOLLOWED, ""))
    aliases = {alias: int(version) for alias, version in found.aliases.items() if alias in ALIASES}
    followed, digest = (int(tag[1]), tag[2]) if tag else (0, "")
    return Registry(aliases, followed, digest, int(found.creation_timestamp))


def compare_aliases(store: S3Store, log: Log, registry: Registry) -> State:
    """Do the aliases follow the log? `IntegrityError` names an entry at its end that was altered or deleted."""
    entries, last = log.entries, log.last
    if registry.followed > len(entries):
        raise altered(store, log.registered_model, len(entries) + 1, "is missing")
    if registry.followed and log.digests[registry.followed - 1] != registry.digest:
        raise altered(store, log.registered_model, registry.followed)
    if last is None:
        return "moved by hand" if registry.aliases else "in line"
    if last.registry_created != registry.created:
        return "moved by hand"
    if registry.followed == len(entries) and _agree(last, registry):
        return "in line"
    # Between two entries each alias may have moved already, or not yet.
    steps = [entry.aliases() for entry in entries[max(registry.followed - 1, 0) :]]
    steps += [] if registry.followed else [dict.fromkeys(ALIASES)]
    expected = all(registry.aliases.get(alias) in {step[alias] for step in steps} for alias in ALIASES)
    return "unfinished" if expected and registry.followed < len(entries) else "moved by hand"


def follow_log(client: "MlflowClient", store: S3Store, name: str) -> Log:
    """Bring aliases and log in line, and return the log; `ConfigError` if there is no such registered model.

    An alias that was not moved yet is moved; one that a person has moved is entered into the log. Whoever moves an
    alias reads the log again afterwards, so that of two processes the slower one does not leave its own state.
    """
    seen: Registry | None = None
    own = dict[str, int]()  # aliases that this call has set, perhaps later than another process that was further
    for _ in range(ATTEMPTS):
        registry = read_registry(client, name)  # before the log: it must not know an entry that the log has not
        if registry is None:
            raise ConfigError(f"there is no registered model {name} in MLflow. Correct the name, or train a model.")
        log = read_log(store, name)
        state = compare_aliases(store, log, registry)
        if state == "in line":
            return log
        by_hand = state == "moved by hand" and not _are_own(own, log, registry)
        if by_hand and registry != seen:
            seen = registry
            time.sleep(GRACE if log.entries else 0)
        elif by_hand or not _move(client, log, registry, own):
            outcome = _moved_by_hand(client, log, registry)
            _log.warning("%s", "; ".join(outcome.reasons))
            append(store, log, outcome)
    raise IntegrityError(f"the aliases of {name} in MLflow do not become what was set. Look at its page in MLflow.")


def _agree(entry: Outcome, registry: Registry) -> bool:
    return all(registry.aliases.get(alias) == version for alias, version in entry.aliases().items())


def _are_own(own: Mapping[str, int], log: Log, registry: Registry) -> bool:
    """Whether the aliases that do not follow the log are the caller's own."""
    wanted = log.last.aliases() if log.last and log.last.registry_created == registry.created else {}
    differ = [alias for alias in wanted if registry.aliases.get(alias) != wanted[alias]]
    return bool(differ) and all(alias in own and own[alias] == registry.aliases.get(alias) for alias in differ)


def _move(client: "MlflowClient", log: Log, registry: Registry, own: dict[str, int]) -> bool:
    """Move the aliases to what the last entry says, read them back, note the new decisions with their versions, and say
    so; false if a version was deleted."""
    name, last = log.registered_model, log.entries[-1]
    wanted = {alias: last.aliases()[alias] for alias in ALIASES}
    moves = {alias: version for alias, version in wanted.items() if version and registry.aliases.get(alias) != version}
    if not all(_exists(client, name, version) for version in moves.values()):
        return False
    for alias, version in moves.items():
        client.set_registered_model_alias(name, alias, str(version))
        own[alias] = version
        _log.info("alias %s of %s: version %d", alias, name, version)
    found = read_registry(client, name)
    if found and _agree(last, found):
        for entry in log.entries[registry.followed :]:
            if entry.candidate is not None and _exists(client, name, entry.candidate):
                note_decision(client, entry)
        set_tag(client, name, FOLLOWED, f"{last.number} {log.digests[-1]}")
    return True


def _moved_by_hand(client: "MlflowClient", log: Log, registry: Registry) -> Outcome:
    """The state that a person has made. Nobody knows who, and when."""
    last, now = log.last, {alias: registry.aliases.get(alias) for alias in ALIASES}
    same_model = last is not None and last.registry_created == registry.created
    before: Mapping[str, int | None] = last.aliases() if last and same_model else dict.fromkeys(ALIASES)
    changes = {alias: (before[alias], now[alias]) for alias in reversed(ALIASES) if before[alias] != now[alias]}
    reasons = [_change(client, log.registered_model, alias, *change) for alias, change in changes.items()]
    if last is None:
        reasons.insert(0, "the promotion log begins with the aliases that are in place")
    elif not same_model:
        reasons.insert(0, f"the registered model {log.registered_model} was deleted and created again")
    if CHAMPION in changes and PREVIOUS not in changes and same_model and before[CHAMPION] is not None:
        now[PREVIOUS] = before[CHAMPION] if _exists(client, log.registered_model, before[CHAMPION]) else now[PREVIOUS]
    return Outcome(
        action="manual",
        candidate=now[CHAMPION],
        champion=now[CHAMPION],
        previous=now[PREVIOUS],
        challenger=now[CHALLENGER],
        registry_created=registry.created,
        reasons=tuple(reasons),
    )


def _change(client: "MlflowClient", name: str, alias: str, before: int | None, now: int | None) -> str:
    if before is None:
        return f"the alias {alias} is at version {now}"
    if not _exists(client, name, before):
        return f"somebody deleted version {before} in MLflow: the {alias} is now {f'version {now}' if now else 'none'}"
    if now is not None:
        return f"somebody moved the alias {alias} from version {before} to version {now} in MLflow"
    return f"somebody removed the alias {alias} from version {before} in MLflow"


def _exists(client: "MlflowClient", name: str, version: int | None) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        client.get_model_version(name, str(version))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False
    return True
