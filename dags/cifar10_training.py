"""The training workflow: data → search for hyperparameters → training of each model → registry → promotion → report."""

from datetime import timedelta
from typing import Any
from urllib.parse import quote

from airflow.sdk import Param, TriggerRule, dag, get_current_context, task, task_group
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from cifar_tasks.config import AS_RECIPE, MAX_IMAGE_SIZE, MIN_IMAGE_SIZE, OVERRIDES, PROFILES, RESIZES, Override
from cifar_tasks.models import available_models, default_models, parse_models
from cifar_tasks.settings import Settings

SETTINGS = Settings()
MODELS = available_models()
GPU = {"pool": "gpu", "queue": "gpu"}
"""For tasks that need torch: the pool has one slot for each training that may run at a time, and workers of the other
queue are installed without torch."""

ABOUT = """\
Prepares a dataset version, searches for hyperparameters if the form asks for it, trains the chosen models in parallel,
evaluates what was saved, registers it in MLflow and promotes the best version.

**Start it** with ▶ Trigger: every field of the form is explained there; the default values train for minutes on a CPU.
**Look at it** through the buttons on the tab *Details* of each task: its MLflow run, and, on the last task, the report.

A retried task resumes where its earlier try ended: same MLflow run, newest checkpoint, no second model version.
Stopping a task (mark it failed) stops its training within seconds. With the source left at `auto`, a machine
without network trains on scikit-learn's digits, and says so everywhere.
"""


def form() -> dict[str, Param]:
    """The trigger form: what to train on what, and what to change in the recipe."""
    described = " ".join(f"{name}: {spec.description}" for name, spec in MODELS.items())
    fields = {
        "source": Param(
            SETTINGS.source,
            type="string",
            minLength=1,
            title="Data source",
            description="auto (CIFAR-10, or digits without a network), cifar10, digits, a path to a folder, zip or tar "
            "with train/CLASS/ and test/CLASS/, or an s3:// URL of one.",
        ),
        "models": _models_field("Models", f"What to train, side by side. {described}", _chosen_models(), minItems=1),
        "profile": Param(
            SETTINGS.profile,
            type="string",
            enum=list(PROFILES),
            title="Profile",
            description="demo: minutes on a CPU, part of the images. full: all images; for a GPU, or the CNN alone.",
        ),
        "registered_model": Param(
            SETTINGS.registered_model,
            type="string",
            pattern=r"^[A-Za-z0-9][A-Za-z0-9 _.\-]{0,99}$",
            title="Registered model",
            description="Name in the MLflow registry. Other classes than the champion's need another name.",
        ),
        "image_size": Param(
            SETTINGS.image_size,
            type="integer",
            minimum=MIN_IMAGE_SIZE,
            maximum=MAX_IMAGE_SIZE,
            title="Image size",
            description="Pixels per side that all images are resized to when they are prepared.",
        ),
        "resize": Param(
            SETTINGS.resize,
            type="string",
            enum=list(RESIZES),
            title="Resize",
            description="How an image becomes square. crop: the middle of it. squash: all of it, with another aspect "
            "ratio. pad: all of it, with a black border.",
        ),
    }
    return fields | search_fields() | {name: _override_field(rule) for name, rule in OVERRIDES.items()}


def search_fields() -> dict[str, Param]:
    """The form's part on the search for hyperparameters."""
    section = {"section": "Search for hyperparameters (Optuna)"}
    optional = {"type": ["null", "integer"], "minimum": 1, **section}
    return {
        "tune": _models_field(
            "Tune",
            "Models whose hyperparameters are searched before they are trained. The others use the best that earlier "
            "searches found for the same data, else the recipe.",
            [],
            **section,
        ),
        "trials": Param(
            None,
            maximum=10_000,
            title="Trials",
            description="Short trainings of each model's study in all; a study that exists continues. Empty: 8 in the "
            "demo, 24 in the full profile.",
            **optional,
        ),
        "search_minutes": Param(
            None,
            maximum=10_000,
            title="Minutes",
            description="No trial begins after so many minutes, even if trials are left. Empty: no limit.",
            **optional,
        ),
        "search_workers": Param(
            None,
            maximum=1_000,
            title="Workers",
            description="Tasks that share the trials of each study. Empty: as many as trainings may run at a time.",
            **optional,
        ),
    }


def _chosen_models() -> list[str]:
    return parse_models(SETTINGS.models) or default_models()


def _models_field(title: str, description: str, chosen: list[str], **schema: Any) -> Param:
    """A list of models; with `examples` the form offers a multi-select of them."""
    names = list(MODELS)
    items = {"type": "string", "enum": names}
    return Param(
        chosen,
        type="array",
        items=items,
        examples=names,
        uniqueItems=True,
        title=title,
        description=description,
        **schema,
    )


def _override_field(rule: Override) -> Param:
    """A number may be left empty. A choice may not: the form would offer `null`, so it says `recipe`."""
    about = {"title": rule.title, "section": "Overrides of the recipe"}
    if rule.choices:
        return Param(AS_RECIPE, type="string", enum=[AS_RECIPE, *rule.choices], description=rule.description, **about)
    return Param(
        None,
        type=["null", rule.type],
        minimum=rule.minimum,
        maximum=rule.maximum,
        description=f"{rule.description} Empty: as the profile's recipe says.",
        **about,
    )


def run_task_step(step: str, **arguments: Any) -> Any:
    """Run a step (`module:function` of `cifar_tasks.steps`) in a process of its own; arguments and result are JSON.

    An error that a retry cannot mend fails the task at once.
    """
    from cifar_tasks.errors import CifarError, Stopped
    from cifar_tasks.steps.process import run_step

    try:
        return run_step(f"cifar_tasks.steps.{step}", **arguments)
    except Stopped as stop:
        raise AirflowException(str(stop)) from None
    except CifarError as error:
        raise (AirflowException if error.retryable else AirflowFailException)(str(error)) from None


def as_list(values: Any) -> list[Any]:
    """What mapped tasks returned: Airflow hands on a sequence of several, the value itself of a single one."""
    return [values] if isinstance(values, dict) else list(values or ())


def show_name(name: str) -> None:
    """Name a mapped task in the UI, where it would be a number."""
    get_current_context()["name"] = name  # type: ignore[typeddict-unknown-key]


def workflow_run() -> dict[str, Any]:
    """This DAG run, as the steps know it: the same for every try of every task."""
    run = get_current_context()["dag_run"]
    page = f"{SETTINGS.airflow_url}/dags/{run.dag_id}/runs/{quote(run.run_id)}" if SETTINGS.airflow_url else None
    return {"id": f"{run.dag_id}/{run.run_id}", "name": run.run_id, "url": page}


def mark_failed(context: Any) -> None:
    """Mark the MLflow parent run of a failed DAG run as failed: no task is left to close it."""
    from cifar_tasks.steps.process import run_step

    run = context["dag_run"]
    workflow = {"id": f"{run.dag_id}/{run.run_id}", "name": run.run_id}
    run_step("cifar_tasks.steps.report:fail_workflow", workflow=workflow)


@dag(
    dag_id="cifar10_training",
    dag_display_name="Image classifier training",
    description="Prepare images, train models in parallel, evaluate, register, promote the best one.",
    doc_md=ABOUT,
    schedule=SETTINGS.schedule,
    catchup=False,
    max_active_runs=1,
    on_failure_callback=mark_failed,
    params=form(),
    default_args={
        "retries": 2,
        "retry_delay": timedelta(seconds=10),
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(minutes=10),
        "execution_timeout": timedelta(hours=1),
    },
    tags=["training", "image-classification"],
)
def cifar10_training():
    @task(doc_md="Write the immutable dataset version of the chosen source, or find it; validate it; show 32 images.")
    def prepare(params: dict[str, Any]) -> dict[str, Any]:
        request = {name: value for name, value in params.items() if name not in OVERRIDES}
        request["overrides"] = {name: params[name] for name in OVERRIDES}
        return run_task_step("prepare:prepare_data", request=request, workflow=workflow_run())

    @task(doc_md="A training plan for each chosen model: its recipe, with the overrides of the form.")
    def plan_training(data: dict[str, Any]) -> list[dict[str, Any]]:
        return run_task_step("plan:plan_training", data=data)

    @task.branch(doc_md="Lead to the search for hyperparameters if the form asks for one, else past it.")
    def branch_on_tuning(plans: list[dict[str, Any]], params: dict[str, Any]) -> str:
        # Hands the plans on under a key of their own: what a branch returns is the task that follows.
        get_current_context()["ti"].xcom_push("plans", plans)
        return "tuning.create_studies" if params["tune"] else "select_params"

    @task(doc_md="Create or find an Optuna study for each model to be tuned; the recipe is its first trial.")
    def create_studies(plans: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return run_task_step("create_studies:create_studies", plans=plans)

    @task(
        **GPU,
        execution_timeout=timedelta(hours=24),
        map_index_template="{{ name }}",
        doc_md="Train trials of the study, one after another, until its budget is spent. A trial whose worker dies is "
        "retried once by another.",
    )
    def run_trials(worker: dict[str, Any]) -> dict[str, Any]:
        show_name(worker["name"])
        return run_task_step("run_trials:run_trials", worker=worker)

    @task(
        trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS,
        doc_md="The hyperparameters of each model: the best of its study, else the best that earlier searches found "
        "for the same data, else the recipe's.",
    )
    def select_params(plans: list[dict[str, Any]], results: Any) -> list[dict[str, Any]]:
        return run_task_step("select_params:select_params", plans=plans, results=as_list(results))

    @task(
        **GPU,
        execution_timeout=timedelta(hours=24),
        map_index_template="{{ name }}",
        doc_md="Train one model; a checkpoint and MLflow metrics after each epoch; save it and read it back.",
    )
    def train(plan: dict[str, Any]) -> dict[str, Any]:
        show_name(plan["config"]["model"])
        return run_task_step("train:train_model", plan=plan)

    @task(
        **GPU,
        map_index_template="{{ name }}",
        doc_md="Load the saved model from storage, check its validation accuracy, score it on the test images.",
    )
    def evaluate(trained: dict[str, Any]) -> dict[str, Any]:
        show_name(trained["plan"]["config"]["model"])
        return run_task_step("evaluate:evaluate_model", trained=trained)

    @task(
        map_index_template="{{ name }}",
        doc_md="A version in the MLflow registry, tagged with the digests of data, configuration and code.",
    )
    def register(evaluated: dict[str, Any]) -> dict[str, Any]:
        show_name(evaluated["trained"]["plan"]["config"]["model"])
        return run_task_step("register:register_model", evaluated=evaluated)

    @task(
        **GPU,
        doc_md="Compare the best new version with the champion on the same test images; move the alias if it wins.",
    )
    def promote(candidates: Any) -> dict[str, Any]:
        return run_task_step("promote:promote", candidates=as_list(candidates))

    @task(doc_md="One page with table, decision and figures, kept with the MLflow parent run; links to everything.")
    def report(promotion: dict[str, Any]) -> dict[str, Any]:
        return run_task_step("report:report", promotion=promotion)

    @task_group
    def tuning(plans: Any) -> Any:
        return run_trials.expand(worker=create_studies(plans))

    @task_group
    def model(plan: dict[str, Any]) -> dict[str, Any]:
        return register(evaluate(train(plan)))

    plans = branch_on_tuning(plan_training(prepare()))["plans"]
    selected = select_params(plans, tuning(plans))
    report(promote(model.expand(plan=selected)))


cifar10_training()
