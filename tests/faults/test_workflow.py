"""The steps on real storage and a real MLflow: what they leave, and what a retry finds."""

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image
from typer.testing import CliRunner

from cifar_tasks.cli.local_run import run_workflow
from cifar_tasks.cli.main import app
from cifar_tasks.cli.predict import predict
from cifar_tasks.cli.request import check_source
from cifar_tasks.errors import CifarError, ConfigError, DataError, NothingToTrain
from cifar_tasks.settings import Settings
from cifar_tasks.steps.payloads import WorkflowRun
from cifar_tasks.steps.prepare import prepare_data
from cifar_tasks.steps.report_payloads import RunReport
from cifar_tasks.storage.s3 import S3Store, sha256_hex
from cifar_tasks.tracking import model_registry, runs
from cifar_tasks.tracking.decisions import SECTION
from tests.conftest import COLOURS, RunningStack, connect, picture
from tests.trainings import SMALL, child_run, prepared, request


def run_named(name: str, source: Path | str, **changes: Any) -> RunReport:
    return run_workflow(name, request(source, **{"registered_model": f"{name}-classifier", **changes}))[0]


def artifacts(client: MlflowClient, run_id: str, folder: str | None = None) -> set[str]:
    found: set[str] = set()
    for entry in client.list_artifacts(run_id, folder):
        found |= artifacts(client, run_id, entry.path) if entry.is_dir else {entry.path}
    return found


@pytest.fixture(scope="module")
def summary(backend: RunningStack, pictures: Path) -> RunReport:
    """What one whole run returned."""
    with pytest.MonkeyPatch.context() as patch:
        connect(patch, backend.environment)
        return run_named("whole", pictures)


def test_a_model_without_its_weights_is_skipped_and_the_others_come_to_a_champion(client, pictures, monkeypatch):
    nowhere = {"resnet50": {"source": "/nowhere/weights.pth", "sha256": "0" * 64}}
    monkeypatch.setenv("CIFAR_PRETRAINED_WEIGHTS", json.dumps(nowhere))
    report = run_named("skipping", pictures, models=["resnet50", "cnn"])
    assert [row.model for row in report.rows] == ["cnn"]
    (warning,) = report.warnings
    assert "resnet50 is not trained: there are no weights at /nowhere/weights.pth" in warning
    assert set(client.get_registered_model("skipping-classifier").aliases) == {"champion"}
    (parent,) = child_run(client, "cli/skipping", "all")
    assert "resnet50 is not trained" in parent.data.tags["mlflow.note.content"]
    assert not child_run(client, "cli/skipping", "resnet50")
    both = {"models": ["resnet50", "cnn"], "registered_model": "skipping-classifier", "force": False}
    with pytest.raises(NothingToTrain, match="It went on without resnet50, whose weights were not available"):
        run_named("again", pictures, **both)


class TestAWholeRun:
    def test_the_model_learns_and_becomes_champion(self, summary, client):
        (row,) = summary.rows
        assert row.test_accuracy > 0.9
        assert row.candidate
        assert client.get_registered_model("whole-classifier").aliases == {"champion": str(row.version)}
        assert summary.banner is None

    def test_parent_and_child_are_linked_and_finished(self, summary, client):
        (parent,) = child_run(client, "cli/whole", "all")
        (child,) = child_run(client, "cli/whole")
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert {parent.info.status, child.info.status} == {"FINISHED"}

    def test_its_name_with_other_values_is_refused_and_changes_nothing(self, summary, client, pictures):
        with pytest.raises(ConfigError, match=r"run .whole. began with .*batch_size .* now 33"):
            run_named("whole", pictures, overrides={"batch_size": 33})
        (parent,) = child_run(client, "cli/whole", "all")
        assert parent.info.status == "FINISHED"

    def test_its_name_with_other_data_at_the_same_place_is_refused(self, client, pictures, tmp_path):
        archive = shutil.copy(pictures, tmp_path / "pictures.zip")
        asked, workflow = request(archive), WorkflowRun(id="cli/changed", name="changed")
        prepare_data(asked, workflow)
        with zipfile.ZipFile(archive, "a") as more:
            more.writestr("train/red/one-more.png", picture((1, 2, 3), np.random.default_rng(2)))
        with pytest.raises(DataError, match="has changed since run 'changed' began"):
            prepare_data(asked, workflow)

    def test_a_run_that_failed_for_its_source_is_resumed_with_another_one(self, client, pictures, tmp_path):
        workflow = WorkflowRun(id="cli/mistaken", name="mistaken")
        with pytest.raises(CifarError):
            prepare_data(request(tmp_path), workflow)
        assert prepare_data(request(pictures), workflow).workflow == workflow

    def test_a_bucket_that_is_not_there_is_refused_before_a_run_is_opened(self, tracked):
        with pytest.raises(CifarError, match="no-such-bucket"):
            check_source(request("s3://no-such-bucket/pictures"))

    def test_each_epoch_has_its_metrics(self, summary, client):
        (child,) = child_run(client, "cli/whole")
        names = ["train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "learning_rate"]
        for name in [*names, "images_per_second"]:
            assert sorted({m.step for m in client.get_metric_history(child.info.run_id, name)}) == [1, 2, 3], name

    def test_run_version_and_report_show_the_metrics_of_the_saved_model(self, summary, client):
        (child,) = child_run(client, "cli/whole")
        version = model_registry.version_with_alias(client, "whole-classifier", "champion")
        (row,) = summary.rows
        for name in ("validation_accuracy", "test_accuracy"):
            shown = {child.data.metrics[name], float(version.tags[f"cifar.{name}"]), getattr(row, name)}
            assert len(shown) == 1, name
        assert child.data.metrics["accuracy"] == row.test_accuracy

    def test_runs_and_version_have_a_description_with_the_result(self, summary, client):
        (parent,) = child_run(client, "cli/whole", "all")
        (child,) = child_run(client, "cli/whole")
        version = model_registry.version_with_alias(client, "whole-classifier", "champion")
        notes = [run.data.tags["mlflow.note.content"] for run in (parent, child)]
        for text in (*notes, version.description):
            assert f"{summary.rows[0].test_accuracy:.2%}" in text
            assert "colours.zip" in text
        assert parent.data.metrics["cnn_test_accuracy"] == summary.rows[0].test_accuracy
        assert summary.report_url in notes[0]
        assert summary.rows[0].registry_url in notes[1]
        assert summary.rows[0].mlflow_url in version.description

    def test_parameters_dataset_summary_and_figures_are_there(self, summary, client):
        (parent,) = child_run(client, "cli/whole", "all")
        (child,) = child_run(client, "cli/whole")
        assert child.data.params["parameters_total"] == str(2_429_270 - 7 * 5_889)
        assert child.data.params["epochs"] == "3"
        assert {d.dataset.name for d in child.inputs.dataset_inputs} == {"colours.zip"}
        wanted = {"model_summary.txt", "learning_curves.png", "evaluation/confusion_matrix.png"}
        wanted |= {f"evaluation/{n}" for n in ("classification_report.json", "classification_report.txt")}
        wanted |= {"evaluation/confusion_matrix.json", "evaluation/test_images.png", "evaluation/evaluation.json"}
        wanted |= {"evaluation/reliability.png", "evaluation/confused_images.png"}
        assert wanted <= artifacts(client, child.info.run_id)
        assert {"report.html", "promotion.json", "dataset/sample.png"} <= artifacts(client, parent.info.run_id)

    def test_the_version_carries_the_digests_and_the_model_s_signature(self, summary, client):
        version = model_registry.version_with_alias(client, "whole-classifier", "champion")
        for tag in ("cifar.dataset", "cifar.config_sha256", "cifar.code_sha256", "cifar.model_sha256"):
            assert len(version.tags[tag]) == 64, tag
        info = mlflow.models.get_model_info("models:/whole-classifier@champion")
        (spec,) = info.signature.inputs.inputs
        assert (spec.type, spec.shape) == (np.dtype(np.uint8), (-1, 32, 32, 3))
        assert info.saved_input_example_info is not None

    def test_the_stored_model_opens_where_pickles_are_refused(self, summary, client, monkeypatch):
        monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
        folder = Path(mlflow.artifacts.download_artifacts("models:/whole-classifier@champion"))
        assert [path.name for path in (folder / "data").iterdir()] == ["model.pt2"]
        mlflow.pytorch.load_model(str(folder))

    def test_anybody_can_load_it_through_mlflow(self, summary, client, pictures):
        model = mlflow.pyfunc.load_model("models:/whole-classifier@champion")
        with zipfile.ZipFile(pictures) as archive, archive.open("test/green/0000.png") as file:
            image = np.asarray(Image.open(file))[None]
        assert model.predict(image).argmax() == sorted(COLOURS).index("green")

    def test_predict_answers_with_the_champion_for_any_size_of_picture(self, summary, client, tmp_path):
        path = tmp_path / "red.jpg"
        Image.new("RGB", (300, 200), COLOURS["red"]).save(path)
        for fast in (False, True):
            result = predict([path], "whole-classifier", fast=fast)
            (answer,) = result.found
            assert (result.version, answer.label, result.problems) == (1, "red", [])
            assert 1 / len(COLOURS) < answer.probability <= 1

    def test_the_same_run_again_makes_nothing_new(self, summary, client, pictures):
        def everything() -> tuple[Any, ...]:
            experiment = runs.experiment_id(client, Settings().experiment)
            made = {run.info.run_id for kind in ("all", "cnn") for run in child_run(client, "cli/whole", kind)}
            models = {m.model_id for m in client.search_logged_models([experiment]) if m.source_run_id in made}
            versions = {v.version for v in client.search_model_versions("name = 'whole-classifier'")}
            return made, models, versions, set(S3Store(Settings().bucket).keys(prefix))

        prefix = f"runs/{sha256_hex(b'cli/whole')[:16]}/"  # other tests write to the same bucket meanwhile

        def decisions() -> list[str]:
            """At the end of what MLflow shows of the version, and of the run."""
            (parent,) = child_run(client, "cli/whole", "all")
            texts = (
                client.get_model_version("whole-classifier", "1").description,
                runs.note(client, parent.info.run_id),
            )
            return [text.partition(SECTION)[2] for text in texts]

        before, decided = everything(), decisions()
        assert all("version 1 (cnn) is the first champion" in decision for decision in decided)
        again = run_named("whole", pictures)
        assert again.rows[0].test_accuracy == summary.rows[0].test_accuracy
        assert (everything(), decisions()) == (before, decided)

    def test_another_run_that_would_train_the_same_is_refused_and_opens_no_run(self, summary, client, pictures):
        number = summary.rows[0].version
        with pytest.raises(NothingToTrain, match=rf"version {number} \(cnn\) .* version {number} is the champion"):
            run_named("same", pictures, registered_model="whole-classifier", force=False)
        assert child_run(client, "cli/same", "all") == []

    def test_a_run_that_changes_one_value_or_tunes_is_not_the_same(self, summary, client, pictures):
        for name, changes in {"seed": {"overrides": {**SMALL, "seed": 1}}, "tunes": {"tune": ["cnn"]}}.items():
            asked = request(pictures, registered_model="whole-classifier", force=False, **changes)
            assert prepare_data(asked, WorkflowRun(id=f"cli/{name}", name=name)).dataset_uri

    def test_it_is_traced_from_its_version_its_data_and_a_picture(self, summary, client, pictures, tmp_path):
        def traced(what: str) -> Any:
            done = CliRunner().invoke(app, ["trace", what, "--registered-model", "whole-classifier", "--json"])
            assert done.exit_code == 0, done.output
            return json.loads(done.stdout)

        number = summary.rows[0].version
        found = traced("champion")
        assert [model["version"] for model in found["models"]] == [number]
        (dataset,) = found["datasets"]
        assert dataset["images"]["test"] == 60
        client.set_registered_model_alias("whole-classifier", "prod", str(number))
        assert traced("prod") == found
        of_data = traced(dataset["digest"][:12])["models"]
        assert ("whole-classifier", number) in {(model["registered_model"], model["version"]) for model in of_data}

        with zipfile.ZipFile(pictures) as archive:
            archive.extract("test/red/0003.png", tmp_path)
        of_picture = traced(str(tmp_path / "test" / "red" / "0003.png"))
        assert ("test", "red") in {(image["split"], image["label"]) for image in of_picture["images"]}
        assert ("whole-classifier", number) in {(m["registered_model"], m["version"]) for m in of_picture["models"]}
        refused = CliRunner().invoke(app, ["trace", "no-such-file"])
        assert "is no version, alias, dataset version" in str(refused.exception)

    def test_another_run_with_an_equal_model_leaves_the_champion(self, summary, client, pictures):
        again, promotion = run_workflow("twin", request(pictures, registered_model="whole-classifier"))
        assert again.rows[0].test_accuracy == summary.rows[0].test_accuracy
        assert promotion.reasons[0] == "version 2 (cnn) does not replace the champion version 1 (cnn)"
        assert model_registry.version_with_alias(client, "whole-classifier", "champion").version == "1"
        assert model_registry.version_with_alias(client, "whole-classifier", "challenger").version == "2"


def test_the_seed_of_the_request_decides_which_images_validate(tracked, pictures):
    first, again, other = (prepared(pictures, f"seed-{n}", overrides={"seed": n // 2}).dataset_uri for n in range(3))
    assert first == again != other
