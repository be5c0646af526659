import dataclasses

import numpy as np
import pytest

from cifar_tasks.data.images import LabelledImages, RawDataset
from cifar_tasks.data.validation import image_groups, validate
from cifar_tasks.errors import DataError


def noise(labels: list[int], seed: int) -> LabelledImages:
    images = np.random.default_rng(seed).integers(0, 256, (len(labels), 32, 32, 3), dtype=np.uint8)
    return LabelledImages(images, np.array(labels, dtype=np.int64))


def dataset(train: list[int], test: list[int]) -> RawDataset:
    return RawDataset("mine", ("ant", "bee"), noise(train, 1), noise(test, 2))


@pytest.fixture
def balanced() -> RawDataset:
    return dataset([0, 1] * 100, [0, 1] * 100)


def with_train(raw: RawDataset, images: np.ndarray, labels: np.ndarray) -> RawDataset:
    return dataclasses.replace(raw, train=LabelledImages(images, labels))


def test_a_sound_data_set_has_no_warnings(balanced: RawDataset) -> None:
    assert validate(balanced) == ()


def test_wrong_arrays_are_refused_with_what_was_found(balanced: RawDataset) -> None:
    images, labels = balanced.train.images, balanced.train.labels
    wrong = {
        r"images are float32 \(200, 32, 32, 3\)": with_train(balanced, images.astype(np.float32), labels),
        r"images are uint8 \(200, 16, 32, 3\)": with_train(balanced, images[:, ::2], labels),
        r"200 images but labels are int64 \(199,\)": with_train(balanced, images, labels[1:]),
        r"200 images but labels are int32 \(200,\)": with_train(balanced, images, labels.astype(np.int32)),
        r"labels run from 0 to 2, but there are 2 classes": with_train(balanced, images, labels * 2),
        r"labels run from -1 to 0": with_train(balanced, images, labels - 1),
        r"mine, train: there are no images": with_train(balanced, images[:0], labels[:0]),
    }
    for message, raw in wrong.items():
        with pytest.raises(DataError, match=message):
            validate(raw)


def test_a_class_with_one_training_image_is_refused() -> None:
    with pytest.raises(DataError, match="class 'bee' has 1 training images"):
        validate(dataset([0, 0, 1], [0, 1]))


def test_unbalanced_classes_give_a_warning_with_the_ratio() -> None:
    (warning,) = validate(dataset([0] * 40 + [1] * 10, [0, 1]))
    assert warning == "classes are unbalanced: ant has 4.0 times as many training images as bee"


def test_a_class_without_test_images_gives_a_warning() -> None:
    assert validate(dataset([0, 1] * 5, [0, 0])) == ("no test images of bee: the test says nothing about them",)


def test_a_few_test_images_in_training_give_a_warning(balanced: RawDataset) -> None:
    balanced.test.images[:2] = balanced.train.images[:2]
    assert validate(balanced) == ("2 of 200 test images stand in training too (1.00%)",)


def test_many_test_images_in_training_are_refused(balanced: RawDataset) -> None:
    balanced.test.images[:3] = balanced.train.images[:3]
    with pytest.raises(DataError, match=r"3 of 200 test images \(1\.5%\) stand in training too"):
        validate(balanced)


def test_repeated_training_images_are_counted(balanced: RawDataset) -> None:
    balanced.train.images[[10, 20]] = balanced.train.images[30]
    assert validate(balanced)[0].startswith("2 training images repeat another one exactly")


def test_groups_tell_equal_images(balanced: RawDataset) -> None:
    images = balanced.train.images[:5].copy()
    images[3] = images[1]
    assert image_groups(images).tolist() == [0, 1, 2, 1, 3]
