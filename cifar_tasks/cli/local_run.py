"""The whole workflow in one process: the same steps as the DAG, in the order of the DAG, without Airflow."""

from collections.abc import Mapping
from typing import Any

from cifar_tasks.steps.evaluate import evaluate_model
from cifar_tasks.steps.prepare import plan_training, prepare_data
from cifar_tasks.steps.promote import promote, register_model
from cifar_tasks.steps.report import report
from cifar_tasks.steps.search import train_trials
from cifar_tasks.steps.train import train_model
from cifar_tasks.steps.tune import choose, open_studies, remember
from cifar_tasks.steps.workflow import WorkflowRun


def run_workflow(
    name: str,
    source: str,
    models: str,
    profile: str,
    registered_model: str,
    overrides: Mapping[str, Any],
    tune: str = "off",
    trials: int | None = None,
) -> dict[str, Any]:
    """Prepare, tune, train, evaluate, register, promote, report; returns what the report step returns.

    The same `name` again goes on where the earlier run of that name ended.
    """
    workflow = WorkflowRun(id=f"cli/{name}", name=name).as_dict()
    data = prepare_data(source, overrides.get("seed") or 0, workflow)
    candidates = []
    lanes = plan_training(data, models, profile, dict(overrides))
    if tune == "off":
        lanes = remember(lanes, data, registered_model)
    else:
        # One process: one worker a study.
        form = {"tune": tune, "profile": profile, "trials": trials, "search_minutes": None, "search_workers": 1}
        worked = [train_trials(work, data) for work in open_studies(lanes, data, form)]
        lanes = choose(lanes, worked, data, registered_model)
    for lane in lanes:
        trained = train_model(lane["config"], data, workflow, lane["origin"])
        evaluated = evaluate_model(trained, data)
        candidates.append(register_model(evaluated, data, registered_model))
    decision = promote(candidates, data, registered_model)
    return report(candidates, decision, data, workflow)
