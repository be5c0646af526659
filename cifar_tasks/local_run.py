"""The whole workflow in one process: the same steps as the DAG, in the order of the DAG, without Airflow."""

from collections.abc import Mapping
from typing import Any

from cifar_tasks import steps
from cifar_tasks.workflow import WorkflowRun


def run_workflow(
    name: str, source: str, models: str, profile: str, registered_model: str, overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """Prepare, train, evaluate, register, promote, report; returns what the report step returns.

    The same `name` again goes on where the earlier run of that name ended.
    """
    workflow = WorkflowRun(id=f"cli/{name}", name=name).as_dict()
    data = steps.prepare_data(source, overrides.get("seed") or 0, workflow)
    candidates = []
    for config in steps.plan_training(data, models, profile, dict(overrides)):
        trained = steps.train_model(config, data, workflow)
        evaluated = steps.evaluate_model(trained, data)
        candidates.append(steps.register_model(evaluated, data, registered_model))
    decision = steps.promote(candidates, data, registered_model)
    return steps.report(candidates, decision, data, workflow)
