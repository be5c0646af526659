"""What must hold after the faults."""

from collections.abc import Iterator
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import ViewType

from cifar_tasks.deployment.dag_ids import TRAINING_DAG
from cifar_tasks.settings import Settings
from cifar_tasks.storage.s3 import sha256_hex
from cifar_tasks.tracking import runs
from cifar_tasks.tracking.runs import MODEL, WORKFLOW
from tests.chaos.runs import MODELS, Disturbed


def problems(deployment: Disturbed, finished: list[tuple[str, str]]) -> Iterator[str]:
    """What does not hold; `finished` are names and states of DAG runs, of which the first was not disturbed."""
    client = runs.mlflow_client()
    experiment = client.get_experiment_by_name(Settings().experiment).experiment_id
    expected: dict[str, Any] = {}
    for name, state in finished:
        workflow = f"{TRAINING_DAG}/{name}"
        for model in ("all", *MODELS):
            found = runs.find_runs(client, experiment, {WORKFLOW: workflow, MODEL: model})
            if len(found) > 1 or (state == "success" and not found):
                yield f"{name}: {len(found)} MLflow runs of {model}"
            if state != "success" or not found or model == "all":
                continue
            run_id = found[0].info.run_id
            if (got := metrics_of(client, run_id)) != expected.setdefault(model, got):
                yield f"{name}: the metrics of {model} are not those of the undisturbed run"
            versions = client.search_model_versions(f"run_id = '{run_id}'")
            if len(versions) != 1:
                yield f"{name}: {len(versions)} versions of {model}"
    yield from unneeded_objects(deployment, finished)
    everything = client.search_runs([experiment], run_view_type=ViewType.ALL, max_results=5000)
    for entry in everything:
        if entry.info.status == "RUNNING":
            yield f"MLflow run {entry.info.run_name} ({entry.info.run_id}) is RUNNING"
    ids = {entry.info.run_id for entry in everything}
    models = {model.model_id for model in client.search_logged_models([experiment])}
    for key in deployment.keys("mlflow", f"artifacts/{experiment}/"):
        owner = key.split("/")[3] if key.split("/")[2] == "models" else key.split("/")[2]
        if owner not in ids | models:
            yield f"mlflow/{key} belongs to no run and no model"
    for step in deployment.steps():
        yield f"a step is left: {step}"


def unneeded_objects(deployment: Disturbed, finished: list[tuple[str, str]]) -> Iterator[str]:
    """Checkpoints and leases of runs that succeeded, and objects of runs that nobody knows."""
    runs_by_folder = {sha256_hex(f"{TRAINING_DAG}/{name}".encode())[:16]: (name, state) for name, state in finished}
    for key in deployment.keys("cifar", "runs/"):
        name, state = runs_by_folder.get(key.split("/")[1], ("", ""))
        if not name:
            yield f"cifar/{key} belongs to no run"
        elif state == "success" and ("/checkpoints/" in key or key.endswith("/lease.json")):
            yield f"{name}: cifar/{key} is left"


def metrics_of(client: MlflowClient, run_id: str) -> dict[str, list[tuple[int, float]]]:
    """All but what depends on the time."""
    timed = ("images_per_second", "latency")
    names = [name for name in client.get_run(run_id).data.metrics if not any(part in name for part in timed)]
    return {name: sorted({(m.step, m.value) for m in client.get_metric_history(run_id, name)}) for name in names}
