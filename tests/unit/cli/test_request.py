"""From options to a request: what is refused, and that nothing was started before."""

import os
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from cifar_tasks.cli.main import app
from cifar_tasks.cli.request import MAX_NAME, build_request, check_name
from cifar_tasks.deployment.airflow_api import Access
from cifar_tasks.errors import ConfigError, DataError
from tests.unit.deployment.doctor.deployments import Server, handled_by

GOOD = {"profile": "demo", "registered_model": "test", "image_size": 32, "resize": "crop", "trials": None}


def test_all_values_that_do_not_fit_are_named_at_once() -> None:
    wrong = {"profile": "huge", "registered_model": "a/b", "image_size": 5, "resize": "stretch", "trials": 0}
    overrides = ["epochs=0", "flip=maybe", "epoch=3", "seed=1", "seed=2"]
    with pytest.raises(ConfigError) as refused:
        build_request("/no/such/folder", "vgg,cn", "vgg", overrides, **wrong)
    lines = str(refused.value).splitlines()
    began = [line.partition(":")[0] for line in lines]
    assert sorted(began) == [
        "--image-size",
        "--models",
        "--profile",
        "--registered-model",
        "--resize",
        "--set epoch=3",
        "--set epochs",
        "--set flip",
        "--set seed=2",
        "--source",
        "--trials",
        "--tune",
    ]
    assert any("'vgg', 'cn' (did you mean cnn?)" in line for line in lines)
    assert any("did you mean epochs?" in line for line in lines)


@pytest.mark.parametrize("source", ["s3://", "s3:///key", "http://host/a.zip", "", "pics\0"])
def test_a_source_of_no_known_kind_is_refused_by_its_option(source: str) -> None:
    with pytest.raises(ConfigError, match=r"^--source: "):
        build_request(source, "cnn", "", None, **GOOD)


def test_a_relative_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pics").mkdir()
    monkeypatch.chdir(tmp_path)
    assert build_request("pics", "cnn", "", ["epochs=3"], **GOOD).source == str(tmp_path.resolve() / "pics")


def test_trials_without_models_to_tune_are_refused() -> None:
    for tune in ("", ","):
        with pytest.raises(ConfigError, match=r"^--trials: needs --tune"):
            build_request("digits", "cnn", tune, None, **{**GOOD, "trials": 5})
    assert build_request("digits", "cnn", "cnn", None, **{**GOOD, "trials": 5}).trials == 5
    assert build_request("digits", "cnn", "", None, **GOOD, search_workers=1).tune == []  # as `cifar run` has it


def test_an_override_that_no_model_of_the_request_uses_is_refused() -> None:
    unused = ["input_size=64", "pretrained=required", "flip=on", "epochs=3"]
    with pytest.raises(ConfigError) as refused:
        build_request("digits", "cnn", "", unused, **GOOD)
    assert str(refused.value).splitlines() == [
        "--set input_size: cnn would not use it: only networks with pretrained weights do. Leave it out.",
        "--set pretrained: cnn would not use it: only networks with pretrained weights do. Leave it out.",
        "--set flip: cnn would not use it: digits are never mirrored. Leave it out.",
    ]
    build_request("cifar10", "cnn,resnet50", "", unused, **GOOD)
    build_request("digits", "cnn", "", ["input_size=0", "pretrained=none", "flip=off"], **GOOD)


def test_an_empty_dataset_version_is_the_one_in_use() -> None:
    assert build_request("line:products", "cnn", "", None, **GOOD, dataset_version="").dataset_version is None


@pytest.mark.parametrize("models", ["", ","])
def test_a_run_without_models_is_refused_with_the_names_of_models(models: str) -> None:
    with pytest.raises(ConfigError, match=r"^--models: name one or more of cnn, efficientnet_lite0, resnet50, timm/"):
        build_request("digits", models, "", None, **GOOD)


@pytest.mark.parametrize("command", ["run", "demo"])
def test_an_option_given_twice_is_refused_and_overrides_are_not(command: str) -> None:
    done = CliRunner().invoke(app, [command, "--models", "cnn", "--set", "epochs=0", "--models=resnet50"])
    assert done.exit_code == 2
    assert "--models is given 2 times" in done.output
    done = CliRunner().invoke(app, [command, "--set", "epochs=0", "--set", "seed=-1"])
    assert isinstance(done.exception, ConfigError)
    assert len(str(done.exception).splitlines()) == 2


def test_promotions_refuses_repeated_options_and_json_before_a_subcommand() -> None:
    done = CliRunner().invoke(app, ["promotions", "--registered-model", "a", "--registered-model", "b"])
    assert (done.exit_code, "--registered-model is given 2 times" in done.output) == (2, True)
    done = CliRunner().invoke(app, ["promotions", "--json", "repair"])
    assert (done.exit_code, "leave it out before repair" in done.output) == (2, True)


@pytest.mark.parametrize("name", ["", " ", "a\nb", "\x1b[1m", "a\0", "x" * (MAX_NAME + 1)])
def test_a_name_that_cannot_be_shown_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^--name: "):
        check_name(name)


@pytest.mark.parametrize("name", ["it's", '"', "\\", "50%", "🐱", "x" * MAX_NAME, "a/../b"])
def test_any_other_name_is_the_user_s_own(name: str) -> None:
    assert check_name(name) == name


def test_what_is_no_archive_is_refused_before_the_stack_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, home = tmp_path / "notes.zip", tmp_path / "home"
    text.write_text("no archive")
    monkeypatch.setenv("CIFAR_HOME", str(home))
    done = CliRunner().invoke(app, ["demo", "--source", str(text)])
    assert isinstance(done.exception, DataError)
    assert "neither a zip nor a tar" in str(done.exception)
    assert not home.exists()


def test_a_setting_that_does_not_fit_stops_the_demo_before_the_stack_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIFAR_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CIFAR_REGISTERED_MODEL", "a/b")
    monkeypatch.setenv("CIFAR_SOURCE", "pictures")
    done = CliRunner().invoke(app, ["demo"])
    assert [line.partition(":")[0] for line in str(done.exception).splitlines()] == [
        "CIFAR_REGISTERED_MODEL",
        "CIFAR_SOURCE",
    ]
    assert os.listdir(tmp_path) == []


def interrupted(*arguments: object, **named: object) -> None:
    raise KeyboardInterrupt


def test_an_interrupted_run_says_how_it_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class MLflow(Server):
        def answer(self) -> None:
            self.send_json("3.17.0")

    monkeypatch.setattr("cifar_tasks.cli.local_run.run_workflow", interrupted)
    with handled_by(MLflow) as mlflow:
        servers = {"MLFLOW_TRACKING_URI": mlflow, "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1"}
        monkeypatch.setattr(os, "environ", {**os.environ, **servers, "CIFAR_HOME": str(tmp_path)})
        done = CliRunner().invoke(app, ["run", "--source", "digits", "--name", "it's [b]me[/b]"])
    assert done.exit_code == 130
    assert "--name 'it'\"'\"'s [b]me[/b]'" in " ".join(done.output.split())


def test_an_interrupted_demo_says_that_the_run_goes_on_and_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    run = SimpleNamespace(dag_id="x", run_id="mine", url="http://airflow/dags/x/runs/mine")
    monkeypatch.setattr(
        "cifar_tasks.deployment.airflow_api.access_to_deployment", lambda _: Access("http://airflow", "word", {})
    )
    monkeypatch.setattr("cifar_tasks.deployment.airflow_api.airflow", lambda *_: nullcontext())
    monkeypatch.setattr("cifar_tasks.cli.dag_run.trigger", lambda *_: run)
    monkeypatch.setattr("cifar_tasks.cli.watch.Watcher.watch", interrupted)
    done = CliRunner().invoke(app, ["demo", "--source", "digits"])
    assert done.exit_code == 130
    assert "The run goes on: http://airflow/dags/x/runs/mine" in done.output


@pytest.mark.parametrize("name", ["a/b", "", "a:1", "x" * 101, "a\n"])
def test_a_model_name_that_mlflow_cannot_have_is_refused_before_mlflow_is_asked(name: str) -> None:
    done = CliRunner().invoke(app, ["predict", "--registered-model", name, "cat.png"])
    assert str(done.exception).startswith("--registered-model: give 1 to 100 letters")
