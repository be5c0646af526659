"""Warm start: which weights of the champion a training may start from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cifar_tasks.errors import IntegrityError
from cifar_tasks.tracking import model_registry, runs
from cifar_tasks.tracking.runs import MODEL
from cifar_tasks.tracking.saved_model import SavedModel, is_stored, load_model

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from cifar_tasks.models.classifier import ImageClassifier


@dataclass(frozen=True)
class ChampionWeights:
    """Of a registered version, as it was the champion when the training was planned."""

    version: int
    saved: SavedModel
    hidden_units: int | None = None
    """Width of its hidden dense layer; none if its MLflow run was deleted."""

    def describe(self) -> str:
        return f"version {self.version} (SHA-256 {self.saved.sha256})"


def find_champion_weights(
    client: "MlflowClient", name: str, model: str, classes: Sequence[str]
) -> ChampionWeights | str:
    """The champion's, if it is the same model with the same classes; else why a training cannot start from them."""
    champion = model_registry.version_with_alias(client, name, model_registry.CHAMPION)
    if champion is None:
        return f"{name} has no champion"
    which = f"the champion, version {champion.version},"
    if champion.tags.get(MODEL) != model:
        return f"{which} is another model ({champion.tags.get(MODEL)})"
    try:
        if model_registry.class_names(champion) != tuple(classes):
            return f"{which} has other classes"
        saved = model_registry.saved_model_of(champion)
    except IntegrityError as error:
        return str(error)
    if not is_stored(client, saved):
        return f"the stored model of {which.rstrip(',')} was deleted"
    return ChampionWeights(int(champion.version), saved, _hidden_units(client, champion.run_id))


def _hidden_units(client: "MlflowClient", run_id: str | None) -> int | None:
    params = client.get_run(run_id).data.params if run_id and runs.exists(client, run_id) else {}
    return int(params["hidden_units"]) if "hidden_units" in params else None


def load_champion_weights(model: "ImageClassifier", weights: ChampionWeights) -> str | None:
    """Load them into `model`, or return why they do not fit: then nothing is changed.

    Raises `IntegrityError` if the stored file is not the one that was registered.
    """
    stored = load_model(weights.saved).state_dict()
    own = model.state_dict()
    wrong = [key for key in own.keys() | stored.keys() if _shape(own, key) != _shape(stored, key)]
    if wrong:
        return f"version {weights.version} has layers of another size: {', '.join(sorted(wrong)[:3])}"
    model.load_state_dict(stored)
    return None


def _shape(state: dict[str, "object"], key: str) -> object:
    return getattr(state.get(key), "shape", None)
