"""The training workflow: data → search for parameters → training of each model → registry → promotion → report."""

from datetime import timedelta
from typing import Any
from urllib.parse import quote

from airflow.sdk import Param, TaskGroup, TriggerRule, dag, get_current_context, task, task_group
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from cifar_tasks.config import AS_RECIPE, OVERRIDES, Override
from cifar_tasks.settings import Settings

SETTINGS = Settings()
GPU = {"pool": "gpu", "queue": "gpu"}
"""Where trainings wait for their turn: the pool has a slot for each that may run at a time. What needs torch goes here;
workers of the other queue do without it."""

FLOW = """\
![prepare, plan, search or remember; for each model train, evaluate, register; promote, report](/cifar/flow.svg)

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
    return fields | search_fields() | {name: _override_field(rule) for name, rule in OVERRIDES.items()}


def search_fields() -> dict[str, Param]:
    """The form's part on the search for parameters."""
    section = {"section": "Search for parameters (Optuna)"}
    optional = {"type": ["null", "integer"], "minimum": 1, **section}
    return {
        "tune": Param(
            "off",
            type="string",
            enum=["off", "both", "cnn", "resnet50"],
            title="Tune",
            description="Which models to search parameters for, before they are trained. off: go on with the best that "
            "earlier searches found for the same data, else with the recipe.",
            **section,
        ),
        "trials": Param(
            None,
            maximum=10_000,
            title="Trials",
            description="Short trainings of each model's study in all; a study that exists goes on. Empty: 8 in the "
            "demo, 24 in the full profile.",
            **optional,
        ),
        "search_minutes": Param(
            None,
            maximum=10_000,
            title="Minutes",
            description="No trial begins after so many minutes, even if trials are left. Empty: no such limit.",
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
    from cifar_tasks.steps.process import run_step

    try:
        return run_step(f"cifar_tasks.steps.{step}", **arguments)
    except Stopped as stop:
        raise AirflowException(str(stop)) from None
    except CifarError as error:
        raise (AirflowException if error.retryable else AirflowFailException)(str(error)) from None


def show_model(name: str) -> None:
    """Name a mapped task after its model, or worker, in the UI, where it would be a number."""
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
    from cifar_tasks.steps.process import run_step

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

    @task.branch(doc_md="On to the search if the form asks for one, else to what is known already.")
    def whether_to_tune(params: dict[str, Any]) -> str:
        return "remember" if params["tune"] == "off" else "search.open_studies"

    @task(doc_md="The best parameters that earlier searches found for the same data, else those of the recipe.")
    def remember(lanes: list[dict[str, Any]], data: dict[str, Any], params: dict[str, Any]) -> list[dict[str, Any]]:
        return do("tune:remember", lanes=lanes, data=data, name=params["registered_model"])

    @task(doc_md="Make or find an Optuna study for each model to be tuned; the recipe is its first trial.")
    def open_studies(lanes: list[dict[str, Any]], data: dict[str, Any], params: dict[str, Any]) -> list[dict[str, Any]]:
        search = {name: params[name] for name in ("profile", *search_fields())}
        return do("tune:open_studies", lanes=lanes, data=data, search=search)

    @task(
        **GPU,
        execution_timeout=timedelta(hours=24),
        map_index_template="{{ model }}",
        doc_md="Train trials of the study, one after another, until its budget is spent. A trial whose worker dies is "
        "tried once more by another.",
    )
    def worker(work: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        show_model(work["worker"])
        return do("search:train_trials", work=work, data=data)

    @task(doc_md="The best parameters of each study; its table and charts go to the study's MLflow run.")
    def choose(
        lanes: list[dict[str, Any]], worked: list[dict[str, Any]], data: dict[str, Any], params: dict[str, Any]
    ) -> list[dict[str, Any]]:
        return do("tune:choose", lanes=lanes, worked=every(worked), data=data, name=params["registered_model"])

    @task(
        trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS,
        doc_md="What each model is trained with, from whichever side it came.",
    )
    def settle(found: list[dict[str, Any]] | None, known: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
        return found or known or []

    @task(
        **GPU,
        execution_timeout=timedelta(hours=24),
        map_index_template="{{ model }}",
        doc_md="Train one model; a checkpoint and MLflow metrics each epoch; save it and read it back.",
    )
    def train(lane: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        show_model(lane["config"]["model"])
        return do("train:train_model", config=lane["config"], origin=lane["origin"], data=data, workflow=workflow())

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

    @task(
        **GPU,
        doc_md="Compare the best new version with the champion on the same test images; move the alias if it wins.",
    )
    def promote(candidates: list[dict[str, Any]], data: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
        return do("promote:promote", candidates=every(candidates), data=data, name=params["registered_model"])

    @task(doc_md="One page with table, decision and figures, kept with the MLflow parent run; links to everything.")
    def report(candidates: list[dict[str, Any]], decision: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        return do("report:report", candidates=every(candidates), decision=decision, data=data, workflow=workflow())

    @task_group
    def model(lane: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        return register(evaluate(train(lane, data), data), data)

    data = prepare()
    lanes = plan(data)
    known = remember(lanes, data)
    with TaskGroup("search"):
        opened = open_studies(lanes, data)
        found = choose(lanes, worker.partial(data=data).expand(work=opened), data)
    lanes >> whether_to_tune() >> [known, opened]
    versions = model.partial(data=data).expand(lane=settle(found, known))
    report(versions, promote(versions, data), data)


cifar10_training()
