"""`cifar compare` on a real MLflow registry and stored evaluations."""

import io
import json
import subprocess
import sys
import uuid

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from cifar_tasks.cli.compare import compare_versions, find_version
from cifar_tasks.cli.main import app
from cifar_tasks.errors import ConfigError, IntegrityError
from cifar_tasks.evaluation.comparison import compare
from cifar_tasks.promotion.limits import Limits
from cifar_tasks.storage.s3 import canonical_json, sha256_hex
from cifar_tasks.tracking import model_registry
from cifar_tasks.tracking.evaluations import StoredEvaluation, TestSet, _key, _npy
from cifar_tasks.tracking.saved_model import SavedModel
from tests.answers import server_that_answers
from tests.predictions import labels_of, probabilities_of, scores_of
from tests.stores import InMemoryStore

CLASSES = ("cat", "dog")
LABELS = labels_of(1_000, 2)


class Registry:
    """A registered model whose versions have stored evaluations."""

    def __init__(self, client) -> None:
        self.client, self.name, self.store = client, f"compared-{uuid.uuid4().hex[:8]}", InMemoryStore()

    def version(self, wrong, test_set="t1", classes=CLASSES, **tags) -> int:
        """A version whose model takes these images for another class."""
        run = self.client.create_run("0").info.run_id
        model = self.client.create_logged_model("0", name="model", source_run_id=run)
        digest = sha256_hex(run.encode())
        tags = {"cifar.model": "cnn", "cifar.test_set": sha256_hex(test_set.encode()), **tags}
        tags |= model_registry.class_tags(classes)
        saved = SavedModel(f"models:/{model.model_id}", digest)
        number = model_registry.register(self.client, self.name, saved, run, tags)
        self.evaluate(digest, wrong, test_set, classes)
        return number

    def evaluate(self, digest, wrong, test_set, classes=CLASSES) -> None:
        named, probabilities = sha256_hex(test_set.encode()), probabilities_of(LABELS, 2, wrong)
        evaluation = StoredEvaluation(
            **dict(scores_of(probabilities, LABELS, classes)),
            model_sha256=digest,
            model_uri="models:/m-1",
            size_mb=9.3,
            test_set=TestSet(
                digest=named,
                dataset_uri="s3://cifar/d",
                dataset_digest="d",
                classes=classes,
                images=len(LABELS),
                image_size=32,
                placeholder=False,
            ),
            labels=self.store.put(f"{named}/labels.npy", _npy(LABELS)),
            probabilities=self.store.put(f"{digest}/{named}.npy", _npy(probabilities)),
        )
        self.store.put(_key(named, digest), canonical_json(evaluation.model_dump(mode="json")))

    def compare(self, first, second, limits=Limits()):  # noqa: B008
        return compare_versions(self.client, self.store, self.name, str(first), str(second), limits)


@pytest.fixture
def registry(default_client) -> Registry:
    return Registry(default_client)


def test_two_versions_are_compared_by_their_stored_probabilities(registry):
    first, second = registry.version(range(100)), registry.version(range(200))
    result = registry.compare(first, second)
    candidate, champion = (probabilities_of(LABELS, 2, range(wrong)) for wrong in (100, 200))
    assert result.decision.comparison == compare(candidate, champion, LABELS, CLASSES)
    assert result.verdict == f"version {first} (cnn) would replace version {second} (cnn)"
    assert registry.compare(second, first).verdict == f"version {second} (cnn) would not replace version {first} (cnn)"
    assert registry.compare(first, second, Limits(max_size_mb=9)).verdict.startswith("version 1 (cnn) would not")


def test_aliases_name_versions(registry):
    first, second = registry.version(range(100)), registry.version(range(200))
    for alias, number in (("champion", second), ("mine", first)):
        registry.client.set_registered_model_alias(registry.name, alias, str(number))
    assert registry.compare("mine", "champion").decision == registry.compare(first, second).decision
    with pytest.raises(
        ConfigError, match=r"no alias champoin \(did you mean champion\?\)\. Its aliases: champion, mine\."
    ):
        registry.compare("champoin", first)
    with pytest.raises(ConfigError, match="are the same version 1"):
        registry.compare("mine", first)


def test_what_does_not_exist_is_named(registry):
    with pytest.raises(ConfigError, match=f"there is no registered model {registry.name} in MLflow"):
        find_version(registry.client, registry.name, "1")
    number = registry.version([])
    with pytest.raises(ConfigError, match=rf"there is no version 7 of {registry.name} in MLflow"):
        registry.compare(7, number)
    with pytest.raises(ConfigError, match=r"has no alias champion\. It has none\. Or give a version number"):
        registry.compare(number, "champion")


def test_a_champion_that_was_evaluated_on_the_candidate_s_images_is_compared_on_those(registry):
    first, second = registry.version(range(100), "t1"), registry.version(range(200), "t2")
    digest = model_registry.saved_model_of(registry.client.get_model_version(registry.name, str(second))).sha256
    with pytest.raises(ConfigError, match=r"evaluated on different test images.*cifar10_promotion"):
        registry.compare(first, second)
    registry.evaluate(digest, range(300), "t1")
    for result in (registry.compare(first, second), registry.compare(second, first)):
        assert {result.decision.candidate.accuracy, result.decision.champion.accuracy} == {0.9, 0.7}


def test_other_classes_are_incomparable_and_the_error_says_what_to_do(registry):
    first, second = registry.version([]), registry.version([], "t2", ("red", "green"))
    with pytest.raises(ConfigError, match=r"different classes and cannot be compared.*under another name"):
        registry.compare(first, second)


def test_a_version_from_before_evaluations_were_stored_is_named_with_the_remedy(registry):
    first, second = registry.version([]), registry.version([], **{"cifar.test_set": ""})
    registry.client.delete_model_version_tag(registry.name, str(second), "cifar.test_set")
    registry.store.objects = {key: value for key, value in registry.store.objects.items() if "evaluations/" not in key}
    with pytest.raises(ConfigError, match=r"version 2 of \S+ was registered without an evaluation.*mode never"):
        registry.compare(first, second)


def test_probabilities_that_were_altered_are_not_compared(registry):
    first, second = registry.version(range(100)), registry.version(range(200))
    key = next(key for key in registry.store.objects if key.endswith(".npy") and "labels" not in key)
    registry.store.objects[key] = _npy(np.zeros((1_000, 2), np.float16))
    with pytest.raises(IntegrityError):
        registry.compare(first, second)


def test_the_terminal_markdown_json_and_the_page_show_the_same_verdict(registry):
    result = registry.compare(registry.version(range(100)), registry.version(range(200)))
    console = Console(file=io.StringIO(), width=200)
    result.print(console)
    printed = console.file.getvalue()
    assert printed.startswith(f"{result.verdict}\n")
    assert "cat (500)" in printed
    assert "calibration error" in printed
    assert result.as_markdown().startswith("**version 1 (cnn) would replace version 2 (cnn)**")
    read = json.loads(result.as_json())
    assert read["verdict"] == result.verdict
    assert read["decision"]["comparison"]["only_candidate_right"] == 100
    assert (read["candidate"]["accuracy"], read["champion"]["accuracy"]) == (0.9, 0.8)
    page = result.as_page()
    assert f"<h1>{registry.name}: version 1 and version 2</h1>" in page
    assert result.verdict in page


def test_the_command_loads_no_torch():
    program = "import sys; import cifar_tasks.cli.compare; print('torch' in sys.modules, 'matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["False", "False"]


def test_the_command_prints_one_format_and_writes_the_page(registry, tmp_path, monkeypatch):
    registry.version(range(100))
    registry.client.set_registered_model_alias(registry.name, "champion", str(registry.version(range(200))))
    monkeypatch.setattr("cifar_tasks.storage.s3.S3Store", lambda bucket: registry.store)
    monkeypatch.setattr("cifar_tasks.tracking.runs.mlflow_client", lambda: registry.client)
    page, command = tmp_path / "page.html", ["compare", "1", "--registered-model", registry.name]
    with server_that_answers(200) as mlflow:
        servers = {"MLFLOW_TRACKING_URI": mlflow, "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1"}
        for name, value in {"CIFAR_HOME": str(tmp_path), **servers}.items():
            monkeypatch.setenv(name, value)
        for option, begins in (
            ("--json", "{"),
            ("--markdown", "**version 1 (cnn) would"),
            (None, "version 1 (cnn) would"),
        ):
            done = CliRunner().invoke(app, [*command, *([option] if option else ["--html", str(page)])])
            assert done.exit_code == 0, done.output
            assert done.stdout.startswith(begins)
        done = CliRunner().invoke(app, [*command, "--json"], env={"FORCE_COLOR": "1"})
        assert json.loads(done.stdout)
        assert done.stderr  # where a terminal shows that it works
        assert f"<h1>{registry.name}: version 1 and version 2</h1>" in page.read_text(encoding="utf-8")
        with pytest.raises(ConfigError, match="exclude each other"):
            CliRunner().invoke(app, [*command, "--json", "--markdown"], catch_exceptions=False)
        with pytest.raises(ConfigError, match=r"--html: .* cannot be written: Is a directory"):
            CliRunner().invoke(app, [*command, "--html", str(tmp_path)], catch_exceptions=False)
