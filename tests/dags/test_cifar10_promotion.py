"""The promotion DAG as Airflow reads it: its flow, its form, what becomes of a person's answer."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from airflow.sdk.exceptions import ParamValidationError

import cifar10_promotion
from approval import REASON
from cifar_tasks.promotion.limits import Limits
from cifar_tasks.steps.promotion_payloads import Answer, PromotionRequest
from tests.dags.parsing import parse_elsewhere


@pytest.fixture(scope="module")
def dag():
    return cifar10_promotion.cifar10_promotion()


def test_a_decision_is_recorded_with_and_without_a_person(dag):
    assert {task.task_id: sorted(task.downstream_task_ids) for task in dag.tasks} == {
        "propose": ["branch_on_approval", "record"],
        "branch_on_approval": ["approve", "record"],
        "approve": ["record"],
        "record": [],
    }
    assert dag.get_task("record").trigger_rule == "none_failed_min_one_success"
    branch = dag.get_task("branch_on_approval").python_callable
    assert branch(proposal={"needs_approval": True}) == "approve"
    assert branch(proposal={"needs_approval": False}) == "record"


def test_only_the_task_that_needs_torch_waits_for_a_gpu_slot(dag):
    assert {task.task_id for task in dag.tasks if (task.pool, task.queue) == ("gpu", "gpu")} == {"propose"}
    assert {task.queue for task in dag.tasks} == {"gpu", "default"}


def test_no_answer_is_a_no(dag):
    approve = dag.get_task("approve")
    assert (approve.options, approve.defaults) == (["Approve", "Reject"], ["Reject"])
    assert approve.response_timeout == timedelta(hours=24)


def test_runs_that_wait_for_a_person_do_not_keep_the_next_one_waiting(dag):
    assert dag.schedule is None
    assert dag.max_active_runs == 100


@pytest.mark.parametrize(
    ("chosen", "person", "given", "expected"),
    [
        ("Approve", "ada", {}, Answer(approved=True, by="ada")),
        ("Reject", "ada", {"answer_reason": "too slow"}, Answer(approved=False, by="ada", reason="too slow")),
        ("Reject", None, {"answer_reason": ""}, Answer(approved=False, by=None)),
    ],
)
def test_the_answer_of_the_form_becomes_that_of_the_step(chosen, person, given, expected):
    at = datetime(2026, 11, 26, 12, tzinfo=UTC)
    user = person and {"id": "7", "name": person}
    response = {"chosen_options": [chosen], "params_input": given, "responded_at": at, "responded_by_user": user}
    answer = Answer.model_validate(cifar10_promotion.answer(response))
    assert answer == expected.model_copy(update={"at": at})


@pytest.mark.parametrize("value", [None, "", "too slow"])
def test_the_field_for_the_reason_of_an_answer_may_stay_empty_and_is_none_of_the_run_s_form(dag, value):
    asked = dag.get_task("approve").params
    assert asked.get_param(REASON).resolve(value) == value
    assert set(asked).isdisjoint(dag.params)


def test_where_nobody_was_asked_there_is_no_answer():
    assert cifar10_promotion.answer(None) is None


def test_the_reasons_of_the_decision_go_into_the_note_of_the_run(dag, monkeypatch):
    notes = []
    monkeypatch.setattr(cifar10_promotion, "run_task_step", lambda step, **_: {"reasons": [step]})
    monkeypatch.setattr(cifar10_promotion, "show_in_note", notes.append)
    assert dag.get_task("record").python_callable(proposal={}, response=None) == {"reasons": ["promote:record"]}
    assert notes == [["promote:record"]]


def test_the_form_s_values_become_the_request(dag, monkeypatch):
    given = {}
    monkeypatch.setattr(cifar10_promotion, "workflow_run", dict)
    monkeypatch.setattr(cifar10_promotion, "run_task_step", lambda step, **arguments: given.update(arguments))
    params = {name: dag.params.get_param(name).resolve() for name in dag.params if name != "version"}
    dag.get_task("propose").python_callable(params={**params, "version": 3, "min_gain": 0.1})
    request = PromotionRequest.model_validate(given["request"])
    assert (request.registered_model, request.version, request.mode) == ("cifar10-classifier", 3, "auto")
    assert request.limits == Limits(min_gain=0.1)


@pytest.mark.parametrize(
    ("name", "value"),
    [("version", 0), ("version", None), ("mode", "maybe"), ("registered_model", "a/b"), ("min_gain", -0.1)],
)
def test_the_form_refuses_a_bad_value(dag, name, value):
    with pytest.raises(ParamValidationError):
        dag.params.get_param(name).resolve(value)


def test_the_settings_give_mode_limits_and_the_time_for_an_answer():
    printed = parse_elsewhere(
        "import cifar10_promotion\n"
        "dag = cifar10_promotion.cifar10_promotion()\n"
        "values = [dag.params[name] for name in ('mode', 'min_gain', 'registered_model')]\n"
        "print(json.dumps([*values, dag.get_task('approve').response_timeout.total_seconds()]))",
        CIFAR_PROMOTION="approve",
        CIFAR_PROMOTION_LIMITS='{"min_gain": 0.02}',
        CIFAR_REGISTERED_MODEL="mine",
        CIFAR_APPROVAL_HOURS="0.5",
    )
    assert printed == '["approve", 0.02, "mine", 1800.0]'


def test_a_queue_for_promotions_takes_all_tasks_that_write_the_log_or_move_aliases():
    code = (
        "import cifar10_promotion, cifar10_rollback\n"
        "tasks = [*cifar10_promotion.cifar10_promotion().tasks, *cifar10_rollback.cifar10_rollback().tasks]\n"
        "print(json.dumps({task.task_id: [task.queue, task.pool] for task in tasks if task.task_id in "
        "('propose', 'record', 'roll_back')}))"
    )
    own = ["promotion", "default_pool"]
    assert json.loads(parse_elsewhere(code, CIFAR_PROMOTION_QUEUE="promotion")) == dict.fromkeys(
        ("propose", "record", "roll_back"), own
    )
    gpu = ["gpu", "gpu"]
    assert json.loads(parse_elsewhere(code)) == {
        "propose": gpu,
        "record": ["default", "default_pool"],
        "roll_back": gpu,
    }
