"""The saved model in MLflow: an exported program (pt2), no pickle, with signature, input example and digest.

`save_model` writes, reads back, compares, and only then tags the model with the digest of its files; a model without
that tag does not exist. `load_model` verifies the digest before it opens a file.
"""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cifar_tasks.errors import IntegrityError

if TYPE_CHECKING:  # the registry needs to know where a model is, and no torch for it
    import numpy as np
    import torch
    from mlflow import MlflowClient
    from numpy.typing import NDArray

    from cifar_tasks.models.classifier import ImageClassifier

DIGEST_TAG = "cifar.model_sha256"
PROGRAM = Path("data", "model.pt2")
"""Where MLflow's PyTorch flavour keeps the exported program."""


@dataclass(frozen=True)
class SavedModel:
    """Where a model lies and what its file must be."""

    uri: str
    """`models:/m-…`, as MLflow names a logged model."""
    sha256: str
    """Of its files (`digest_of_files`)."""

    @property
    def model_id(self) -> str:
        return self.uri.removeprefix("models:/")


def find_model(client: "MlflowClient", experiment: str, run_id: str) -> SavedModel | None:
    """The whole model that an earlier try of this run saved; halves of one are marked as failed.

    They are not deleted: where MLflow asks for a login, those who train may not delete.
    """
    saved = None
    for model in client.search_logged_models([experiment], filter_string=f"source_run_id = '{run_id}'"):
        digest = (model.tags or {}).get(DIGEST_TAG)
        if digest:
            saved = SavedModel(f"models:/{model.model_id}", digest)
        else:
            client.finalize_logged_model(model.model_id, "FAILED")
    return saved


def is_stored(client: "MlflowClient", saved: SavedModel) -> bool:
    """Whether the model's file is there; its content is not read."""
    from mlflow.exceptions import MlflowException

    try:
        found = client.list_logged_model_artifacts(saved.model_id, str(PROGRAM.parent))
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise
    return str(PROGRAM) in {entry.path for entry in found}


def save_model(
    client: "MlflowClient",
    run_id: str,
    model: "ImageClassifier",
    example: "NDArray[np.uint8]",
    tags: dict[str, Any],
    metadata: dict[str, Any] | None = None,
) -> SavedModel:
    """Export, upload, read back and compare; `example` is uint8 (2 or more, 32, 32, 3).

    `metadata` is for those who load the model without this product: its classes in the order of the logits.

    Raises `IntegrityError` if the stored program does not compute what the trained model computes.
    """
    import mlflow
    import numpy as np
    import torch
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    # The export warns about weights in another memory layout; a server's own library picks the layout it likes.
    model = model.cpu().eval().to(memory_format=torch.contiguous_format)
    with torch.inference_mode():
        expected = model(torch.from_numpy(example))
    shape, classes = (-1, *example.shape[1:]), expected.shape[1]
    signature = ModelSignature(
        # Without names: a model server then hands an array on, not a dict, which the PyTorch flavour refuses.
        inputs=Schema([TensorSpec(np.dtype(np.uint8), shape)]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, classes))]),
    )
    with mlflow.start_run(run_id=run_id):
        info = mlflow.pytorch.log_model(
            model,
            name="model",
            signature=signature,
            input_example=example,
            serialization_format="pt2",
            # Named, because MLflow would start a process of its own to find them out.
            pip_requirements=[f"torch=={torch.__version__.partition('+')[0]}", f"numpy=={np.__version__}"],
            tags={key: str(value) for key, value in tags.items()},
            metadata=metadata,
        )
    with _downloaded(info.model_uri) as folder, torch.inference_mode():
        digest, stored = digest_of_files(folder), _open(folder)(torch.from_numpy(example))
    if not torch.allclose(stored, expected, rtol=1e-3, atol=1e-4):
        gap = (stored - expected).abs().max().item()
        raise IntegrityError(f"the model stored at {info.model_uri} differs from the trained one: logits by {gap:.3g}")
    client.set_logged_model_tags(info.model_id, {DIGEST_TAG: digest})
    return SavedModel(info.model_uri, digest)


class OpenedModel(NamedTuple):
    """A stored model that was read."""

    module: "torch.nn.Module"
    size: int
    """Bytes of its program."""


def load_model(saved: SavedModel, device: "torch.device | None" = None) -> "torch.nn.Module":
    """The stored model, ready to classify; `IntegrityError` if its files are not those that were saved."""
    return open_model(saved, device).module


def open_model(saved: SavedModel, device: "torch.device | None" = None) -> OpenedModel:
    """As `load_model`, with the size of the program."""
    with _downloaded(saved.uri) as folder:
        _check_digest(saved, folder)
        model, size = _open(folder), (folder / PROGRAM).stat().st_size
    return OpenedModel(model if device is None else model.to(device), size)


def verify_model(saved: SavedModel) -> None:
    """`IntegrityError` if the stored files are not those that were saved. Loads no torch."""
    with _downloaded(saved.uri) as folder:
        _check_digest(saved, folder)


def _check_digest(saved: SavedModel, folder: Path) -> None:
    digest = digest_of_files(folder)
    # Older models were tagged with the digest of the program alone.
    if saved.sha256 not in (digest, _sha256(folder / PROGRAM)):
        raise IntegrityError(
            f"the model stored at {saved.uri} is damaged: SHA-256 {digest[:12]}… instead of {saved.sha256[:12]}…. "
            "Train again, or restore the object."
        )


@contextmanager
def _downloaded(uri: str) -> Iterator[Path]:
    """The model's folder on this machine while it is needed."""
    import mlflow

    with tempfile.TemporaryDirectory(prefix="cifar-model-") as target:
        folder = Path(mlflow.artifacts.download_artifacts(uri, dst_path=target))
        if not (folder / PROGRAM).is_file():
            raise IntegrityError(f"the model stored at {uri} was deleted from storage. Train again, or restore it.")
        yield folder


def digest_of_files(folder: Path) -> str:
    """SHA-256 of the lines that `sha256sum` prints for the files of a model, sorted by path.

    The program alone does not decide what a server does: the file `MLmodel` names code to load.
    """
    from mlflow.store.artifact.models_artifact_repo import REGISTERED_MODEL_META_FILE_NAME

    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    files.pop(REGISTERED_MODEL_META_FILE_NAME, None)  # MLflow adds it to what it downloads
    lines = [f"{_sha256(files[name])}  {name}\n" for name in sorted(files)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _open(folder: Path) -> "torch.nn.Module":
    """MLflow refuses an archive that holds a pickle (`MLFLOW_ALLOW_PICKLE_DESERIALIZATION` is off)."""
    import mlflow

    model: torch.nn.Module = mlflow.pytorch.load_model(str(folder))
    return model
