"""Real images are learnt, and labels that mean nothing are not: accuracy is that of the test images."""

import html
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image
from sklearn.datasets import load_digits

from cifar_tasks.cli.local_run import run_workflow
from cifar_tasks.data.source import PLACEHOLDER_BANNER
from cifar_tasks.steps.report_payloads import RunReport
from cifar_tasks.training.transfer import fit_classifier, without_transfer
from tests.conftest import RunningStack
from tests.trainings import child_run, request
from tests.unit.training.test_transfer import Notes, config, noise, resnet50


def learnt(source: Path | str, name: str) -> RunReport:
    overrides = {"epochs": 4, "batch_size": 64, "learning_rate": 0.05}
    report, _ = run_workflow(name, request(source, registered_model=name, image_size=16, overrides=overrides))
    return report


def shuffled_digits(path: Path) -> Path:
    """scikit-learn's digits in class folders that were drawn at random."""
    digits, random = load_digits(), np.random.default_rng(0)
    labels = random.permutation(digits.target)
    with zipfile.ZipFile(path, "w") as archive:
        for number, (pixels, label) in enumerate(zip(digits.images, labels, strict=True)):
            content = BytesIO()
            Image.fromarray((pixels * 15.9).astype(np.uint8)).convert("RGB").save(content, "PNG")
            split = "test" if number % 4 == 0 else "train"
            archive.writestr(f"{split}/{label}/{number}.png", content.getvalue())
    return path


def test_handwritten_digits_are_learnt_and_called_placeholder_data_wherever_a_result_is_shown(
    client: MlflowClient, tmp_path: Path
) -> None:
    report = learnt("digits", "digits-learnt")
    (row,) = report.rows
    assert row.test_accuracy > 0.95
    assert row.validation_accuracy == pytest.approx(row.test_accuracy, abs=0.05)

    (parent,) = child_run(client, "cli/digits-learnt", "all")
    (child,) = child_run(client, "cli/digits-learnt")
    assert report.banner == PLACEHOLDER_BANNER
    assert PLACEHOLDER_BANNER in parent.data.tags["mlflow.note.content"]
    page = Path(client.download_artifacts(parent.info.run_id, "report.html", str(tmp_path))).read_text()
    assert PLACEHOLDER_BANNER in html.unescape(page)
    assert child.data.params["flip"] == "False"


def test_shuffled_labels_give_the_accuracy_of_chance(tracked: RunningStack, tmp_path: Path) -> None:
    (row,) = learnt(shuffled_digits(tmp_path / "shuffled.zip"), "digits-shuffled").rows
    four_deviations = 4 * (0.1 * 0.9 / 450) ** 0.5
    assert row.test_accuracy == pytest.approx(0.1, abs=four_deviations)
    assert row.validation_accuracy < 0.25


def test_resnet50_overfits_64_images():
    plain = {"crop_padding": 0, "flip": False, "label_smoothing": 0.0, "weight_decay": 0.0}
    settings = without_transfer(config(epochs=9, patience=9, batch_size=32, **plain))
    fit_classifier(resnet50(), settings, noise(), noise(), [notes := Notes()])
    assert max(snapshot.history[-1].train_accuracy for snapshot in notes.snapshots) == 1.0
