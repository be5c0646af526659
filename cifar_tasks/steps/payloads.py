"""What each step takes and returns: frozen values that Airflow carries as JSON (XCom).

A value holds the one that it continues, so that a task needs nothing but what the task before it returned.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict

from cifar_tasks.config import Profile, Resize, TrainConfig
from cifar_tasks.tracking.saved_model import SavedModel


class Payload(BaseModel):
    """Immutable; a field that is missing or unknown is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class WorkflowRun(Payload):
    """Names the run wherever its results lie; a retry of a step says the same and so finds what is there."""

    id: str
    """Unique, stable over retries: `<dag id>/<run id>`, or `cli/<name>`."""
    name: str
    """As a person reads it."""
    url: str | None = None
    """Its page in Airflow."""


class RunRequest(Payload):
    """The trigger form, or the command line."""

    source: str
    models: list[str]
    """Names of models to train."""
    profile: Profile
    registered_model: str
    image_size: int = 32
    """Pixels per side that all images are resized to."""
    resize: Resize = "crop"
    """How images that are not square become so."""
    tune: list[str] = []
    """Names of models whose hyperparameters are searched before they are trained."""
    trials: int | None = None
    """Of each study; none for the profile's number."""
    search_minutes: int | None = None
    """No trial begins after so many minutes; none for no limit."""
    search_workers: int | None = None
    """Tasks that share the trials of each study; none for as many as may train at a time."""
    overrides: dict[str, Any] = {}
    """Names and values of `config.OVERRIDES`; those that change nothing may be among them."""


class PreparedData(Payload):
    """A dataset version, and the MLflow run that all runs of this workflow run are children of."""

    workflow: WorkflowRun
    request: RunRequest
    dataset_uri: str
    parent_run_id: str
    experiment_id: str
    mlflow_url: str
    """Airflow shows it as a button of the task; so in every payload of this name."""
    banner: str | None
    """Shown with every result if the images only take CIFAR-10's place."""


class ParamsSource(Payload):
    """Where hyperparameters come from that are not the recipe's."""

    text: str
    """As a person reads it."""
    params: dict[str, Any]
    study: str | None = None
    trial: int | None = None
    study_url: str | None = None


class TrainPlan(Payload):
    """One model to train: its configuration and where its hyperparameters come from."""

    data: PreparedData
    config: TrainConfig
    fixed: list[str]
    """Names of hyperparameters that the user has set: no search changes them."""
    params_source: ParamsSource | None = None
    """None for the recipe."""


class TrialBudget(Payload):
    """What a study may spend."""

    trials: int
    """Ended trials in all; workers that train at that moment may add one each."""
    deadline: float | None = None
    """Unix time after which no trial begins."""


class TrialWorker(Payload):
    """One of the workers that share a study."""

    plan: TrainPlan
    trial_config: TrainConfig
    """The recipe of a trial, before its hyperparameters."""
    study: str
    study_run_id: str
    """The study's MLflow run."""
    budget: TrialBudget
    name: str
    """As Airflow shows it."""
    seed: int
    """Of the sampler; another one for each worker."""


class WorkerResult(Payload):
    model: str
    study: str
    study_run_id: str
    name: str
    trials: int
    """That this worker trained."""
    mlflow_url: str


class TrainedModel(Payload):
    """A model that is saved, and the numbers of its best epoch."""

    plan: TrainPlan
    run_id: str
    mlflow_url: str
    prefix: str
    """Where in the bucket the results of this training lie."""
    saved: SavedModel
    parameters: int
    epochs: int
    validation_accuracy: float
    """Share of 0–1."""
    validation_images: int
    config_sha256: str
    code_sha256: str


class EvaluatedModel(Payload):
    trained: TrainedModel
    mlflow_url: str
    test_loss: float
    """Mean cross-entropy in nats."""
    test_accuracy: float
    """Share of 0–1."""


class RegisteredModel(Payload):
    evaluated: EvaluatedModel
    mlflow_url: str
    name: str
    version: int


class Promotion(Payload):
    """The decision about the versions of one workflow run."""

    candidates: list[RegisteredModel]
    champion: int
    replaced: int | None
    challenger: int | None
    reasons: list[str]
    mlflow_url: str


class ReportRow(Payload):
    """One model in the table at the end."""

    model: str
    parameters: int
    epochs: int
    validation_accuracy: float
    test_accuracy: float
    version: int
    aliases: list[str]
    mlflow_url: str
    registry_url: str


class RunReport(Payload):
    """What a terminal prints at the end."""

    rows: list[ReportRow]
    banner: str | None
    reasons: list[str]
    airflow_url: str | None
    mlflow_url: str
    compare_url: str
    report_url: str
