"""The training DAG as Airflow reads it: its flow, what its form refuses, how its tasks are run."""

import copy
import inspect
import json
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

import cifar10_promotion
import cifar10_training
from cifar_tasks.cli import local_run
from cifar_tasks.config import Overrides
from cifar_tasks.promotion.limits import Limits
from cifar_tasks.steps.payloads import RunRequest, WorkflowRun
from cifar_tasks.steps.promotion_payloads import PromotionRequest
from step_tasks import form_request
from tests.dags.parsing import parse_elsewhere


@pytest.fixture
def dag():
    """A copy for each test: a parameter keeps the value that it has resolved."""
    dag = cifar10_training.cifar10_training()
    dag.params = copy.deepcopy(dag.params)
    return dag


def test_the_flow_is_one_line_with_a_branch_around_the_search(dag):
    assert {task.task_id: sorted(task.downstream_task_ids) for task in dag.tasks} == {
        "prepare": ["plan_training"],
        "plan_training": ["branch_on_tuning"],
        "branch_on_tuning": ["select_params", "tuning.create_studies"],
        "tuning.create_studies": ["tuning.run_trials"],
        "tuning.run_trials": ["select_params"],
        "select_params": ["model.train", "report"],
        "model.train": ["model.evaluate"],
        "model.evaluate": ["model.register"],
        "model.register": ["report"],
        "report": ["promote"],
        "promote": [],
    }
    assert dag.get_task("select_params").trigger_rule == "none_failed_min_one_success"
    assert dag.get_task("report").trigger_rule == "none_failed_min_one_success"  # also after a model that was skipped


@pytest.mark.parametrize(
    ("tune", "leads_to"),
    [([], "select_params"), (["cnn"], "tuning.create_studies"), (["a", "b"], "tuning.create_studies")],
)
def test_the_branch_leads_to_the_search_only_if_the_form_asks_for_one(dag, monkeypatch, tune, leads_to):
    pushed = {}
    context = {"ti": SimpleNamespace(xcom_push=pushed.__setitem__)}
    monkeypatch.setattr(cifar10_training, "get_current_context", lambda: context)
    branch = dag.get_task("branch_on_tuning").python_callable
    assert branch(plans=["plan"], params={"tune": tune}) == leads_to
    assert pushed == {"plans": ["plan"]}


@pytest.mark.parametrize(("name", "trainings"), [("model.train", 3), ("model.evaluate", 1)])
def test_a_training_has_its_share_of_the_cores_and_an_evaluation_all_of_them(dag, monkeypatch, name, trainings):
    plan = {"config": {"model": "cnn"}, "data": {"request": {"models": ["cnn", "resnet50", "efficientnet_lite0"]}}}
    given: dict[str, Any] = {}
    monkeypatch.setattr(cifar10_training, "run_task_step", lambda step, **arguments: given.update(arguments))
    monkeypatch.setattr(cifar10_training, "show_name", lambda name: None)
    function = dag.get_task(name).python_callable
    (argument,) = inspect.signature(function).parameters
    function(**{argument: plan if name == "model.train" else {"plan": plan}})
    assert given["trainings"] == trainings


@pytest.mark.parametrize("notes", [[], ["resnet50 is not trained", "cnn is trained without tuning"]])
def test_the_report_notes_models_that_were_skipped_or_not_tuned(dag, monkeypatch, notes):
    noted: list[str] = []
    monkeypatch.setattr(cifar10_training, "run_task_step", lambda step, **arguments: {"notes": notes})
    monkeypatch.setattr(cifar10_training, "show_in_note", noted.extend)
    assert dag.get_task("report").python_callable(registered=[], plans=[]) == {"notes": notes}
    assert noted == notes


@pytest.mark.parametrize("approval", [False, True])
def test_the_command_line_does_the_same_steps_in_the_same_order(monkeypatch, approval):
    """`cifar run` and the DAGs are two ways through one flow."""
    of_dags = steps_of(cifar10_training, monkeypatch) + steps_of(cifar10_promotion, monkeypatch)
    called: list[str] = []

    def recorded(name: str, result: Any) -> Any:
        return lambda *values: called.append(name) or result

    names = [step.partition(":")[2] for step in of_dags]
    results = {"plan_training": [1], "create_studies": [1], "select_params": [1]} | {
        "report": SimpleNamespace(promotion="request"),
        "propose": SimpleNamespace(needs_approval=approval),
    }
    for name in names:
        monkeypatch.setattr(local_run, name, recorded(name, results.get(name)))
    workflow, request = WorkflowRun(id="cli/name", name="name"), SimpleNamespace(tune=["cnn"])
    local_run.run_steps(workflow, request, recorded("asked", None))
    assert called == [*names[:-1], *(["asked"] if approval else []), "record"]


def steps_of(module: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The step that each task runs, in the order of the flow."""
    called: list[str] = []
    monkeypatch.setattr(module, "run_task_step", lambda step, **_: called.append(step) or ANYTHING)
    monkeypatch.setattr(module, "workflow_run", dict)
    monkeypatch.setattr(module, "form_request", lambda kind, params: {})
    monkeypatch.setattr(module, "show_name", lambda name: None, raising=False)
    monkeypatch.setattr(module, "show_in_note", lambda reasons: None, raising=False)
    monkeypatch.setattr(module, "answer", lambda response: None, raising=False)
    for task in getattr(module, module.__name__)().topological_sort():
        function = getattr(getattr(task, "operator_class", task), "python_callable", None)
        function = getattr(task, "python_callable", function)
        if function and not task.task_id.startswith("branch_on"):
            function(**dict.fromkeys(inspect.signature(function).parameters, ANYTHING))
    return called


class _Anything(dict):
    """Stands for any argument of a task."""

    def __missing__(self, key: str) -> "_Anything":
        return self


ANYTHING = _Anything()


def test_the_promotion_is_started_once_for_the_candidate_of_the_run_with_its_id(dag):
    promote = dag.get_task("promote")
    request = PromotionRequest(registered_model="mine", version=3, mode="approve", limits=Limits(min_gain=0.1))
    reported = {"promotion": request.model_dump(mode="json")}
    context = {"ti": SimpleNamespace(xcom_pull=lambda task: reported), "run_id": "scheduled__1"}
    promote.render_template_fields(context, jinja_env=dag.get_template_env())
    conf = json.loads(promote.conf)
    assert PromotionRequest.from_form(conf) == request
    assert conf.keys() <= set(cifar10_promotion.cifar10_promotion().params)
    assert (promote.trigger_dag_id, promote.trigger_run_id) == ("cifar10_promotion", "scheduled__1")
    assert promote.reset_dag_run
    assert not promote.wait_for_completion


def test_the_form_s_values_become_the_request_of_the_steps(dag, monkeypatch):
    given = {}
    monkeypatch.setattr(cifar10_training, "workflow_run", lambda: {"id": "dag/run", "name": "run"})
    monkeypatch.setattr(cifar10_training, "run_task_step", lambda step, **arguments: given.update(arguments))
    params = {**dag.params.validate(), "seed": 7, "epochs": 2, "flip": "off", "tune": ["cnn"]}
    dag.get_task("prepare").python_callable(params=params)
    request = RunRequest.model_validate_json(json.dumps(given["request"]), strict=True)
    assert (request.models, request.tune, request.image_size) == (
        ["cnn", "efficientnet_lite0", "resnet50"],
        ["cnn"],
        32,
    )
    assert request.overrides.given() == {"seed": 7, "epochs": 2, "flip": False}


@pytest.mark.parametrize(
    ("models", "more", "trained"),
    [
        (["cnn"], ["timm/convnext_tiny.fb_in22k", " timm/resnet18.a1_in1k"], 3),
        ([], ["timm/resnet18.a1_in1k"], 1),
        (["timm/resnet18.a1_in1k"], ["timm/resnet18.a1_in1k"], 1),
        (["cnn"], [], 1),
    ],
)
def test_models_of_timm_are_trained_beside_or_instead_of_those_of_the_list(dag, models, more, trained):
    request = RunRequest.from_form({**dag.params.validate(), "models": models, "more_models": more})
    assert len(request.models) == trained
    assert set(request.models) == {*models, *(name.strip() for name in more)}
    form = request.as_form()
    assert RunRequest.from_form({**dag.params.validate(), **form, "more_models": []}) == request
    dag.params.get_param("models").resolve(form["models"])  # a run that is triggered by API has all in one field


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["timm/resnet18.a1_in"], r"'timm/resnet18\.a1_in' \(did you mean timm/resnet18"),
        (["timm/resnett19"], "there is no model 'timm/resnett19'"),
        ([], "models: "),
    ],
)
def test_a_run_that_has_no_model_or_an_unknown_one_of_timm_is_refused_by_its_first_task(dag, more, message):
    with pytest.raises(AirflowFailException, match=message):
        form_request(RunRequest, {**dag.params.validate(), "models": [], "more_models": more})


def test_a_whole_number_with_a_point_is_that_number(dag, monkeypatch):
    """To JSON 2.0 is an integer: Airflow's form accepts it."""
    params = {**dag.params.validate(), "seed": 1.0, "epochs": dag.params.get_param("epochs").resolve(2.0)}
    request = cifar10_training.form_request(RunRequest, params)
    overrides = RunRequest.model_validate_json(json.dumps(request), strict=True).overrides.given()
    assert overrides == {"epochs": 2, "seed": 1}


def test_keys_that_the_form_does_not_have_fail_the_first_task_at_once_and_are_named(dag):
    """Airflow passes on whatever keys a run that is triggered by API brings."""
    params = {**dag.params.validate(), "foo": 1, "Epochs": 3, "overrides": {"epochs": 3}}
    with pytest.raises(AirflowFailException) as refused:
        dag.get_task("prepare").python_callable(params=params)
    message = str(refused.value)
    assert "'foo', 'Epochs' (did you mean epochs?), 'overrides'; its fields: batch_size, dataset_version" in message


def test_all_values_that_only_the_first_task_can_refuse_are_named_at_once(dag):
    params = {**dag.params.validate(), "registered_model": "a\n", "tune": ["cnn"], "models": ["resnet50"]}
    with pytest.raises(AirflowFailException) as refused:
        dag.get_task("prepare").python_callable(params=params)
    assert [line.partition(":")[0] for line in str(refused.value).splitlines()] == ["registered_model", "tune"]


def test_heavy_tasks_wait_for_a_gpu_slot_and_have_more_time(dag):
    for task in dag.tasks:
        on_gpu = task.task_id in (
            "tuning.run_trials",
            "model.train",
            "model.evaluate",
        )  # those that need torch
        assert (task.pool, task.queue) == (("gpu", "gpu") if on_gpu else ("default_pool", "default")), task.task_id
    assert dag.get_task("model.train").execution_timeout > dag.get_task("report").execution_timeout
    # It may wait for a training of another run.
    assert dag.get_task("prepare").execution_timeout >= dag.get_task("model.train").execution_timeout


def test_the_form_has_every_field(dag):
    fields = {*RunRequest.model_fields} - {"overrides"}
    assert {*fields, *Overrides.model_fields, "more_models"} == set(dag.params)


def test_the_form_s_own_values_are_accepted(dag):
    assert dag.params.validate()["profile"] == "demo"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("epochs", 1.5),
        ("batch_size", 1),
        ("learning_rate", 0),
        ("learning_rate", "fast"),
        ("image_size", 15),
        ("image_size", 513),
        ("resize", "stretch"),
        ("input_size", 513),
        ("pretrained", "maybe"),
        ("seed", -1),
        ("flip", True),
        ("models", "cnn"),
        ("models", ["vgg"]),
        ("models", ["timm/a b"]),
        ("more_models", ["cnn"]),
        ("more_models", ["timm/resnet18\ntimm/resnet34"]),
        ("models", ["cnn", "cnn"]),
        ("profile", "huge"),
        ("source", ""),
        ("source", "pictures.zip"),
        ("source", "./pictures"),
        ("source", "s3:///key"),
        ("source", "https://host/pictures.zip"),
        ("registered_model", "a/b"),
        ("tune", ["vgg"]),
        ("trials", 0),
        ("search_minutes", 1.5),
        ("search_workers", -1),
        ("search_workers", 600),
    ],
)
def test_the_form_refuses_a_bad_value(dag, name, value):
    param = dag.params.get_param(name)
    with pytest.raises(ValueError, match="Failed validating"):
        param.resolve(value)


def test_it_runs_when_triggered_only_unless_a_schedule_is_set(dag):
    assert dag.schedule is None
    assert not dag.catchup
    assert dag.max_active_runs == 1


@pytest.mark.parametrize("cron", ["", "0 3 * * *"])
def test_a_new_version_of_the_line_in_the_settings_starts_a_run_and_the_calendar_does(cron):
    printed = parse_elsewhere(
        "import cifar10_training; d = cifar10_training.cifar10_training(); t = d.timetable; "
        "assets = [[asset.name, asset.uri] for asset in t.asset_condition.objects]; "
        "print(json.dumps([assets, t.timetable.expression, d.params['source'], d.max_active_runs, d.catchup]))",
        CIFAR_DATASET_LINES='{"products": {"source": "s3://b/k"}, "other": {"source": "digits"}}',
        CIFAR_SOURCE="line:products",
        CIFAR_SCHEDULE=cron,
    )
    asset = ["dataset_line_products", "cifar://lines/products"]
    assert json.loads(printed) == [[asset], cron or "0 4 * * *", "line:products", 1, False]


def test_the_settings_give_schedule_and_values():
    program = (
        "import cifar10_training; d = cifar10_training.cifar10_training(); "
        "t = d.timetable; "
        "values = [d.params[name] for name in ('source', 'models', 'profile')]; "
        "print(json.dumps([t.expression, str(t.timezone), d.catchup, *values]))"
    )
    runs = {"CIFAR_SOURCE": "s3://b/k.zip", "CIFAR_MODELS": "cnn", "CIFAR_PROFILE": "full"}
    printed = parse_elsewhere(program, CIFAR_SCHEDULE="0 3 * * *", CIFAR_SCHEDULE_TIMEZONE="Europe/Berlin", **runs)
    assert json.loads(printed) == ["0 3 * * *", "Europe/Berlin", False, "s3://b/k.zip", ["cnn"], "full"]
