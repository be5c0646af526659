"""The CNN as it is saved, read back through MLflow, beside the eager module that was trained."""

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.measure import Row, interleaved, rate
from benchmarks.training_speed import CNN, GREY, random_split
from cifar_tasks.models.classifier import ImageClassifier, build_classifier
from cifar_tasks.training.device import precision
from cifar_tasks.training.logits import FastClassifier, predict_logits

IMAGES = 1000


def measure(rounds: int) -> list[Row]:
    images = random_split(IMAGES).images
    eager = _settled(build_classifier(CNN, 10, *GREY), images)
    saved = _saved_and_loaded(eager)
    fast = f"fast, {str(precision(images.device)).removeprefix('torch.')}"
    models: dict[str, nn.Module] = {"eager": eager, "saved": saved, fast: FastClassifier(saved)}
    compiled = torch.compile(saved, options={"freezing": True})
    models |= {"compiled": compiled, f"{fast}, compiled": FastClassifier(compiled)}
    classify: dict[str, Callable[[], NDArray[np.float32]]] = {
        name: lambda model=model: predict_logits(model, images.numpy()) for name, model in models.items()
    }
    figures = interleaved({name: rate(IMAGES, work) for name, work in classify.items()}, rounds, "inference")
    exact = classify["eager"]()
    spread = exact.std()
    return [
        Row(
            f"inference, {name}",
            {
                name: f"{figures[name]:.0f}",
                "eager": f"{figures['eager']:.0f} images/s",
                "logits differ by": f"{np.abs(classify[name]() - exact).max() / spread:.1g} of their deviation",
            },
            figures.ratio(name, "eager"),
            1.5,
        )
        for name in models
        if name != "eager"
    ]


@torch.no_grad()
def _settled(model: ImageClassifier, images: Tensor) -> ImageClassifier:
    """Running statistics as after training, so that activations, and what rounding does to them, are ordinary."""
    model.train()
    for batch in images.split(100):
        model(batch)
    return model.eval()


def _saved_and_loaded(model: ImageClassifier) -> nn.Module:
    """What `save_model` and `load_model` do, without a server between them."""
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, 32, 32, 3))]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, 10))]),
    )
    with tempfile.TemporaryDirectory(prefix="cifar-bench-") as folder:
        path = Path(folder, "model")
        mlflow.pytorch.save_model(
            copy.deepcopy(model).to(memory_format=torch.contiguous_format),
            path,
            signature=signature,
            input_example=np.zeros((2, 32, 32, 3), dtype=np.uint8),
            serialization_format="pt2",
            pip_requirements=["torch"],
        )
        loaded: nn.Module = mlflow.pytorch.load_model(str(path))
    return loaded
