"""The champion in the hands of official clients and of `cifar predict`."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import requests
from mlflow.exceptions import MlflowException
from PIL import Image

from cifar_tasks.cli.local_run import run_workflow
from cifar_tasks.data.image_format import ImageFormat, decode_image
from tests.conftest import COLOURS, RunningStack, connect
from tests.trainings import request
from tests.waiting import wait_until

DOCS = Path(__file__).parents[2] / "docs"
MODEL = "models:/predictions@champion"


@pytest.fixture(scope="module", autouse=True)
def champion(backend: RunningStack, pictures: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        connect(patch, backend.environment)
        run_workflow("predictions", request(pictures, registered_model="predictions"))


def python_blocks(page: str) -> list[str]:
    """The Python code that a page of the documentation shows."""
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


@contextmanager
def model_server(uri: str) -> Iterator[str]:
    """`mlflow models serve`, on a free port; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", uri, "--env-manager", "local", "-p", port]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    server = subprocess.Popen(command, env={**os.environ, "PATH": path}, start_new_session=True)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: answers(f"{url}/ping"))
        yield url
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.ConnectionError:
        return False


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "bool"])
def test_arrays_of_other_types_are_refused(tracked, dtype):
    model = mlflow.pyfunc.load_model(MODEL)
    with pytest.raises(MlflowException, match="Failed to enforce schema"):
        model.predict(np.full((1, 32, 32, 3), 0.5).astype(dtype))


def test_the_calls_in_the_documentation_give_labels_and_probabilities(tracked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture = Image.new("RGB", (300, 200), COLOURS["green"])
    picture.paste(COLOURS["red"], (40, 0, 260, 200))
    picture.save("cat.jpg")
    in_python, through_server = python_blocks("predictions.md")
    names: dict[str, Any] = {}
    exec(in_python.replace("models:/cifar10-classifier@champion", MODEL), names)  # noqa: S102
    assert names["labels"] == ["red"]
    prepared = decode_image(Path("cat.jpg").read_bytes(), ImageFormat(32, names["metadata"]["resize"]))
    assert np.abs(names["image"].astype(int) - prepared).max() <= 2
    assert names["probabilities"].sum() == pytest.approx(1)
    with model_server(MODEL) as url:
        expected = names["logits"]
        exec(through_server.replace("http://127.0.0.1:5001", url), names)  # noqa: S102
    assert np.allclose(names["logits"], expected, atol=1e-4)


def test_predict_goes_on_after_bad_files_and_loads_torch_for_good_ones_only(tracked, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    Image.new("RGB", (30, 20), COLOURS["blue"]).save(tmp_path / "good.png")
    script = (
        "import sys; from pathlib import Path; from cifar_tasks.cli.predict import predict\n"
        "result = predict([Path(path) for path in sys.argv[1:]], 'predictions')\n"
        "print([p.label for p in result.found], len(result.problems), 'torch' in sys.modules)"
    )

    def printed(*paths: Path) -> str:
        command = [sys.executable, "-c", script, *map(str, paths)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]

    assert printed(tmp_path / "bad.png", tmp_path / "gone.png") == "[] 2 False"
    assert printed(tmp_path / "gone.png", tmp_path) == "['blue'] 2 True"
