"""Promotions for the tests of steps, each as a workflow run of its own."""

import time
import uuid
from pathlib import Path
from typing import Any

from click.testing import Result
from mlflow import MlflowClient
from typer.testing import CliRunner

from cifar_tasks.cli.main import app
from cifar_tasks.promotion.limits import Limits
from cifar_tasks.settings import Settings
from cifar_tasks.steps.payloads import EvaluatedModel, RegisteredModel
from cifar_tasks.steps.promote import propose, record
from cifar_tasks.steps.promotion_payloads import Answer, Promotion, PromotionRequest, Proposal, RollbackRequest
from cifar_tasks.steps.register import register_model
from cifar_tasks.steps.rollback import roll_back
from cifar_tasks.storage.promotion_log import Log, read_log
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking import runs
from tests.trainings import workflow
from tests.waiting import wait_until

FORCE = {"mode": "force", "reason": "a test"}


def registered_as(client: MlflowClient, evaluated: EvaluatedModel, name: str) -> RegisteredModel:
    """One more version with this model, as if another run had trained it."""
    data = evaluated.trained.plan.data
    data = data.model_copy(update={"request": data.request.model_copy(update={"registered_model": name})})
    plan = evaluated.trained.plan.model_copy(update={"data": data})
    run = client.create_run(data.experiment_id, tags={"mlflow.parentRunId": data.parent_run_id})
    trained = evaluated.trained.model_copy(update={"plan": plan, "run_id": run.info.run_id})
    return register_model(evaluated.model_copy(update={"trained": trained}))


def proposed(registered: RegisteredModel, limits: Limits | None = None, **request: Any) -> Proposal:
    asked = PromotionRequest(
        registered_model=registered.name, version=registered.version, limits=limits or Limits(), **request
    )
    return propose(asked, workflow(f"promotion-{uuid.uuid4().hex[:8]}"))


def second(client: MlflowClient, evaluated: EvaluatedModel, name: str) -> Proposal:
    """Of one more version, which becomes the champion when it is recorded."""
    return proposed(registered_as(client, evaluated, name), **FORCE)


def promote(registered: RegisteredModel, answer: Answer | None = None, **request: Any) -> Promotion:
    return record(proposed(registered, **request), answer)


def rolled_back(name: str, version: int | None = None, reason: str = "it is slow", by: str | None = None) -> Promotion:
    asked = RollbackRequest(registered_model=name, version=version, reason=reason)
    return roll_back(asked, workflow(f"rollback-{uuid.uuid4().hex[:8]}").model_copy(update={"by": by}))


def log_of(name: str) -> Log:
    return read_log(S3Store(Settings().bucket), name)


def cifar(*words: str) -> Result:
    """The command in this process; it must succeed."""
    done = CliRunner().invoke(app, words, env={"COLUMNS": "250"})
    assert done.exit_code == 0, done.output
    return done


def aliases(client: MlflowClient, name: str) -> dict[str, int]:
    return {alias: int(number) for alias, number in client.get_registered_model(name).aliases.items()}


def record_and_hang_before_the_champion_moves(proposal: Proposal) -> None:
    """For a process of its own, which the test kills."""
    set_alias = MlflowClient.set_registered_model_alias

    def hang(client: MlflowClient, name: str, alias: str, version: str) -> None:
        if alias == "champion":
            print("hanging", flush=True)  # noqa: T201
            time.sleep(600)
        set_alias(client, name, alias, version)

    MlflowClient.set_registered_model_alias = hang  # type: ignore[method-assign]
    record(proposal, None)


def record_in_rounds(proposal: Proposal, rounds: int, folder: Path) -> list[bool]:
    """For one of two processes, which meet in the folder: in each round both record their proposal at the same time, as
    another workflow run. Whether the aliases were those of the log after each round."""
    name, version = proposal.request.registered_model, proposal.request.version
    in_line = []
    for number in range(rounds):
        workflow_of_round = workflow(f"{name}-{version}-{number}")
        _meet(folder, f"begins-{number}", version)
        record(proposal.model_copy(update={"workflow": workflow_of_round}), None)
        _meet(folder, f"ended-{number}", version)
        last = log_of(name).last
        now = aliases(runs.mlflow_client(), name)
        in_line.append(last is not None and all(now.get(alias) == at for alias, at in last.aliases().items()))
    return in_line


def _meet(folder: Path, moment: str, version: int) -> None:
    (folder / f"{moment}-{version}").touch()
    wait_until(lambda: len(list(folder.glob(f"{moment}-*"))) == 2, 300)
