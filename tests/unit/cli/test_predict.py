"""Which files are classified, in which format, and how predictions are written."""

import csv
import io
import json
import os
from pathlib import Path

import pytest

from cifar_tasks.cli.predict import Prediction, Predictions, find_pictures, image_format_of
from cifar_tasks.data.image_format import ImageFormat
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
