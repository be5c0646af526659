"""The promotion logs of all registered models: are they whole, and do the aliases follow them?

Aliases that a promotion left behind when it was killed are moved. A damaged log is named, and nothing of it is changed.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from cifar_tasks.deployment.doctor.check_runner import Deployment, Finding, judge
from cifar_tasks.errors import IntegrityError, StorageRefused, TrackingRefused
from cifar_tasks.storage.promotion_log import Log, logged_models, read_log
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking import runs
from cifar_tasks.tracking.aliases import compare_aliases, follow_log, read_registry

if TYPE_CHECKING:
    from mlflow import MlflowClient

MODELS_AT_ONCE = 4
"""That are looked at: each one waits for S3 and MLflow."""
IN_LINE = Finding("ok", "")
"""Of a log of which there is nothing to tell."""


def promotion_logs(deployment: Deployment) -> str:
    """Give this process the right to read the folder promotions in S3 and the registered models in MLflow."""
    store, client = deployment.store(), runs.mlflow_client()
    # That of the settings also without any entry left in the bucket: its anchor in MLflow tells.
    names = sorted({deployment.settings.registered_model, *logged_models(store)})
    with ThreadPoolExecutor(MODELS_AT_ONCE) as pool:
        looked_at = list(pool.map(lambda name: _look_at(deployment, client, store, name), names))
    entries = [number for number, _ in looked_at if number]
    found = [finding for _, finding in looked_at if finding is not IN_LINE]
    judge("no registered model has a promotion log yet", skipped=not entries and not found)
    return _summary(found, f"logs: {len(entries)}, entries: {sum(entries)}; the aliases follow")


def _summary(found: Sequence[Finding], in_line: str) -> str:
    """The message if there is no problem; raises what is worst, with all messages."""
    problems = sorted((each for each in found if each.status != "ok"), key=lambda each: each.status)  # failures first
    messages = [each.message for each in (*problems, *(each for each in found if each.status == "ok"))]
    if not problems:
        return "; ".join([*messages, in_line])
    # `check_runner` formats a remedy, and a folder of the bucket may have any name.
    remedies = dict.fromkeys(each.remedy.replace("{", "{{").replace("}", "}}") for each in problems)
    raise Finding(problems[0].status, "; ".join(messages), " ".join(remedies))


def _look_at(deployment: Deployment, client: "MlflowClient", store: S3Store, name: str) -> tuple[int, Finding]:
    """How many entries the log of a registered model has, and what is to be told of it."""
    try:
        with runs.tracking_errors():
            registry = read_registry(client, name)  # before the log, as `follow_log` does
        log = read_log(store, name)
        state = compare_aliases(store, log, registry) if registry else "in line"
        if log.last is None or state == "in line":
            return len(log.entries), IN_LINE
        if state == "unfinished":
            return len(log.entries), _finish(deployment, client, store, log)
    except IntegrityError as error:
        what, _, remedy = str(error).partition(". ")
        return 0, Finding("failure", what, remedy)
    message = f"somebody moved an alias of {name} in MLflow, which the log does not say yet"
    remedy = f"{_repair(deployment, name)} (the next promotion does the same)"
    return len(log.entries), Finding("warning", message, remedy)


def _finish(deployment: Deployment, client: "MlflowClient", store: S3Store, log: Log) -> Finding:
    """Move the aliases, as the promotion would have done if it had not been killed after it had written its entry."""
    name = log.registered_model
    behind = f"the aliases of {name} did not follow entry {len(log.entries)} of its promotion log"
    try:
        with runs.tracking_errors():
            follow_log(client, store, name)
    except (TrackingRefused, StorageRefused) as error:
        remedy = f"Start the DAG cifar10_promotion for {name}, or as a user who may move aliases: "
        message = f"{behind}, and this process may not move them: {error}"
        return Finding("warning", message, remedy + _repair(deployment, name))
    return Finding("ok", f"{behind}; they do now")


def _repair(deployment: Deployment, name: str) -> str:
    """The command."""
    command = "cifar" if deployment.embedded else "docker compose run --rm cifar"
    return f"{command} promotions repair --registered-model {name}"
