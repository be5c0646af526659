"""What is refused, and what gives a warning."""

import numpy as np
import pytest

from cifar_tasks.data.image_format import ImageFormat
from cifar_tasks.data.images import LabelledImages
from cifar_tasks.data.spool import spooled
from cifar_tasks.data.validation import unvalidated, validate
from cifar_tasks.errors import DataError
from tests.unit.data.sources import noise, quiet, stream_of

EVEN = [0, 1] * 100


def warnings(train: LabelledImages, test: LabelledImages) -> tuple[str, ...]:
    with spooled(stream_of(train, test, "mine"), ImageFormat(), quiet) as raw:
        return validate(raw)


def warnings_of(train: list[int], test: list[int]) -> tuple[str, ...]:
    return warnings(noise(train, 1), noise(test, 2))


@pytest.fixture
def train() -> LabelledImages:
    return noise(EVEN, 1)


@pytest.fixture
def test() -> LabelledImages:
    return noise(EVEN, 2)


def test_a_sound_dataset_has_no_warnings(train: LabelledImages, test: LabelledImages) -> None:
    assert warnings(train, test) == ()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 2] * 5, "mine, train: labels run from 0 to 2, but there are 2 classes"),
        ([-1, 0] * 5, "mine, train: labels run from -1 to 0"),
        ([], "mine, train: there are no images"),
        ([0, 0, 1], "mine: class 'bee' has 1 training images"),
    ],
)
def test_labels_that_cannot_be_trained_on_are_refused(labels: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        warnings_of(labels, [0, 1])


def test_test_labels_are_looked_at_too() -> None:
    with pytest.raises(DataError, match="mine, test: labels run from 0 to 5"):
        warnings_of(EVEN, [0, 5])


def test_unbalanced_classes_give_a_warning_with_the_ratio() -> None:
    (warning,) = warnings_of([0] * 40 + [1] * 10, [0, 1])
    assert warning == "classes are unbalanced: ant has 4.0 times as many training images as bee"


@pytest.mark.parametrize(("largest", "warned"), [(30, 0), (31, 1)])
def test_classes_are_unbalanced_from_three_to_one_on(largest: int, warned: int) -> None:
    assert len(warnings_of([0] * largest + [1] * 10, [0, 1])) == warned


def test_a_class_without_test_images_gives_a_warning() -> None:
    assert warnings_of([0, 1] * 5, [0, 0]) == ("no test images of bee: they are not tested",)


def test_a_few_test_images_in_training_give_a_warning(train: LabelledImages, test: LabelledImages) -> None:
    test.images[:2] = train.images[:2]
    assert warnings(train, test) == (
        "2 of 200 test images are also in training (1.00%) and are left out there: "
        "image 200 = image 0, image 201 = image 1",
    )


def test_many_test_images_in_training_are_refused(train: LabelledImages, test: LabelledImages) -> None:
    test.images[:4] = train.images[[0, 1, 2, 2]]
    train.images[7] = train.images[2]
    named = "image 200 = image 0, image 201 = image 1, image 202 = image 2, image 203 = image 2"
    with pytest.raises(DataError, match=rf"4 of 200 test images .* one of the two: {named}\.$"):
        warnings(train, test)


def test_repeated_training_images_are_counted(train: LabelledImages, test: LabelledImages) -> None:
    train.images[[10, 20]] = train.images[30]
    assert warnings(train, test) == (
        "2 training images repeat another one exactly; equal images stay on one side of a split: "
        "image 20 = image 10, image 30 = image 10",
    )


def test_equal_images_of_several_classes_are_contradicting_labels(train: LabelledImages, test: LabelledImages) -> None:
    train.images[[11, 13]] = train.images[10]  # classes bee, bee and ant
    test.images[5] = test.images[8]
    repeated, contradicting = warnings(train, test)
    assert repeated.endswith("image 11 = image 10, image 13 = image 10")
    assert contradicting == (
        "contradicting labels: 5 images are equal to one of another class: "
        "image 11 = image 10, image 13 = image 10, image 208 = image 205"
    )


def test_every_message_names_the_first_twenty_and_says_how_many(train: LabelledImages, test: LabelledImages) -> None:
    train.images[:50] = train.images[0]
    (repeated, contradicting) = warnings(train, test)
    assert repeated.endswith("image 20 = image 0, … (the first 20 of 49)")
    assert contradicting.endswith("image 39 = image 0, … (the first 20 of 25)")


def test_a_class_whose_training_images_are_all_in_the_test_is_refused() -> None:
    train, test = noise([0] * 4 + [1] * 200, 1), noise([0, 1] * 300, 2)
    test.images[:3] = train.images[:3]
    with pytest.raises(DataError, match="class 'ant' has 1 training images that are not test images too, not 2"):
        warnings(train, test)


def test_a_class_without_validation_images_gives_a_warning_and_no_validation_images_at_all_are_refused(
    train: LabelledImages, test: LabelledImages
) -> None:
    with spooled(stream_of(train, test, "mine"), ImageFormat(), quiet) as raw:
        assert unvalidated(raw, np.array([0, 1])) == []
        assert unvalidated(raw, np.array([0, 2])) == ["no validation images of bee: all their images are equal"]
        with pytest.raises(DataError, match="mine: all training images of each class are equal: none is left"):
            unvalidated(raw, np.array([], dtype=np.int64))


def test_two_training_images_of_a_class_are_enough() -> None:
    assert warnings_of([0, 0, 1, 1], [0, 1]) == ()


def test_near_duplicates_within_the_test_set_are_not_said_to_be_in_training(
    train: LabelledImages, test: LabelledImages
) -> None:
    test.images[3] = test.images[5][:, ::-1]
    (warning,) = warnings(train, test)
    assert warning.startswith("1 pairs of images are near-duplicates")


def test_a_warning_names_the_first_near_duplicates_and_how_many_there_are(
    train: LabelledImages, test: LabelledImages
) -> None:
    test.images[10:17] = test.images[20:27, :, ::-1]
    (warning,) = warnings(train, test)
    assert warning.startswith("7 pairs of images are near-duplicates")
    assert warning.count(" ~ ") == 5
    assert warning.endswith("… (the first 5 of 7)")
