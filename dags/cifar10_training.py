"""The training workflow: prepare data, tune, train each model, evaluate, register, report, promote."""

from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import (
    AssetOrTimeSchedule,
    CronTriggerTimetable,
    Param,
    TriggerRule,
    dag,
    get_current_context,
    task,
    task_group,
)

from cifar_tasks.data.source_names import line_of
from cifar_tasks.deployment.dag_ids import PROMOTION_DAG, TRAINING_DAG
from cifar_tasks.models import available_models, default_models, parse_models
from cifar_tasks.steps.payloads import RunRequest
from cifar_tasks.steps.promotion_payloads import PromotionRequest
from step_tasks import (
    GPU,
    RETRIES,
    SETTINGS,
    as_list,
    end_workflow,
    form_params,
    form_request,
    line_asset,
    run_task_step,
    show_in_note,
    show_name,
    workflow_run,
)

MODELS = available_models()
SAFETY_NET = "0 4 * * *"
"""When it runs on a dataset line without a schedule of the settings."""

ABOUT = """\
Prepares a dataset version, tunes hyperparameters if the form selects models to tune, trains the selected models in
parallel, evaluates the saved models, registers them in MLflow, and starts the DAG *Model promotion* for the best one.

**Start:** click ▶ Trigger. The form explains every field. With the default values, training takes minutes on a CPU.
The settings give a schedule, or a dataset line whose new versions start a run (`CIFAR_SCHEDULE`, `CIFAR_SOURCE`).

**Nothing to train:** all tasks are skipped if the same was trained before, and the note has the reason.

**Results:** the tab *Details* of a task has buttons to its MLflow run, model version, report and comparison.

**Retries:** a retried task resumes: same MLflow run, newest checkpoint, no second model version.

**Stop:** mark a task as failed to stop its training within seconds.

**Placeholder data:** with the source `auto` and no network, the run trains on the digits of scikit-learn, and every
result shows a warning.
"""


def schedule() -> Any:
    """By the calendar of the settings, and on each new version of the dataset line that they name as source.

    Airflow forgets events that come while the DAG is paused: with a line it runs daily at least, and is skipped.
    """
    line = line_of(SETTINGS.source)
    cron = SETTINGS.schedule or (SAFETY_NET if line else None)
    timetable = cron and CronTriggerTimetable(cron, timezone=SETTINGS.schedule_timezone)
    return AssetOrTimeSchedule(timetable=timetable, assets=[line_asset(line)]) if line else timetable


def form() -> dict[str, Param]:
    """The trigger form, with the defaults of the settings."""
    described = " ".join(f"{name}: {spec.description}" for name, spec in MODELS.items())
    fields = RunRequest.form_fields()
    fields["models"] |= {"description": f"{fields['models']['description']} {described}"}
    models = parse_models(SETTINGS.models) or default_models()
    values = {
        "source": SETTINGS.source,
        "models": [name for name in models if name in MODELS],
        "more_models": [name for name in models if name not in MODELS],
        "profile": SETTINGS.profile,
        "registered_model": SETTINGS.registered_model,
        "image_size": SETTINGS.image_size,
        "resize": SETTINGS.resize,
        "start_from": SETTINGS.start_from,
        "promotion": SETTINGS.promotion,
    }
    return form_params(fields, values)


def as_form(request: dict[str, Any]) -> dict[str, Any]:
    """The request of the promotion as its form has it."""
    return PromotionRequest.model_validate(request).as_form()


def end_mlflow_runs(context: Any) -> None:
    """When a DAG run has ended, none of its MLflow runs stays running."""
    from cifar_tasks.steps.process import run_step

    run = context["dag_run"]
    run_step("cifar_tasks.steps.report:end_workflow", **end_workflow(run, run.state))


@dag(
    dag_id=TRAINING_DAG,
    dag_display_name="Image classifier training",
    description="Prepare images, train models in parallel, evaluate, register, start the promotion of the best one.",
    doc_md=ABOUT,
    schedule=schedule(),
    catchup=False,
    max_active_runs=1,
    on_failure_callback=end_mlflow_runs,
    on_success_callback=end_mlflow_runs,
    params=form(),
    user_defined_filters={"as_form": as_form},
    default_args=RETRIES,
    tags=["training", "image-classification"],
)
def cifar10_training():
    @task(
        execution_timeout=timedelta(hours=24),  # it may wait for a run that trains the same
        doc_md="Create the dataset version of the source, or find it; validate the images; log 32 of them.",
    )
    def prepare(params: dict[str, Any]) -> dict[str, Any]:
        return run_task_step("prepare:prepare_data", request=form_request(RunRequest, params), workflow=workflow_run())

    @task(doc_md="Create a training plan for each selected model: its recipe with the overrides of the form.")
    def plan_training(data: dict[str, Any]) -> list[dict[str, Any]]:
        return run_task_step("plan:plan_training", data=data)

    @task.branch(doc_md="Continue with the task group tuning if the form selects models to tune, else skip it.")
    def branch_on_tuning(plans: list[dict[str, Any]], params: dict[str, Any]) -> str:
        # The plans have their own XCom key, because a branch returns the id of the next task.
        get_current_context()["ti"].xcom_push("plans", plans)
        return "tuning.create_studies" if params["tune"] else "select_params"

    @task(doc_md="Create or find an Optuna study for each model to be tuned; the recipe is its first trial.")
    def create_studies(plans: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return run_task_step("create_studies:create_studies", plans=plans)

    @task(
        **GPU,
        execution_timeout=timedelta(hours=24),
        map_index_template="{{ name }}",
        doc_md="Train trials of the study, one after another, until its budget is spent. A trial whose worker is lost "
        "is retried once by another worker.",
    )
    def run_trials(worker: dict[str, Any]) -> dict[str, Any]:
        show_name(worker["name"])
        return run_task_step("run_trials:run_trials", worker=worker)

    @task(
        trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS,
        doc_md="Select the hyperparameters of each model: the best of its study; if it was not tuned the best of "
        "earlier studies for the same data; else those of the recipe.",
    )
    def select_params(plans: list[dict[str, Any]], results: Any) -> list[dict[str, Any]]:
        return run_task_step("select_params:select_params", plans=plans, results=as_list(results))

    @task(
        **GPU,
        execution_timeout=timedelta(hours=24),
        map_index_template="{{ name }}",
        doc_md="Train one model, with a checkpoint and MLflow metrics after each epoch; save it and verify it.",
    )
    def train(plan: dict[str, Any]) -> dict[str, Any]:
        show_name(plan["config"]["model"])
        return run_task_step("train:train_model", trainings=len(plan["data"]["request"]["models"]), plan=plan)

    @task(
        **GPU,
        map_index_template="{{ name }}",
        doc_md="Load the saved model, check its validation accuracy, evaluate it on the test images.",
    )
    def evaluate(trained: dict[str, Any]) -> dict[str, Any]:
        show_name(trained["plan"]["config"]["model"])
        # All cores: it uses those that no training needs, and it is short.
        return run_task_step("evaluate:evaluate_model", trainings=1, trained=trained)

    @task(
        map_index_template="{{ name }}",
        doc_md="Register a model version in MLflow, with the digests of data, configuration and code as tags.",
    )
    def register(evaluated: dict[str, Any]) -> dict[str, Any]:
        show_name(evaluated["trained"]["plan"]["config"]["model"])
        return run_task_step("register:register_model", evaluated=evaluated)

    @task(
        trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS,  # also after a model that was skipped
        doc_md="Write one page with table, figures and links to the MLflow parent run; choose the candidate of the run "
        "by validation accuracy. Name each model that was skipped or not tuned, and why.",
    )
    def report(registered: Any, plans: list[dict[str, Any]]) -> dict[str, Any]:
        reported: dict[str, Any] = run_task_step("report:report", registered=as_list(registered), plans=plans)
        # A worker that trains may have no log-in to Airflow, as in compose, and then its task has written no note.
        if reported["notes"]:
            show_in_note(reported["notes"])
        return reported

    promote = TriggerDagRunOperator(
        task_id="promote",
        trigger_dag_id=PROMOTION_DAG,
        trigger_run_id="{{ run_id }}",
        conf="{{ ti.xcom_pull('report')['promotion'] | as_form | tojson }}",
        logical_date=None,
        reset_dag_run=True,  # a retry starts the same run again, which finds its entry in the promotion log
        note="Started by cifar10_training, for the candidate of the run of the same name.",
        doc_md="Start the DAG cifar10_promotion for the candidate, with the id of this run; do not wait for it.",
    )

    @task_group
    def tuning(plans: Any) -> Any:
        return run_trials.expand(worker=create_studies(plans))

    @task_group
    def model(plan: dict[str, Any]) -> dict[str, Any]:
        return register(evaluate(train(plan)))

    plans = branch_on_tuning(plan_training(prepare()))["plans"]
    selected = select_params(plans, tuning(plans))
    report(model.expand(plan=selected), selected) >> promote


cifar10_training()
