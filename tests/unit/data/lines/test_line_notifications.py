"""Which lines an object that has changed is meant for."""

import json

import pytest

from cifar_tasks.data.lines.line_notifications import Notification, notified_lines
from cifar_tasks.data.lines.line_settings import DatasetLine

LINES = {
    "pets": DatasetLine(source="s3://team/pets"),
    "slash": DatasetLine(source="s3://team/pets/"),
    "marked": DatasetLine(source="s3://team/marked", marker="_COMPLETE"),
    "bucket": DatasetLine(source="s3://whole"),
    "archive": DatasetLine(source="s3://team/all.zip"),
    "folder": DatasetLine(source="/data/pets"),
    "official": DatasetLine(source="cifar10"),
}


@pytest.mark.parametrize(
    ("key", "lines"),
    [
        ("/buckets/team/pets/train/cat/1.png", ["pets", "slash"]),
        ("/buckets/team/pets", ["pets", "slash"]),
        ("s3://team/pets/cat/ü 1%20.png", ["pets", "slash"]),
        ("team/pets/cat/1.png", ["pets", "slash"]),
        ("/buckets/team/pets2/cat/1.png", []),
        ("/buckets/team/pet", []),
        ("/buckets/other/pets/cat/1.png", []),
        ("/buckets/team/pets/../secret/1.png", []),
        ("/buckets/team/marked/cat/1.png", []),
        ("/buckets/team/marked/cat/_COMPLETE", []),
        ("/buckets/team/marked/_COMPLETE", ["marked"]),
        ("s3://team/marked/", ["marked"]),
        ("/buckets/whole/cat/1.png", ["bucket"]),
        ("/buckets/team/all.zip", ["archive"]),
        ("/buckets/team/all.zip.part", []),
        ("/data/pets/cat/1.png", ["folder"]),
        ("cifar10", []),
        ("", []),
        ("/", []),
        ("/buckets", []),
        ("\0", []),
    ],
)
def test_an_object_is_of_the_lines_in_whose_source_it_is(key: str, lines: list[str]) -> None:
    assert notified_lines(LINES, [key]) == lines


def test_an_object_that_is_moved_out_of_a_source_or_into_it_matters_to_the_line() -> None:
    body = {
        "key": "/buckets/team/incoming/1.png",
        "event_type": "rename",
        "message": {
            "old_entry": {"name": "1.png", "attributes": {"mtime": 1}},
            "new_entry": {"name": "1.png"},
            "new_parent_path": "/buckets/team/pets/train/cat",
        },
    }
    moved_in = Notification.model_validate_json(json.dumps(body))
    assert notified_lines(LINES, moved_in.objects()) == ["pets", "slash"]
    body |= {"key": "/buckets/team/pets/1.png", "message": body["message"] | {"new_parent_path": "/buckets/team/old"}}
    assert notified_lines(LINES, Notification.model_validate(body).objects()) == ["pets", "slash"]


def test_a_source_in_the_home_folder_is_that_folder(monkeypatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    lines = {"home": DatasetLine(source="~/pets")}
    assert notified_lines(lines, ["/home/ann/pets/cat/1.png"]) == ["home"]
    assert notified_lines(lines, ["/home/bob/pets/cat/1.png"]) == []


def test_minio_spells_the_key_in_its_own_way() -> None:
    minio = {"EventName": "s3:ObjectCreated:Put", "Key": "team/pets/cat/1.png", "Records": [{}]}
    assert notified_lines(LINES, Notification.model_validate(minio).objects()) == ["pets", "slash"]
