"""Which files are classified, in which format, and how predictions are written."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from cifar_tasks.cli import predict as module
from cifar_tasks.cli.main import app
from cifar_tasks.cli.predict import Prediction, Predictions, find_pictures, image_format_of
from cifar_tasks.data.image_format import ImageFormat
from cifar_tasks.settings import PROJECT
from cifar_tasks.tracking.saved_model import SavedModel
from cifar_tasks.training import device
from tests.names import FOLDER_NAMES, NASTY_NAMES


def test_the_format_is_that_of_the_registered_version() -> None:
    assert image_format_of({"cifar.image_size": "64", "cifar.resize": "pad"}) == ImageFormat(64, "pad")


def test_a_version_registered_before_there_were_formats_is_still_understood() -> None:
    assert image_format_of({"cifar.classes": "[]"}) == ImageFormat(32, "squash")


def test_folders_are_searched_and_each_picture_is_found_once(tmp_path: Path) -> None:
    for name in ("a.png", "deep/er/b.JPG", "deep/c.jpeg", "notes.txt", "named without ending"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    problems: list[str] = []
    found = find_pictures([tmp_path / "named without ending", tmp_path / "deep", tmp_path], problems)
    names = [str(path.relative_to(tmp_path)) for path in found]
    assert names == ["named without ending", "deep/c.jpeg", "deep/er/b.JPG", "a.png"]
    assert not problems


def test_every_missing_file_and_empty_folder_is_a_problem_and_the_others_are_found(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "good.png").write_bytes(b"x")
    problems: list[str] = []
    found = find_pictures([tmp_path / name for name in ("gone.png", "empty", "good.png", "loop")], problems)
    assert found == [tmp_path / "good.png"]
    assert [problem.split("/")[-1].split()[0] for problem in problems] == ["gone.png", "empty", "loop"]


def test_what_is_no_file_in_a_folder_is_a_problem_as_if_it_was_named(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "pictures", tmp_path / "elsewhere"
    for each in (folder, elsewhere):
        each.mkdir()
        (each / "good.png").write_bytes(b"x")
    (folder / "broken.png").symlink_to("gone")
    os.mkfifo(folder / "pipe.jpg")
    (folder / "linked").symlink_to(elsewhere)
    (folder / "round").symlink_to(folder)
    (folder / "notes").symlink_to("gone")
    problems: list[str] = []
    assert find_pictures([folder], problems) == [folder / "good.png", folder / "linked" / "good.png"]
    assert problems == [
        f"there is no picture at {folder / 'broken.png'}",
        f"there is no picture at {folder / 'pipe.jpg'}",
    ]


def test_an_empty_path_is_not_the_current_folder() -> None:
    done = CliRunner().invoke(app, ["predict", "cat.png", ""])
    assert str(done.exception) == "PICTURE is empty: give a file or a folder."


NOT_ROOT = """
import json, os, sys
from pathlib import Path
from cifar_tasks.cli.predict import find_pictures
if os.geteuid() == 0:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
problems = []
found = find_pictures([Path(path) for path in sys.argv[1:]], problems)
print(json.dumps([[str(path) for path in found], problems]))
"""
"""Root may read everything."""


def test_what_may_not_be_read_is_a_problem_and_the_others_are_found() -> None:
    with TemporaryDirectory(dir="/tmp") as name:
        root = Path(name)
        root.chmod(0o755)
        for picture in ("good/a.png", "closed/b.png", "good/inner/c.png", "good/listed/d.png"):
            (root / picture).parent.mkdir(parents=True, exist_ok=True)
            (root / picture).write_bytes(b"x")
        closed = root / "closed", root / "good" / "inner"
        for folder in closed:
            folder.chmod(0)
        (root / "good" / "listed").chmod(0o744)
        paths = [root / each for each in ("closed", "closed/b.png", "x" * 300, "good")]
        command = [sys.executable, "-c", NOT_ROOT, *map(str, paths)]
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False)
        for folder in closed:
            folder.chmod(0o700)
    assert done.returncode == 0, done.stderr
    found, problems = json.loads(done.stdout)
    assert found == [str(root / "good" / "a.png")]
    assert problems == [
        f"{closed[0]} cannot be read: Permission denied",
        f"{closed[0] / 'b.png'} cannot be read: Permission denied",
        f"{paths[2]} cannot be read: File name too long",
        f"{closed[1]} cannot be read: Permission denied",
        f"{root / 'good' / 'listed' / 'd.png'} cannot be read: Permission denied",
    ]


@pytest.mark.parametrize("name", [*FOLDER_NAMES, os.fsdecode(b"not utf-8 \xff")])
def test_json_and_csv_read_back_to_any_name(name: str) -> None:
    result = Predictions("name", 3, [Prediction(Path(f"/x/{name}.png"), name, 0.25)], ["broken.png cannot be decoded"])
    read = json.loads(result.as_json())
    assert read["predictions"] == [{"picture": f"/x/{name}.png", "class": name, "probability": 0.25}]
    assert (read["version"], read["errors"]) == (3, ["broken.png cannot be decoded"])
    assert list(csv.reader(io.StringIO(result.as_csv()))) == [
        ["picture", "class", "probability"],
        [f"/x/{name}.png", name, "0.25"],
    ]


def test_a_class_may_have_any_name_in_json() -> None:
    for name in NASTY_NAMES:
        result = Predictions("name", 1, [Prediction(Path("a.png"), name, 1.0)])
        assert json.loads(result.as_json())["predictions"][0]["class"] == name


class Noted(nn.Module):
    """Three classes; notes in which precision they are computed."""

    def __init__(self, seen: list[torch.dtype]) -> None:
        super().__init__()
        self.layer, self.seen = nn.Linear(8 * 8 * 3, 3), seen

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layer(images.flatten(1).float())
        self.seen.append(logits.dtype)
        return logits


def test_only_fast_predictions_are_computed_in_the_precision_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.dtype] = []
    monkeypatch.setattr(module, "load_model", lambda saved: Noted(seen))
    monkeypatch.setattr(device, "precision", lambda _: torch.bfloat16)
    images = np.zeros((2, 8, 8, 3), np.uint8)
    for fast in (False, True):
        assert len(module._Classifier(SavedModel("models:/m-1", "0"), fast).predict(images)) == 2
    assert seen == [torch.float32, torch.bfloat16]
