"""What each step takes and returns: frozen values that Airflow carries as JSON (XCom).

A value holds the one that it continues, so that a task needs nothing but what the task before it returned.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from cifar_tasks.config import (
    MAX_IMAGE_SIZE,
    MIN_IMAGE_SIZE,
    PRETRAINED_ONLY,
    Overrides,
    Profile,
    RegisteredModelName,
    Resize,
    StartFrom,
    TrainConfig,
    flat,
)
from cifar_tasks.data.lines.line_versions import VERSION_PATTERN
from cifar_tasks.data.source_names import LINE, RunSource, line_of
from cifar_tasks.errors import ConfigError
from cifar_tasks.models.registry import available_models, check_models, get_model
from cifar_tasks.promotion.limits import TrainingMode
from cifar_tasks.steps.form_request import FormRequest
from cifar_tasks.storage.s3 import sha256_hex
from cifar_tasks.tracking.champion_weights import ChampionWeights
from cifar_tasks.tracking.saved_model import SavedModel


class Payload(BaseModel):
    """Immutable; a field that is missing or unknown is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _known(names: list[str]) -> list[str]:
    try:
        return check_models(names)
    except ConfigError as error:
        raise ValueError(str(error).rstrip(".")) from None  # pydantic reports it beside what else is wrong


Models = Annotated[list[str], AfterValidator(_known)]
"""Names of models, each once."""


class WorkflowRun(Payload):
    """Names the run in MLflow and S3; a retry of a step has the same name and finds the results of its earlier try."""

    id: str
    """Unique, stable over retries: `<dag id>/<run id>`, or `cli/<name>`."""
    name: str
    """As a person reads it."""
    url: str | None = None
    """Its page in Airflow."""
    by: str | None = None
    """The person who started it; none for a schedule or another DAG."""


MAX_WORKERS = 100
"""Of one study. Airflow maps a task at most 1,024 times, over the workers of all studies."""
MORE_MODELS = """Networks of timm (PyTorch Image Models), one per line: timm/convnext_tiny.fb_in22k. Their pretrained
weights come from the Hugging Face hub, or from where CIFAR_PRETRAINED_WEIGHTS says."""
_TUNING: Any = {"section": "Tuning (Optuna)"}


class RunRequest(FormRequest):
    """What the user asks for; the command line takes titles, texts and bounds from here too."""

    group = "overrides"

    source: RunSource = Field(title="Data source")
    """auto (CIFAR-10, or digits without network), cifar10, digits, line:NAME (the version in use of a dataset line),
    the absolute path of a folder, zip or tar with train/CLASS/ and test/CLASS/ or with CLASS/ alone, or the s3:// URL
    of one."""
    dataset_version: str | None = Field(default=None, pattern=VERSION_PATTERN, title="Dataset version")
    """Of a dataset line: the number of its entry in the log of the line, or the first 8 or more digits of its digest.
    Empty: the version in use."""
    models: Models = Field(title="Models")
    """Models to train in parallel."""
    profile: Profile = Field(title="Profile")
    """demo: minutes on a CPU, part of the images. full: all images; for a GPU, or the CNN alone."""
    registered_model: RegisteredModelName = Field(title="Registered model")
    """Name in the MLflow model registry. Use another name for data with other classes."""
    image_size: int = Field(default=32, ge=MIN_IMAGE_SIZE, le=MAX_IMAGE_SIZE, title="Image size")
    """Pixels per side that all images are resized to."""
    resize: Resize = Field(default="crop", title="Resize")
    """How an image becomes square. crop: keep the centre. squash: change the aspect ratio. pad: add a black border."""
    start_from: StartFrom = Field(default="recipe", title="Start from")
    """recipe: random or pretrained weights. champion: the champion's weights, for the models that it has the
    architecture and the classes of; the others start as the recipe says."""
    tune: Models = Field(default=[], title="Tune", json_schema_extra=_TUNING)
    """Models whose hyperparameters are tuned before the training. The others use the best hyperparameters of earlier
    studies on the same data, or the recipe."""
    trials: int | None = Field(default=None, ge=1, le=10_000, title="Trials", json_schema_extra=_TUNING)
    """Short trainings of each study in total; an existing study continues. Empty: 8 (demo), 24 (full)."""
    search_minutes: int | None = Field(default=None, ge=1, le=10_000, title="Minutes", json_schema_extra=_TUNING)
    """No trial starts after this many minutes. Empty: no limit."""
    search_workers: int | None = Field(default=None, ge=1, le=MAX_WORKERS, title="Workers", json_schema_extra=_TUNING)
    """Tasks that share the trials of each study. Empty: the number of trainings that may run at the same time."""
    promotion: TrainingMode = Field(default="auto", title="Promotion")
    """Who decides about the best version of this run. auto: the evidence. approve: a person, if the evidence is for it.
    never: nobody; the champion stays."""
    force: bool = Field(default=False, title="Train again")
    """Train even if the same was trained before. Otherwise a run is skipped if an earlier one has trained all its
    models on the same dataset version with the same configuration and code. A run that tunes is never skipped."""
    overrides: Overrides = Field(
        default=Overrides(), title="Override the recipe (what is empty, or `recipe`, stays as it is)"
    )

    def as_form(self) -> dict[str, Any]:
        return self.model_dump(exclude={"overrides"}) | self.overrides.as_form()

    def overrides_for(self, placeholder: bool) -> Overrides:
        """For these data. Digits are never mirrored: a mirrored digit is no digit."""
        return self.overrides.model_copy(update={"flip": False}) if placeholder else self.overrides

    def unused_overrides(self, placeholder: bool) -> dict[str, str]:
        """Name of each override that no training on these data would follow → why."""
        overrides = self.overrides_for(placeholder)
        trainings = [flat(get_model(name).config(self.profile, overrides)) for name in self.models]
        return {
            name: f"{', '.join(self.models)} would not use it: "
            + ("only networks with pretrained weights do" if name in PRETRAINED_ONLY else "digits are never mirrored")
            for name, value in self.overrides.given().items()
            if all(training[name] != value for training in trainings)
        }

    @field_validator("models")
    @classmethod
    def _at_least_one(cls, models: list[str]) -> list[str]:
        if not models:
            raise ValueError(f"name one or more of {', '.join(available_models())}, timm/NAME")
        return models

    @field_validator("dataset_version")
    @classmethod
    def _only_of_a_line(cls, version: str | None, others: ValidationInfo) -> str | None:
        if version and not line_of(others.data.get("source", LINE)):
            raise ValueError("only a dataset line has versions: give line:NAME as source, or leave it empty")
        return version

    @classmethod
    def form_fields(cls) -> dict[str, dict[str, Any]]:
        """In the form the models of timm, too many to choose from a list, have a field of their own."""
        fields = super().form_fields()
        names, others = list(available_models()), "timm/[A-Za-z0-9_.]+"
        known = {"items": {"type": "string", "pattern": f"^({'|'.join(map(re.escape, names))}|{others})$"}}
        for name in ("models", "tune"):
            fields[name] |= {**known, "examples": names, "uniqueItems": True}  # a multi-select
        more = {"type": "array", "items": {"type": "string", "pattern": f"^{others}$"}, "default": []}
        texts = {"title": "More models", "description": MORE_MODELS}
        ordered: dict[str, dict[str, Any]] = {}
        for name, field in fields.items():
            ordered |= {name: field} | ({"more_models": more | texts} if name == "models" else {})
        return ordered

    @classmethod
    def from_form(cls, values: Mapping[str, Any]) -> Self:
        given = dict(values)
        if more := given.pop("more_models", None):
            given["models"] = [*(given.get("models") or []), *(name.strip() for name in more)]
        return super().from_form(given)

    @field_validator("tune")
    @classmethod
    def _only_what_is_trained(cls, tune: list[str], others: ValidationInfo) -> list[str]:
        if untrained := [name for name in tune if name not in others.data.get("models", tune)]:
            raise ValueError(
                f"{', '.join(untrained)} is not among the models to train: add it there, or take it out here"
            )
        return tune


class LineVersion(Payload):
    """Where a dataset version comes from: an entry in the log of a dataset line."""

    line: str
    entry: int
    url: str | None = None
    """Of the DAG run that has brought the version into use, or of the report with which a person did."""

    def tags(self) -> dict[str, Any]:
        """Of MLflow runs and registered versions."""
        return {"cifar.line": self.line, "cifar.line_entry": self.entry, "cifar.line_url": self.url or ""}

    def links(self) -> dict[str, str | None]:
        """Title and address in descriptions."""
        return {"Delivery": self.url}


class PreparedData(Payload):
    """A dataset version, and the MLflow run that all runs of this workflow run are children of."""

    workflow: WorkflowRun
    request: RunRequest
    dataset_uri: str
    parent_run_id: str
    experiment_id: str
    mlflow_url: str
    """Airflow shows it as a button of the task; so in every payload of this name."""
    line: LineVersion | None = None
    """None if the source is no dataset line."""
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
    search_warning: str | None = None
    """Why the model is trained without tuning, although it was to be tuned."""
    start: ChampionWeights | None = None
    """None for the weights of the recipe."""

    @property
    def skipped_key(self) -> str:
        """Where in the bucket the reason lies if the run does without this model."""
        return skipped_key(self.data.workflow.id, self.config.model)


def skipped_key(workflow: str, model: str) -> str:
    """See `TrainPlan.skipped_key`."""
    return f"runs/{sha256_hex(workflow.encode())[:16]}/{model}-skipped.txt"


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
    initial_weights: str
    """What the training started from, as a person reads it."""
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
    test_set: str
    """Digest of the test images: names the stored evaluation, together with the digest of the saved model."""
    test_loss: float
    """Mean cross-entropy in nats."""
    test_accuracy: float
    """Share of 0–1."""


class RegisteredModel(Payload):
    evaluated: EvaluatedModel
    mlflow_url: str
    name: str
    version: int
