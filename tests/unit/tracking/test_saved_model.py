"""A saved model on a real MLflow: it is whole or it does not exist, and is what was trained or is refused."""

import hashlib
import subprocess
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from torch import Tensor, nn

from cifar_tasks.errors import IntegrityError
from cifar_tasks.tracking.saved_model import (
    DIGEST_TAG,
    PROGRAM,
    SavedModel,
    digest_of_files,
    find_model,
    is_stored,
    load_model,
    save_model,
    verify_model,
)

EXAMPLE = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)


class Linear(nn.Module):
    """Its exported program may differ from what was trained, by `wrong_by`."""

    def __init__(self, wrong_by: float = 0) -> None:
        super().__init__()
        self.layer = nn.Linear(8 * 8 * 3, 2)
        self.wrong_by = wrong_by

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layer(images.float().flatten(1) / 255)
        return logits + self.wrong_by if torch.compiler.is_exporting() else logits


def experiment_of(client: MlflowClient, run_id: str) -> str:
    return str(client.get_run(run_id).info.experiment_id)


def program_of(client: MlflowClient, saved: SavedModel) -> Path:
    return Path(client.get_logged_model(saved.model_id).artifact_location.removeprefix("file://"), PROGRAM)


def test_a_saved_model_is_found_and_computes_what_was_trained(default_client, run_id):
    model = Linear().train()
    saved = save_model(default_client, run_id, model, EXAMPLE, {"cifar.model": "cnn"}, {"classes": ["a", "b"]})
    assert find_model(default_client, experiment_of(default_client, run_id), run_id) == saved
    assert is_stored(default_client, saved)
    with torch.inference_mode():
        images = torch.from_numpy(np.concatenate([EXAMPLE, EXAMPLE[:1]]))  # another number than that of the example
        torch.testing.assert_close(load_model(saved)(images), model(images))
    assert default_client.get_logged_model(saved.model_id).tags["cifar.model"] == "cnn"

    info = mlflow.models.get_model_info(saved.uri)
    assert info.metadata == {"classes": ["a", "b"]}
    (images_in,), (logits_out,) = info.signature.inputs.inputs, info.signature.outputs.inputs
    assert (images_in.shape, images_in.type, images_in.name) == ((-1, 8, 8, 3), np.uint8, None)
    assert (logits_out.shape, logits_out.type) == ((-1, 2), np.float32)

    program = program_of(default_client, saved)
    needed = program.parents[1].joinpath("requirements.txt").read_text().splitlines()
    assert f"torch=={torch.__version__.partition('+')[0]}" in needed

    content = program.read_bytes()
    program.write_bytes(content[:-1])
    with pytest.raises(IntegrityError, match=rf"damaged: SHA-256 \w{{12}}… instead of {saved.sha256[:12]}…"):
        load_model(saved)
    program.unlink()
    with pytest.raises(IntegrityError, match=r"was deleted from storage"):
        load_model(saved)
    assert not is_stored(default_client, saved)


def alter_mlmodel(folder: Path) -> None:
    path = folder / "MLmodel"
    path.write_text(path.read_text().replace("code: null", "code: code"))


def add_code(folder: Path) -> None:
    (folder / "code").mkdir()
    (folder / "code" / "numpy.py").write_text("raise SystemExit('this code was not saved')")


def delete_requirements(folder: Path) -> None:
    (folder / "requirements.txt").unlink()


def rename_requirements(folder: Path) -> None:
    (folder / "requirements.txt").rename(folder / "requirement.txt")


@pytest.mark.parametrize("alter", [alter_mlmodel, add_code, delete_requirements, rename_requirements])
def test_a_model_is_not_opened_if_any_of_its_files_was_altered_added_or_deleted(default_client, run_id, alter):
    saved = save_model(default_client, run_id, Linear(), EXAMPLE, {})
    verify_model(saved)
    folder = program_of(default_client, saved).parents[1]
    before = digest_of_files(folder)
    alter(folder)
    assert digest_of_files(folder) != before == saved.sha256
    for use in (verify_model, load_model):
        with pytest.raises(IntegrityError, match=r"is damaged: SHA-256"):
            use(saved)


def test_a_model_whose_program_alone_has_a_digest_is_opened_and_refused_if_the_program_was_altered(
    default_client, run_id
):
    uri = save_model(default_client, run_id, Linear(), EXAMPLE, {}).uri
    program = program_of(default_client, SavedModel(uri, ""))
    earlier = SavedModel(uri, hashlib.sha256(program.read_bytes()).hexdigest())
    verify_model(earlier)
    program.write_bytes(program.read_bytes()[:-1])
    with pytest.raises(IntegrityError, match=r"is damaged: SHA-256"):
        verify_model(earlier)


def test_the_digest_of_a_downloaded_model_can_be_computed_with_sha256sum(default_client, run_id, tmp_path):
    saved = save_model(default_client, run_id, Linear(), EXAMPLE, {})
    command = "find * -type f ! -name registered_model_meta | LC_ALL=C sort | xargs sha256sum | sha256sum"
    (tmp_path / "copy").mkdir()
    folder = Path(mlflow.artifacts.download_artifacts(saved.uri, dst_path=str(tmp_path / "copy")))
    done = subprocess.run(["sh", "-c", command], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == saved.sha256


@pytest.mark.parametrize("wrong_by", [0.01, -1])
def test_a_stored_program_that_differs_from_the_trained_model_is_an_error_and_no_model(
    default_client, run_id, wrong_by
):
    with pytest.raises(IntegrityError, match=rf"differs from the trained one: logits by {abs(wrong_by)}"):
        save_model(default_client, run_id, Linear(wrong_by), EXAMPLE, {})
    assert find_model(default_client, experiment_of(default_client, run_id), run_id) is None


def test_a_half_of_a_model_is_marked_as_failed_and_does_not_hide_the_whole_one(default_client, run_id):
    experiment = experiment_of(default_client, run_id)
    models = [default_client.create_logged_model(experiment, name="model", source_run_id=run_id) for _ in range(3)]
    whole = models[1].model_id
    default_client.set_logged_model_tags(whole, {DIGEST_TAG: "abc"})
    assert find_model(default_client, experiment, run_id) == SavedModel(f"models:/{whole}", "abc")
    assert [default_client.get_logged_model(model.model_id).status for model in models] == [
        "FAILED",
        "PENDING",
        "FAILED",
    ]
    assert find_model(default_client, experiment, "another run") is None


def test_a_model_that_was_deleted_in_mlflow_is_not_stored(default_client):
    assert not is_stored(default_client, SavedModel("models:/m-0123456789abcdef0123456789abcdef", "abc"))
