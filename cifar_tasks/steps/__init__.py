"""One function a task. Each takes and returns JSON values (URIs, digests, run ids, small numbers) and finds what an
earlier try of the same task left, so that a retry goes on instead of starting over.

Here the pure code meets storage, tracking and registry; the DAG and `cifar run` call these and nothing below them.
"""

from cifar_tasks.steps.evaluate import evaluate_model
from cifar_tasks.steps.prepare import plan_training, prepare_data
from cifar_tasks.steps.promote import promote, register_model
from cifar_tasks.steps.report import fail_workflow, report
from cifar_tasks.steps.train import train_model

__all__ = [
    "evaluate_model",
    "fail_workflow",
    "plan_training",
    "prepare_data",
    "promote",
    "register_model",
    "report",
    "train_model",
]
