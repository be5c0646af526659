"""A promotion that nobody answers, on an Airflow of its own: how long it waits is a setting of the deployment."""

from pathlib import Path

import pytest
from airflow_client.client.exceptions import ApiException

from cifar_tasks.cli.dag_run import trigger
from cifar_tasks.deployment.dag_ids import PROMOTION_DAG
from cifar_tasks.steps.evaluate import evaluate_model
from cifar_tasks.steps.train import train_model
from cifar_tasks.tracking import runs
from tests.faults.test_promotion_run import answer, ended, note, states
from tests.promotions import aliases, log_of, registered_as
from tests.trainings import prepared, train_plan
from tests.watched_line import started_airflow

SECONDS = 10
NAME = "nobody-answers"


def test_no_answer_in_time_is_a_no_of_nobody(own_home: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIFAR_APPROVAL_HOURS", str(SECONDS / 3600))
    with started_airflow(own_home, monkeypatch, PROMOTION_DAG) as airflow:
        client = runs.mlflow_client()
        evaluated = evaluate_model(train_model(train_plan(prepared(pictures, NAME), epochs=1)))
        version = registered_as(client, evaluated, NAME).version
        conf = {"registered_model": NAME, "version": version, "mode": "approve", "reason": "of the one who started it"}
        run = trigger(airflow, conf, PROMOTION_DAG)
        promotion = ended(run)
        entry = log_of(NAME).last
        assert entry is not None
        assert (entry.action, entry.who, entry.champion, entry.challenger) == ("reject", None, None, version)
        assert (entry.reason, entry.answer_reason) == ("of the one who started it", "")
        assert promotion.reasons[-1].startswith("nobody answered in time at ")
        assert promotion.reasons[-1].endswith(" UTC"), "no reason of anybody"
        assert aliases(client, NAME) == {"challenger": version}
        assert states(run)["approve"] == "success"
        assert "nobody answered in time" in note(run)
        with pytest.raises(ApiException) as late:
            answer(run, "Approve")
        assert late.value.status == 409
