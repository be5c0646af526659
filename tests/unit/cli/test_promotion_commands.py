"""What `cifar promotions` and `cifar rollback` refuse."""

import pytest
from typer.testing import CliRunner

from cifar_tasks.cli import promotion_commands
from cifar_tasks.cli.main import app
from cifar_tasks.errors import ConfigError
from tests.answers import server_that_answers
from tests.stores import InMemoryStore


@pytest.mark.parametrize(
    "words", ["promotions", "promotions --json", "promotions repair", "trace champion", "predict x.png"]
)
def test_a_misspelled_model_is_named_with_the_nearest_one(default_client, monkeypatch, tmp_path, words):
    name = f"pets-{tmp_path.name}"
    default_client.create_registered_model(name)
    monkeypatch.setattr("cifar_tasks.storage.s3.S3Store", lambda bucket: InMemoryStore())
    monkeypatch.setattr("cifar_tasks.tracking.runs.mlflow_client", lambda: default_client)
    monkeypatch.setenv("CIFAR_HOME", str(tmp_path))
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    with server_that_answers(200) as mlflow:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow)
        with pytest.raises(ConfigError, match=rf"no registered model .*mean {name}\?"):
            CliRunner().invoke(app, [*words.split(), "--registered-model", f"{name}s"], catch_exceptions=False)


def test_a_repair_of_an_empty_name_is_refused_and_not_of_the_default_model():
    with pytest.raises(ConfigError, match="--registered-model: "):
        CliRunner().invoke(app, ["promotions", "repair", "--registered-model", ""], catch_exceptions=False)


def test_a_repair_of_two_models_is_refused():
    words = ["promotions", "--registered-model", "other", "repair", "--registered-model", "mine"]
    done = CliRunner().invoke(app, words)
    assert (done.exit_code, "--registered-model is given 2 times" in done.output) == (2, True)


@pytest.mark.parametrize(("reason", "said"), [(" ", "--reason: say why"), ("x" * 2001, "--reason: String should have")])
def test_a_rollback_without_a_usable_reason_is_refused_by_the_name_of_the_option(monkeypatch, reason, said):
    monkeypatch.setattr(promotion_commands, "_connected", lambda: None)
    with pytest.raises(ConfigError, match=said):
        CliRunner().invoke(app, ["rollback", "--reason", reason], catch_exceptions=False)
