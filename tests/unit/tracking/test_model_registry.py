"""The registry on a real MLflow: which version belongs to a run, what it says of itself, where aliases point."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED, TEMPORARILY_UNAVAILABLE

from cifar_tasks.errors import ConfigError, IntegrityError
from cifar_tasks.tracking import model_registry
from cifar_tasks.tracking.saved_model import DIGEST_TAG, SavedModel
from tests.names import NASTY_NAMES

SAVED = SavedModel("models:/m-1", "abc")


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A registered model of the test."""
    return request.node.name


@pytest.fixture
def register(default_client: MlflowClient, name: str):
    """A function that registers the model of a new run with these tags."""

    def one_more(**tags: object) -> int:
        run = default_client.create_run("0").info.run_id
        model = default_client.create_logged_model("0", name="model", source_run_id=run)
        return model_registry.register(default_client, name, SavedModel(f"models:/{model.model_id}", "abc"), run, tags)

    return one_more


def test_a_run_has_one_version_and_a_retry_completes_it(default_client, run_id, name):
    experiment = default_client.get_run(run_id).info.experiment_id
    model = default_client.create_logged_model(experiment, name="model", source_run_id=run_id)
    saved = SavedModel(f"models:/{model.model_id}", "abc")
    first = model_registry.register(default_client, name, saved, run_id, {"accuracy": 0.5})
    again = model_registry.register(default_client, name, saved, run_id, {"accuracy": 0.6})
    version = default_client.get_model_version(name, str(first))
    assert (first, again) == (1, 1)
    assert version.tags == {"accuracy": "0.6", DIGEST_TAG: "abc"}
    assert version.source == saved.uri
    assert model_registry.saved_model_of(version) == saved


def test_an_alias_names_its_version_and_none_before_it_is_set(default_client, name, register):
    assert model_registry.version_with_alias(default_client, name, "champion") is None  # no such registered model
    versions = [register(), register()]
    assert model_registry.version_with_alias(default_client, name, "champion") is None  # no such alias
    for version in versions:
        default_client.set_registered_model_alias(name, "champion", str(version))
        found = model_registry.version_with_alias(default_client, name, "champion")
        assert int(found.version) == version


def test_a_registered_model_that_there_is_not_is_an_error_with_the_nearest_name(default_client, name, register):
    register()
    assert model_registry.registered_model(default_client, name).name == name
    with pytest.raises(ConfigError, match=rf"there is no registered model {name}x in MLflow \(did you mean {name}\?\)"):
        model_registry.registered_model(default_client, f"{name}x")


class Refusing:
    """A server that refuses whatever it is asked."""

    def __init__(self, code: int) -> None:
        self._code = code

    def __getattr__(self, asked: str):
        def refuse(*arguments: object, **more: object) -> None:
            raise MlflowException(f"no permission: {asked}", error_code=self._code)

        return refuse


@pytest.mark.parametrize("code", [PERMISSION_DENIED, TEMPORARILY_UNAVAILABLE])
def test_a_server_that_refuses_is_an_error_and_not_a_missing_version(code):
    server = Refusing(code)
    for asked, ask in (
        ("get_model_version_by_alias", lambda: model_registry.version_with_alias(server, "name", "champion")),
        ("get_registered_model", lambda: model_registry.registered_model(server, "name")),
        ("get_model_version", lambda: model_registry.get_version(server, "name", 1)),
        ("create_registered_model", lambda: model_registry.register(server, "name", SAVED, "run", {})),
    ):
        with pytest.raises(MlflowException, match=f"no permission: {asked}$"):
            ask()


def test_a_version_that_a_person_has_deleted_is_an_error_that_names_it(default_client, name, register):
    version = register()
    assert model_registry.get_version(default_client, name, version).version == version
    default_client.delete_model_version(name, str(version))
    with pytest.raises(ConfigError, match=rf"no version 1 of {name} in MLflow.*deleted or renamed"):
        model_registry.get_version(default_client, name, version)


def test_the_best_tuned_version_is_the_most_accurate_with_these_tags_and_all_that_a_search_leaves(
    default_client, name, register
):
    def tuned(accuracy: float, **tags: str) -> int:
        searched = {"cifar.tuned_params": "{}", "cifar.params_source": "study", "cifar.validation_accuracy": accuracy}
        return register(**{**searched, "cifar.model": "cnn", "cifar.dataset": "d1"} | tags)

    wanted = {"cifar.model": "cnn", "cifar.dataset": "d1"}
    register(**wanted, **{"cifar.validation_accuracy": 0.99})  # not tuned
    assert model_registry.best_tuned(default_client, name, wanted) is None
    tuned(0.98, **{"cifar.dataset": "d2"})
    tuned(0.97, **{"cifar.model": "resnet50"})
    tuned(0.095)
    best = tuned(0.7)
    tuned(0.6)
    assert int(model_registry.best_tuned(default_client, name, wanted).version) == best
    default_client.delete_model_version_tag(name, str(best), "cifar.params_source")
    assert int(model_registry.best_tuned(default_client, name, wanted).version) == best + 1
    for changed in ("high", "nan"):
        default_client.set_model_version_tag(name, str(best + 1), "cifar.validation_accuracy", changed)
        assert int(model_registry.best_tuned(default_client, name, wanted).version) == best - 1


@pytest.mark.parametrize(
    "changed", ['{"learning_rate": 0.1', "0.1", "", '["dropout"]'], ids=["cut", "number", "empty", "list"]
)
def test_hyperparameters_that_somebody_has_changed_are_not_used_again(default_client, name, register, changed):
    wanted = {"cifar.model": "cnn"}
    tags = wanted | {"cifar.params_source": "study", "cifar.validation_accuracy": 0.5}
    good = register(**tags, **{model_registry.TUNED_PARAMS: '{"dropout": 0.1}'})
    register(**tags | {"cifar.validation_accuracy": 0.9}, **{model_registry.TUNED_PARAMS: changed})
    params, version = model_registry.reused_params(default_client, name, wanted, ())
    assert (params, int(version.version)) == ({"dropout": 0.1}, good)


def test_a_version_keeps_any_class_names() -> None:
    tags = model_registry.class_tags(NASTY_NAMES)
    assert model_registry.class_names(SimpleNamespace(tags=tags)) == NASTY_NAMES


@pytest.mark.parametrize("names", ["no JSON", "3", '{"a": 1}', '["a", 1]'])
def test_class_names_that_somebody_has_changed_are_an_error_that_names_the_version(names) -> None:
    version = SimpleNamespace(name="cifar10", version="3", tags={model_registry.CLASSES: names})
    with pytest.raises(IntegrityError, match=r"cifar.classes of version 3 of cifar10 .* somebody has changed its tags"):
        model_registry.class_names(version)


def test_class_names_fill_a_tag_up_to_its_last_character_and_are_left_out_if_they_do_not_fit() -> None:
    fits = ["x" * (model_registry.MAX_TAG - len('[""]'))]
    assert model_registry.MAX_TAG <= 100_000  # MLflow refuses a longer value
    assert model_registry.class_tags(fits).keys() == {model_registry.CLASSES}
    assert model_registry.class_tags([fits[0] + "x"]) == {}


def test_a_version_that_was_registered_by_hand_is_refused(default_client, name, register):
    version = default_client.get_model_version(name, str(register()))
    by_hand = SimpleNamespace(name=name, version="1", source=version.source, tags={})
    for read in (model_registry.saved_model_of, model_registry.class_names):
        with pytest.raises(IntegrityError, match=rf"version 1 of {name} carries no {DIGEST_TAG} tag"):
            read(by_hand)


@pytest.mark.parametrize("metadata", [None, {"image_size": 32}, {"classes": ["ant", "bee"]}])
def test_class_names_that_are_in_no_tag_are_those_of_the_model(tmp_path: Path, metadata) -> None:
    Model(metadata=metadata).save(str(tmp_path / "MLmodel"))
    version = SimpleNamespace(name="m", version="1", source=str(tmp_path), tags={DIGEST_TAG: "abc"})
    if metadata and "classes" in metadata:
        assert model_registry.class_names(version) == ("ant", "bee")
    else:
        with pytest.raises(IntegrityError, match="version 1 of m does not name its classes"):
            model_registry.class_names(version)
