"""The whole workflow in one process: the same steps as the DAG, in the order of the DAG, without Airflow."""

from cifar_tasks.steps.create_studies import create_studies
from cifar_tasks.steps.evaluate import evaluate_model
from cifar_tasks.steps.payloads import RunReport, RunRequest, WorkflowRun
from cifar_tasks.steps.plan import plan_training
from cifar_tasks.steps.prepare import prepare_data
from cifar_tasks.steps.promote import promote
from cifar_tasks.steps.register import register_model
from cifar_tasks.steps.report import report
from cifar_tasks.steps.run_trials import run_trials
from cifar_tasks.steps.select_params import select_params
from cifar_tasks.steps.train import train_model


def run_workflow(name: str, request: RunRequest) -> RunReport:
    """The same `name` again resumes where the earlier run of that name ended."""
    workflow = WorkflowRun(id=f"cli/{name}", name=name)
    plans = plan_training(prepare_data(request, workflow))
    results = [run_trials(worker) for worker in create_studies(plans)] if request.tune else []
    plans = select_params(plans, results)
    return report(promote([register_model(evaluate_model(train_model(plan))) for plan in plans]))
