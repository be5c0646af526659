"""The training workflow: data → training of each model → evaluation → registry → promotion → report."""

from datetime import timedelta
from typing import Any
from urllib.parse import quote

from airflow.sdk import Param, dag, get_current_context, task, task_group
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from cifar_tasks.config import AS_RECIPE, OVERRIDES, Override
from cifar_tasks.settings import Settings

SETTINGS = Settings()
GPU = {"pool": "gpu", "queue": "gpu"}
"""Where trainings wait for their turn: the pool has a slot for each that may run at a time."""

FLOW = """\
![prepare, plan, then for each model train, evaluate and register, then promote and report](/cifar/flow.svg)

**Start it** with ▶ Trigger: every field of the form says what it does; with none changed it trains both networks for
minutes on a CPU. **Look at it** through the buttons on the tab *Details* of each task: its MLflow run, and, on the
last task, the report.

A retried task goes on where its earlier try ended: same MLflow run, newest checkpoint, no second model version.
Stopping a task (mark it failed) stops its training within seconds. With the source left at `auto`, a machine
without network trains on scikit-learn's digits, and says so everywhere.
"""


def form() -> dict[str, Param]:
    """The trigger form: what to train on what, and what to change in the recipe."""
    fields = {
        "source": Param(
            SETTINGS.source,
            type="string",
            minLength=1,
            title="Data source",
            description="auto (CIFAR-10, or digits without a network), cifar10, digits, a path to a folder, zip or tar "
            "with train/CLASS/ and test/CLASS/, or an s3:// URL of one.",
        ),
        "models": Param(
            SETTINGS.models,
            type="string",
            enum=["both", "cnn", "resnet50"],
            title="Models",
            description="cnn: the VGG-style CNN. resnet50: ResNet50 with ImageNet weights.",
        ),
        "profile": Param(
            SETTINGS.profile,
            type="string",
            enum=["demo", "full"],
            title="Profile",
            description="demo: minutes on a CPU, part of the images. full: all images; for a GPU, or the CNN alone.",
        ),
        "registered_model": Param(
            SETTINGS.registered_model,
            type="string",
            pattern=r"^[A-Za-z0-9][A-Za-z0-9 _.\-]{0,99}$",
            title="Registered model",
            description="Name in the MLflow registry. Other classes than the champion's want another name.",
        ),
    }
    return fields | {name: _override_field(rule) for name, rule in OVERRIDES.items()}


def _override_field(rule: Override) -> Param:
    """A number may be left empty. A choice may not: the form would offer `null`, so it says `recipe`."""
    about = {"title": rule.title, "section": "Overrides of the recipe"}
    if rule.choices:
        return Param(AS_RECIPE, type=rule.type, enum=[AS_RECIPE, *rule.choices], description=rule.description, **about)
    return Param(
        None,
        type=["null", rule.type],
        minimum=rule.minimum,
        maximum=rule.maximum,
        description=f"{rule.description} Empty: as the profile's recipe says.",
        **about,
    )


def do(step: str, **arguments: Any) -> Any:
    """Run a step (`file:function` of `cifar_tasks.steps`) in a process of its own.

    What a retry cannot mend fails the task at once.
    """
    from cifar_tasks.errors import CifarError, Stopped
    from cifar_tasks.process import run_step

    try:
        return run_step(f"cifar_tasks.steps.{step}", **arguments)
    except Stopped as stop:
        raise AirflowException(str(stop)) from None
    except CifarError as error:
        raise (AirflowException if error.retryable else AirflowFailException)(str(error)) from None


def show_model(name: str) -> None:
    """Name a mapped task after its model in the UI, where it would be a number."""
    get_current_context()["model"] = name  # type: ignore[typeddict-unknown-key]


def every(lanes: Any) -> list[dict[str, Any]]:
    """What all lanes returned: of several Airflow hands on a sequence, of a single one the value itself."""
    return [lanes] if isinstance(lanes, dict) else list(lanes)


def workflow() -> dict[str, Any]:
    """This DAG run, as the steps know it: the same for every try of every task."""
    run = get_current_context()["dag_run"]
    page = f"{SETTINGS.airflow_url}/dags/{run.dag_id}/runs/{quote(run.run_id)}" if SETTINGS.airflow_url else None
    return {"id": f"{run.dag_id}/{run.run_id}", "name": run.run_id, "url": page}


def mark_failed(context: Any) -> None:
    """A run that failed says so in MLflow too, where its parent run would go on as running."""
    from cifar_tasks.process import run_step

    run = context["dag_run"]
    run_step(
        "cifar_tasks.steps.report:fail_workflow", workflow={"id": f"{run.dag_id}/{run.run_id}", "name": run.run_id}
    )


@dag(
    dag_id="cifar10_training",
    dag_display_name="Image classifier training",
    description="Prepare images, train CNN and ResNet50 in parallel, evaluate, register, promote the better one.",
    doc_md=FLOW,
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
        return do("prepare:prepare_data", source=params["source"], seed=params["seed"] or 0, workflow=workflow())

    @task(doc_md="The recipe of each chosen model, with the overrides of the form.")
    def plan(data: dict[str, Any], params: dict[str, Any]) -> list[dict[str, Any]]:
        overrides = {name: params[name] for name in OVERRIDES}
        return do(
            "prepare:plan_training", data=data, models=params["models"], profile=params["profile"], overrides=overrides
        )

    @task(
        **GPU,
        execution_timeout=timedelta(hours=24),
        map_index_template="{{ model }}",
        doc_md="Train one model; a checkpoint and MLflow metrics each epoch; save it and read it back.",
    )
    def train(config: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        show_model(config["model"])
        return do("train:train_model", config=config, data=data, workflow=workflow())

    @task(
        **GPU,
        map_index_template="{{ model }}",
        doc_md="Load the saved model from storage, check its validation accuracy, score it on the test images.",
    )
    def evaluate(trained: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        show_model(trained["model"])
        return do("evaluate:evaluate_model", trained=trained, data=data)

    @task(
        map_index_template="{{ model }}",
        doc_md="A version in the MLflow registry, tagged with the digests of data, configuration and code.",
    )
    def register(evaluated: dict[str, Any], data: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
        show_model(evaluated["model"])
        return do("promote:register_model", evaluated=evaluated, data=data, name=params["registered_model"])

    @task(doc_md="Compare the best new version with the champion on the same test images; move the alias if it wins.")
    def promote(candidates: list[dict[str, Any]], data: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
        return do("promote:promote", candidates=every(candidates), data=data, name=params["registered_model"])

    @task(doc_md="One page with table, decision and figures, kept with the MLflow parent run; links to everything.")
    def report(candidates: list[dict[str, Any]], decision: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        return do("report:report", candidates=every(candidates), decision=decision, data=data, workflow=workflow())

    @task_group
    def model(config: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        return register(evaluate(train(config, data), data), data)

    data = prepare()
    versions = model.partial(data=data).expand(config=plan(data))
    report(versions, promote(versions, data), data)


cifar10_training()
