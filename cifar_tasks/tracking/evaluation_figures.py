"""Tables and figures of an evaluation, as artifacts of the MLflow run of the training."""

import json
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cifar_tasks.data.images import LabelledImages
from cifar_tasks.evaluation import plots
from cifar_tasks.evaluation.metrics import Evaluation, confused_positions, evaluate
from cifar_tasks.tracking.evaluations import StoredEvaluation

if TYPE_CHECKING:
    from mlflow import MlflowClient

FOLDER = "evaluation"
LAST = "test_images.png"
"""What is logged last."""
PAIRS_SHOWN = 8


def log_figures(
    client: "MlflowClient",
    run_id: str,
    evaluation: StoredEvaluation,
    test: LabelledImages,
    probabilities: NDArray[np.float16],
    *,
    model: str,
    seed: int = 0,
    folder: str = FOLDER,
) -> Evaluation:
    """Confusion matrix, classification report, reliability diagram, the most confused pairs, 32 random test images.

    `probabilities` are (N, classes), those of the evaluation; `model` is the name in the titles.
    """
    classes, predicted = evaluation.test_set.classes, probabilities.argmax(axis=1)
    result = evaluate(predicted, test.labels, classes)
    matrix = plots.confusion_matrix(result.confusion, classes, f"{model} on the test images")
    client.log_figure(run_id, matrix, f"{folder}/confusion_matrix.png")
    counts = {"classes": list(classes), "rows": "true", "counts": result.confusion.tolist()}
    client.log_text(run_id, json.dumps(counts), f"{folder}/confusion_matrix.json")  # log_dict has a line per number
    client.log_dict(run_id, result.report, f"{folder}/classification_report.json")
    client.log_text(run_id, result.table, f"{folder}/classification_report.txt")
    reliability = plots.reliability_diagram(evaluation.calibration, f"{model} on the test images")
    client.log_figure(run_id, reliability, f"{folder}/reliability.png")
    pairs = [
        (pair.true, pair.predicted, pair.images, test.images[examples])
        for pair in evaluation.confused[:PAIRS_SHOWN]
        for examples in [
            confused_positions(test.labels, probabilities, *map(classes.index, (pair.true, pair.predicted)))
        ]
    ]
    title = f"{model}: the most confused pairs, true → predicted, the most confident mistakes first"
    client.log_figure(run_id, plots.confused_images(pairs, title), f"{folder}/confused_images.png")
    chosen = plots.sample_indices(len(test), seed)
    shown = test.take(chosen)
    grid = plots.image_grid(
        shown.images,
        [classes[label] for label in shown.labels],
        [classes[label] for label in predicted[chosen]],
        title=f"{model}: 32 random test images, true → predicted",
    )
    client.log_figure(run_id, grid, f"{folder}/{LAST}")
    return result
