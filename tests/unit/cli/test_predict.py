"""Pictures are brought to the format that the champion was trained on."""

from cifar_tasks.cli.predict import image_format_of
from cifar_tasks.data.image_format import ImageFormat


def test_the_format_is_that_of_the_registered_version() -> None:
    assert image_format_of({"cifar.image_size": "64", "cifar.resize": "pad"}) == ImageFormat(64, "pad")


def test_a_version_registered_before_there_were_formats_is_still_understood() -> None:
    assert image_format_of({"cifar.classes": "[]"}) == ImageFormat(32, "squash")
