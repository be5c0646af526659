"""The whole workflow in one process: the same steps as the DAG, in the order of the DAG, without Airflow."""

from collections.abc import Mapping
from typing import Any

from cifar_tasks.steps.evaluate import evaluate_model
from cifar_tasks.steps.prepare import plan_training, prepare_data
from cifar_tasks.steps.promote import promote, register_model
from cifar_tasks.steps.report import report
from cifar_tasks.steps.train import train_model
from cifar_tasks.workflow import WorkflowRun


def run_workflow(
    name: str, source: str, models: str, profile: str, registered_model: str, overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """Prepare, train, evaluate, register, promote, report; returns what the report step returns.

    The same `name` again goes on where the earlier run of that name ended.
    """
    workflow = WorkflowRun(id=f"cli/{name}", name=name).as_dict()
    data = prepare_data(source, overrides.get("seed") or 0, workflow)
    candidates = []
    for config in plan_training(data, models, profile, dict(overrides)):
        trained = train_model(config, data, workflow)
        evaluated = evaluate_model(trained, data)
        candidates.append(register_model(evaluated, data, registered_model))
    decision = promote(candidates, data, registered_model)
    return report(candidates, decision, data, workflow)
