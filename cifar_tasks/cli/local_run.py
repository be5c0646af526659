"""The whole workflow in one process: the same steps as the DAG, in the order of the DAG, without Airflow."""

import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

from cifar_tasks.errors import ModelSkipped, Stopped
from cifar_tasks.settings import Settings
from cifar_tasks.steps.create_studies import create_studies
from cifar_tasks.steps.evaluate import evaluate_model
from cifar_tasks.steps.payloads import RunRequest, WorkflowRun
from cifar_tasks.steps.plan import plan_training
from cifar_tasks.steps.prepare import prepare_data
from cifar_tasks.steps.promote import propose, record
from cifar_tasks.steps.promotion_payloads import Answer, Promotion, Proposal
from cifar_tasks.steps.register import register_model
from cifar_tasks.steps.report import end_workflow, report
from cifar_tasks.steps.report_payloads import RunReport
from cifar_tasks.steps.run_trials import run_trials
from cifar_tasks.steps.select_params import select_params
from cifar_tasks.steps.train import train_model
from cifar_tasks.storage.lease import acquire_lease
from cifar_tasks.storage.s3 import S3Store, s3_client
from cifar_tasks.tracking import runs
from cifar_tasks.tracking.endings import CLI, workflow_lease

_log = logging.getLogger(__name__)

Given = TypeVar("Given")
Result = TypeVar("Result")
Ask = Callable[[Proposal], Answer | None]
"""Asks the person at the terminal; none if there is none."""


def run_workflow(name: str, request: RunRequest, ask: Ask | None = None) -> tuple[RunReport, Promotion]:
    """The same `name` again resumes where the earlier run of that name ended, or waits while that run goes on.

    However it ends, no MLflow run of it is left running; after a SIGKILL the next run sees to that.
    """
    workflow = WorkflowRun(id=f"{CLI}{name}", name=name)
    store = S3Store(Settings().bucket, s3_client(attempts=4, read_timeout=5))
    with _exit_on_signal(), acquire_lease(store, workflow_lease(workflow.id)), _ending(workflow):
        return run_steps(workflow, request, ask)


def run_steps(workflow: WorkflowRun, request: RunRequest, ask: Ask | None = None) -> tuple[RunReport, Promotion]:
    """The flow itself."""
    plans = plan_training(prepare_data(request, workflow))
    workers = create_studies(plans) if request.tune else []
    plans = select_params(plans, [result for worker in workers for result in unless_skipped(run_trials, worker)])
    models = (trained for plan in plans for trained in unless_skipped(train_model, plan))  # one after the other
    reported = report([register_model(evaluate_model(trained)) for trained in models], plans)
    proposal = propose(reported.promotion, workflow)
    return reported, record(proposal, ask(proposal) if ask and proposal.needs_approval else None)


def unless_skipped(step: Callable[[Given], Result], given: Given) -> list[Result]:
    """The step's result; nothing if the run does without this model."""
    try:
        return [step(given)]
    except ModelSkipped as skipped:
        _log.warning("%s", skipped)
        return []


@contextmanager
def _ending(workflow: WorkflowRun) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        stopped = isinstance(error, Stopped | KeyboardInterrupt)
        with runs.tracking_warnings():  # what failed first is what the user should read
            end_workflow(workflow, "KILLED" if stopped else "FAILED")
        raise


@contextmanager
def _exit_on_signal() -> Iterator[None]:
    """On SIGTERM, and when the terminal is closed, the steps end in order; then this process exits."""

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)  # a second one must not interrupt the clean-up
        received.append(number)
        raise Stopped

    received: list[int] = []
    signals = (signal.SIGTERM, signal.SIGHUP) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, stop) for number in signals}
    try:
        yield
    except Stopped:
        sys.exit(128 + received[0])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
